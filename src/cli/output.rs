//! `writ output`: what a command wrote, whole, and known to be what was recorded.

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
use crate::cluster::{ClientOptions, Cluster, ClusterError};
use crate::output::{Owner, Store, StoreError, StreamKind};

use super::Ending;
use super::store::{OUTPUT_STORE, location_or_default, open_to_read};

/// Print what the command of an execution wrote.
///
/// Taken from the status where that has all of it, else from the output store of the `writ serve` that ran the command:
/// name the same store here, with rights of your own to read it. Nothing is printed that does not have the size and the
/// SHA-256 which the status records; it is read into a temporary file ($TMPDIR) first, so that there has to be room for it.
///
///   writ output restart-nginx-20261121
///   writ output -n ops backup --stream stdout > backup.log
///   writ output -n ops backup --store s3://audit/writ
///
/// Exit code 0 printed, 2 it could not be looked for (no such execution, flags, cluster or store), 4 it is not there to be
/// printed (nothing was run, or it was not stored), 5 the execution has not finished, 6 what the store has is not what was
/// recorded.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Output {
    /// Name of the CommandExecution.
    #[arg(value_name = "NAME")]
    name: String,

    /// Its namespace [default: the kubeconfig's].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The output store: a folder, file:///PATH, or s3://BUCKET/PREFIX with credentials from the environment, as AWS'
    /// tools read them [default: the folder that `writ serve` would use here].
    #[arg(long, value_name = "URL", env = OUTPUT_STORE)]
    store: Option<String>,

    /// Which stream: with `both` standard output goes to standard output, standard error to standard error.
    #[arg(long, value_enum, default_value_t = Streams::Both)]
    stream: Streams,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Streams {
    Stdout,
    Stderr,
    Both,
}

impl Streams {
    fn kinds(self) -> &'static [StreamKind] {
        match self {
            Streams::Stdout => &[StreamKind::Stdout],
            Streams::Stderr => &[StreamKind::Stderr],
            Streams::Both => &StreamKind::BOTH,
        }
    }
}

/// A stream that has been checked.
struct Checked {
    kind: StreamKind,
    spool: std::fs::File,
}

impl Output {
    /// Prints the output to `stdout` and `stderr`; what is wrong goes to `stderr` too.
    ///
    /// # Errors
    /// Flags, cluster or store that cannot be used, and an execution that does not exist.
    pub async fn run(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> anyhow::Result<Ending> {
        let options = ClientOptions::of_person(self.kubeconfig.as_deref(), self.namespace.as_deref());
        let cluster = Cluster::connect(&options).await.context("the kubeconfig cannot be used")?;
        let namespace = cluster.home().to_owned();
        let execution = cluster.execution(&namespace, &self.name).await.map_err(|error| match error {
            error @ ClusterError::NotFound { .. } => anyhow::Error::new(error)
                .context(format!("there is no such execution (kubectl -n {namespace} get cmdexec lists them)")),
            error => error.into(),
        })?;
        // Checked, all of it, before the first byte is printed.
        let mut checked = Vec::new();
        for kind in self.stream.kinds() {
            match self.check(&execution, *kind).await? {
                Ok(stream) => checked.push(stream),
                Err((ending, message)) => {
                    writeln!(stderr, "writ: {message}")?;
                    return Ok(ending);
                }
            }
        }
        for Checked { kind, mut spool } in checked {
            let to_stderr = kind == StreamKind::Stderr && self.stream == Streams::Both;
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
        Ok(Ending::Good)
    }

    /// Reads a stream and checks it; or says why there is nothing to print, and how to end.
    async fn check(
        &self,
        execution: &CommandExecution,
        kind: StreamKind,
    ) -> anyhow::Result<Result<Checked, (Ending, String)>> {
        let (text, record) = match recorded(execution, kind) {
            Ok(recorded) => recorded,
            Err(end) => return Ok(Err(end)),
        };
        let mut spool = tempfile::tempfile().context("there is no temporary file ($TMPDIR)")?;
        if record.truncated {
            let Some(store) = self.store_of(record, kind)? else {
                return Ok(Err(not_stored(&self.name, kind, record)));
            };
            let owner = Owner {
                namespace: execution.namespace().unwrap_or_default(),
                uid: execution.uid().unwrap_or_default(),
            };
            match store.fetch(&owner, record, &mut spool).await {
                Ok(()) => {}
                Err(error @ StoreError::Missing) => {
                    let message = format!(
                        "{error}: {} of {} was stored elsewhere than in {store}, or was removed; \
                         give --store as the `writ serve` that ran it has --output-store",
                        kind.as_str(),
                        self.name
                    );
                    return Ok(Err((Ending::Lacking, message)));
                }
                Err(error @ StoreError::Damaged { .. }) => {
                    let message = format!("{} of {}: {error}; nothing was printed", kind.as_str(), self.name);
                    return Ok(Err((Ending::Damaged, message)));
                }
                Err(error) => return Err(anyhow::Error::new(error).context(format!("{store} cannot be read"))),
            }
        } else {
            let bytes = match record.encoding {
                Encoding::Utf8 => text.as_bytes().to_vec(),
                Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
            };
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if digest != record.sha256 {
                let message = format!("the {} in the status is not what its own digest is of", kind.as_str());
                return Ok(Err((Ending::Damaged, message)));
            }
            spool.write_all(&bytes)?;
        }
        spool.seek(SeekFrom::Start(0))?;
        Ok(Ok(Checked { kind, spool }))
    }

    /// The store to read from; None where the record says that it has nothing.
    fn store_of(&self, record: &StreamRecord, kind: StreamKind) -> anyhow::Result<Option<Store>> {
        if !record.stored {
            return Ok(None);
        }
        let which = || {
            let kind = kind.as_str();
            format!("its {kind} is in the output store of the `writ serve` that ran it; say which one: --store URL")
        };
        let location = location_or_default(self.store.as_deref()).with_context(which)?;
        Ok(Some(open_to_read(&location).with_context(which)?))
    }
}

/// The text and the record of a stream; or why there is none.
fn recorded(execution: &CommandExecution, kind: StreamKind) -> Result<(&str, &StreamRecord), (Ending, String)> {
    let name = execution.name_any();
    let phase = execution.phase();
    let status = execution.status.as_ref();
    if !phase.is_finished() {
        let message = format!(
            "{name} has not finished (it is {}); wait for it: kubectl wait commandexecution/{name} --for=condition=Finished",
            phase.as_str()
        );
        return Err((Ending::Unfinished, message));
    }
    let output = status.and_then(|status| status.output.as_ref());
    let (Some(status), Some(output)) = (status, output) else {
        let message = format!("{name} is {} and no output was recorded: see status.message", phase.as_str());
        return Err((Ending::Lacking, message));
    };
    let (text, record) = match kind {
        StreamKind::Stdout => (&status.stdout, &output.stdout),
        StreamKind::Stderr => (&status.stderr, &output.stderr),
    };
    match text {
        Some(text) => Ok((text, record)),
        None if record.truncated => Ok(("", record)),
        None => Err((Ending::Lacking, format!("the {} of {name} could not be put into the status", kind.as_str()))),
    }
}

fn not_stored(name: &str, kind: StreamKind, record: &StreamRecord) -> (Ending, String) {
    let why = record.not_stored.as_deref().unwrap_or("the `writ serve` that ran it had no output store");
    let message = format!(
        "the {} of {name} ({} bytes) was not stored: {why}; its head and tail are in the status: \
         kubectl get cmdexec {name} -o jsonpath='{{.status.{}}}'",
        kind.as_str(),
        record.bytes,
        kind.as_str()
    );
    (Ending::Lacking, message)
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
            let (ending, message) =
                recorded(&with_status(serde_json::json!({"phase": phase})), StreamKind::Stdout).unwrap_err();
            let expected = if phase.is_finished() { Ending::Lacking } else { Ending::Unfinished };
            assert_eq!(ending, expected, "{message}");
            assert!(message.contains(phase.as_str()), "{message}");
        }
    }

    #[test]
    fn what_was_not_stored_says_why_and_where_its_ends_are() {
        let record = serde_json::json!({"bytes": 7, "sha256": "x", "truncated": true, "encoding": "utf-8"});
        let mut record: StreamRecord = serde_json::from_value(record).unwrap();
        let (_, message) = not_stored("x", StreamKind::Stderr, &record);
        assert!(message.contains("no output store") && message.contains(".status.stderr"), "{message}");
        record.not_stored = Some("because".to_owned());
        assert!(not_stored("x", StreamKind::Stderr, &record).1.contains("because"));
    }
}
