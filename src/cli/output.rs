//! `writ output`: prints the complete and verified output of a command.

use std::io::{Seek as _, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use crate::api::CommandExecution;
use crate::api::execution_status::{Encoding, StreamRecord};
use crate::cluster::{ClientOptions, Cluster};
use crate::output::{OutputKey, Store, StoreError, StreamKind};

use super::CliExit;
use super::object_name::{missing, parse_execution};
use super::store::{OUTPUT_STORE, location_or_default, open_to_read};

/// Print the output of an execution.
///
/// Reads the status if it contains the complete output. Otherwise reads the output store of the `writ serve` that ran
/// the command. Name this store with --store; you need the right to read it. Prints only output whose size and SHA-256
/// match the status. The output is first written to a temporary file ($TMPDIR), which needs as much space as the
/// output.
///
///   writ output restart-nginx-20261121
///   writ output -n ops backup --stream stdout > backup.log
///   writ output -n ops backup --store s3://audit/writ
///
/// Exit codes: 0 printed, 2 the lookup failed (no such execution, flags, cluster or store), 4 there is no output
/// (nothing was run, or it was not stored), 5 the execution has not finished, 6 the output differs from its record.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Output {
    /// Name of the CommandExecution.
    #[arg(value_name = "NAME", value_parser = parse_execution)]
    name: String,

    /// Namespace of the CommandExecution [default: the namespace of the kubeconfig].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Output store: a directory, file:///PATH, or s3://BUCKET/PREFIX. For s3, credentials come from the environment,
    /// as for the AWS tools [default: the directory that `writ serve` would use on this host].
    #[arg(long, value_name = "URL", env = OUTPUT_STORE)]
    store: Option<String>,

    /// Stream to print. With `both`, standard output goes to standard output and standard error to standard error.
    #[arg(long, value_enum, default_value_t = StreamArg::Both)]
    stream: StreamArg,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StreamArg {
    Stdout,
    Stderr,
    Both,
}

impl StreamArg {
    fn kinds(self) -> &'static [StreamKind] {
        match self {
            StreamArg::Stdout => &[StreamKind::Stdout],
            StreamArg::Stderr => &[StreamKind::Stderr],
            StreamArg::Both => &StreamKind::ALL,
        }
    }
}

/// A stream whose size and digest match its record.
struct VerifiedStream {
    kind: StreamKind,
    spool: std::fs::File,
}

/// Result of reading and verifying one stream.
enum StreamCheck {
    Verified(VerifiedStream),
    NoOutput(NoOutput),
}

/// Reason why a stream cannot be printed: exit code and message.
#[derive(Debug)]
struct NoOutput {
    exit: CliExit,
    message: String,
}

impl Output {
    /// Prints the output to `stdout` and `stderr`, and problems to `stderr`.
    ///
    /// # Errors
    /// The flags, the cluster or the store cannot be used, or the execution does not exist.
    pub async fn run(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> anyhow::Result<CliExit> {
        let options = ClientOptions::for_user(self.kubeconfig.as_deref(), self.namespace.as_deref());
        let cluster = Cluster::connect(&options).await.context("the kubeconfig cannot be used")?;
        let namespace = cluster.own_namespace().to_owned();
        let execution = cluster
            .execution(&namespace, &self.name)
            .await
            .map_err(|error| missing(error, "", &namespace, "cmdexec"))?;
        // All streams are verified before anything is printed.
        let mut verified = Vec::new();
        for kind in self.stream.kinds() {
            match self.check(&execution, *kind).await? {
                StreamCheck::Verified(stream) => verified.push(stream),
                StreamCheck::NoOutput(NoOutput { exit, message }) => {
                    writeln!(stderr, "writ: {message}")?;
                    return Ok(exit);
                }
            }
        }
        for VerifiedStream { kind, mut spool } in verified {
            let to_stderr = kind == StreamKind::Stderr && self.stream == StreamArg::Both;
            std::io::copy(&mut spool, if to_stderr { &mut *stderr } else { &mut *stdout })?;
        }
        stdout.flush()?;
        if let Some(output) = execution.status.and_then(|status| status.output).filter(|output| output.incomplete) {
            let reason = output.incomplete_reason.map(|reason| format!(": {reason:?}")).unwrap_or_default();
            let field = if reason.is_empty() { "incomplete" } else { "incompleteReason" };
            writeln!(
                stderr,
                "writ: note: the record may lack output of the command (status.output.{field}{reason}); status.message says why"
            )?;
        }
        Ok(CliExit::Success)
    }

    /// Reads and verifies a stream.
    async fn check(&self, execution: &CommandExecution, kind: StreamKind) -> anyhow::Result<StreamCheck> {
        let (text, record) = match recorded_stream(execution, kind) {
            Ok(recorded) => recorded,
            Err(no_output) => return Ok(StreamCheck::NoOutput(no_output)),
        };
        let mut spool = tempfile::tempfile().context("creating a temporary file failed ($TMPDIR)")?;
        if record.truncated {
            let Some(store) = self.store_of(record, kind)? else {
                return Ok(StreamCheck::NoOutput(not_stored(execution, kind, record)));
            };
            let owner = OutputKey {
                namespace: execution.namespace().unwrap_or_default(),
                uid: execution.uid().unwrap_or_default(),
            };
            match store.fetch(&owner, record, &mut spool).await {
                Ok(()) => {}
                Err(error @ StoreError::Missing) => {
                    let message = format!(
                        "{error}: {} of {} was stored outside of {store}, or was removed; \
                         set --store to the --output-store of the `writ serve` that ran it",
                        kind.as_str(),
                        self.name
                    );
                    return Ok(StreamCheck::NoOutput(NoOutput { exit: CliExit::NotAvailable, message }));
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    let message = format!("{} of {}: {error}; nothing was printed", kind.as_str(), self.name);
                    return Ok(StreamCheck::NoOutput(NoOutput { exit: CliExit::Corrupt, message }));
                }
                Err(error) => return Err(anyhow::Error::new(error).context(format!("reading {store} failed"))),
            }
        } else {
            let bytes = match record.encoding {
                Encoding::Utf8 => text.as_bytes().to_vec(),
                Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
            };
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if digest != record.sha256 {
                let message = format!("the {} in the status does not match its digest", kind.as_str());
                return Ok(StreamCheck::NoOutput(NoOutput { exit: CliExit::Corrupt, message }));
            }
            spool.write_all(&bytes)?;
        }
        spool.seek(SeekFrom::Start(0))?;
        Ok(StreamCheck::Verified(VerifiedStream { kind, spool }))
    }

    /// Returns the store that contains the stream, or `None` if the stream was not stored.
    fn store_of(&self, record: &StreamRecord, kind: StreamKind) -> anyhow::Result<Option<Store>> {
        if !record.stored {
            return Ok(None);
        }
        let which = || {
            let kind = kind.as_str();
            format!("{kind} is in the output store of the `writ serve` that ran it; name that store: --store URL")
        };
        if self.store.as_deref() == Some("none") {
            anyhow::bail!("{}; `none` names no store", which());
        }
        let location = location_or_default(self.store.as_deref()).with_context(which)?;
        Ok(Some(open_to_read(&location).with_context(which)?))
    }
}

/// Returns the text and the record of a stream, or the reason why there is no output.
fn recorded_stream(execution: &CommandExecution, kind: StreamKind) -> Result<(&str, &StreamRecord), NoOutput> {
    let name = execution.name_any();
    let phase = execution.phase();
    let status = execution.status.as_ref();
    if !phase.is_finished() {
        let message = format!(
            "{name} has not finished (phase {}); wait for it: kubectl -n {} wait commandexecution/{name} \
             --for=condition=Finished --timeout=10m",
            phase.as_str(),
            execution.namespace().unwrap_or_default()
        );
        return Err(NoOutput { exit: CliExit::NotReady, message });
    }
    let output = status.and_then(|status| status.output.as_ref());
    let (Some(status), Some(output)) = (status, output) else {
        let why = status.and_then(|status| status.message.as_deref()).unwrap_or("see the status");
        let message = format!("{name} is {} and no output was recorded: {why}", phase.as_str());
        return Err(NoOutput { exit: CliExit::NotAvailable, message });
    };
    let (text, record) = match kind {
        StreamKind::Stdout => (&status.stdout, &output.stdout),
        StreamKind::Stderr => (&status.stderr, &output.stderr),
    };
    match text {
        Some(text) => Ok((text, record)),
        None if record.truncated => Ok(("", record)),
        None => {
            let message = format!("the {} of {name} does not fit into the status", kind.as_str());
            Err(NoOutput { exit: CliExit::NotAvailable, message })
        }
    }
}

fn not_stored(execution: &CommandExecution, kind: StreamKind, record: &StreamRecord) -> NoOutput {
    let (name, namespace) = (execution.name_any(), execution.namespace().unwrap_or_default());
    let why = record.not_stored.as_deref().unwrap_or("the `writ serve` that ran it had no output store");
    let message = format!(
        "the {} of {name} ({} bytes) was not stored: {why}; its head and tail are in the status: \
         kubectl -n {namespace} get cmdexec {name} -o jsonpath='{{.status.{}}}'",
        kind.as_str(),
        record.bytes,
        kind.as_str()
    );
    NoOutput { exit: CliExit::NotAvailable, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CommandExecutionSpec, CommandExecutionStatus, Phase};

    fn with_status(status: serde_json::Value) -> CommandExecution {
        let mut execution = CommandExecution::new("x", CommandExecutionSpec::on_machine("web-1"));
        execution.status = Some(serde_json::from_value::<CommandExecutionStatus>(status).unwrap());
        execution
    }

    #[test]
    fn what_has_no_output_says_why() {
        for phase in Phase::ALL {
            let NoOutput { exit, message } =
                recorded_stream(&with_status(serde_json::json!({"phase": phase})), StreamKind::Stdout).unwrap_err();
            let expected = if phase.is_finished() { CliExit::NotAvailable } else { CliExit::NotReady };
            assert_eq!(exit, expected, "{message}");
            assert!(message.contains(phase.as_str()), "{message}");
        }
    }

    #[test]
    fn what_was_not_stored_says_why_and_where_its_ends_are() {
        let record = serde_json::json!({"bytes": 7, "sha256": "x", "truncated": true, "encoding": "utf-8"});
        let mut record: StreamRecord = serde_json::from_value(record).unwrap();
        let execution = with_status(serde_json::json!({"phase": "Succeeded"}));
        let NoOutput { message, .. } = not_stored(&execution, StreamKind::Stderr, &record);
        assert!(message.contains("no output store") && message.contains(".status.stderr"), "{message}");
        let command =
            format!("kubectl -n {} get cmdexec {}", execution.namespace().unwrap_or_default(), execution.name_any());
        assert!(message.contains(&command), "{message}");
        record.not_stored = Some("because".to_owned());
        assert!(not_stored(&execution, StreamKind::Stderr, &record).message.contains("because"));
    }
}
