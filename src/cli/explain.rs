//! `writ explain`: prints the decision about a request, and its reason. Runs nothing.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::whitelist::Effect;
use crate::api::{Reason, SessionRequest};
use crate::policy::{self, CommandForm, Denial, Identity, Request, RuleSet, Verdict};

use super::CliExit;
use super::input::{RequestInput, parse_key_value};
use super::object_name::{parse_execution, parse_machine};
use super::remote::{self, PolicyScope, PolicySource, ReportedTrust};

/// Maximum length of a JSON line, in bytes. A usual request has much less than 100 KiB.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// Advice at the end of messages about a missing requester: the flags that name the requester.
const NAME_REQUESTER: &str =
    "add --as USER, and --as-group GROUP for each group (with --json-lines: requestedBy in the line), to name one";

/// Print the decision about a request, and the reason for the decision. Nothing is run.
///
/// Offline, from files:
///   writ explain -f rules.yaml --machine-label role=web --as jane --as-group sre -- systemctl restart nginx.service
///   writ explain -f rules.yaml --argv -- /usr/bin/systemctl restart -- nginx.service
///   writ explain -f rules.yaml --rule restart-service --parameter unit=nginx.service
///   writ explain -f rules.yaml --json-lines < requests.jsonl
/// In a cluster, with your own rights:
///   writ explain -n ops --machine web-1 -- systemctl restart nginx.service
///   writ explain -n ops --execution restart-nginx-20261121
///
/// Exit codes: 0 allowed, 3 denied, 2 bad input. Exit codes with --json-lines: 2 if any line is not a request, else 3
/// if any request is denied, else 0.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// Files with the Whitelists of the namespace, YAML or JSON; `-` is standard input [default: the Whitelists of the
    /// cluster].
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Whitelists and the Machine [default: the namespace of the kubeconfig; with -f the namespace in
    /// the file, or `default`].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Name of the Machine that the command would run on.
    #[arg(long, value_name = "NAME", value_parser = parse_machine, conflicts_with = "file")]
    machine: Option<String>,

    /// Name of a CommandExecution in the cluster. Prints the decision that Writ would make about this CommandExecution
    /// now.
    #[arg(long, value_name = "NAME", value_parser = parse_execution,
        conflicts_with_all = ["file", "machine", "words", "rule", "json_lines"])]
    execution: Option<String>,

    /// Label of the Machine; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_key_value, conflicts_with = "machine")]
    machine_label: Vec<(String, String)>,

    /// Name of the requester [default: your own user in the cluster; with -f no requester, so that rules with subjects
    /// do not match].
    #[arg(long = "as", value_name = "USER")]
    as_user: Option<String>,

    /// Group of the requester; repeatable.
    #[arg(long = "as-group", value_name = "GROUP", requires = "as_user")]
    as_group: Vec<String>,

    /// Action type that the matching rule must have.
    #[arg(long, value_name = "TYPE")]
    action_type: Option<String>,

    /// Environment variable to set; repeatable.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_key_value)]
    environment: Vec<(String, String)>,

    /// Timeout of the command, in seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout_seconds: Option<u32>,

    /// Request an interactive session, as the exec endpoint of the gateway does.
    #[arg(long)]
    session: bool,

    /// Use the words as an argument vector (spec.argv), not as a text (spec.command).
    #[arg(long, conflicts_with_all = ["rule", "json_lines"])]
    argv: bool,

    /// Request a rule by name (spec.rule).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["words", "json_lines"])]
    rule: Option<String>,

    /// Value for a parameter of the rule; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_key_value, requires = "rule")]
    parameter: Vec<(String, String)>,

    /// Whitelist that contains the rule.
    #[arg(long, value_name = "NAME", requires = "rule")]
    whitelist: Option<String>,

    /// Read requests from standard input, one JSON object per line, and answer each with one line. Fields: command,
    /// argv or rule {name, parameters, whitelist}; actionType, environment, timeoutSeconds, session {tty, columns,
    /// rows}, machineLabels, requestedBy {username, groups}. If a field is absent, the value of the flag is used.
    #[arg(long, conflicts_with = "words")]
    json_lines: bool,

    /// Words of the request. Without --argv, the words are joined with one space each to a text (spec.command). With
    /// --argv, the words are the argument vector (spec.argv).
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// Answer to a request.
enum Explanation {
    Allowed(Value),
    Denied {
        reason: String,
        message: String,
        nearest: Option<Value>,
        out_of_force: Option<String>,
    },
    Malformed(String),
    /// The controller would make no decision now.
    Undecided(String),
}

impl Explain {
    /// Decides about the request, or about each line of the input. Prints the decisions.
    ///
    /// # Errors
    /// The files, the cluster or the flags cannot be used.
    pub async fn run(&self, input: impl BufRead, output: &mut dyn Write) -> anyhow::Result<CliExit> {
        let uses_stdin = self.file.iter().any(|file| file.as_os_str() == "-");
        if uses_stdin && self.json_lines {
            bail!("standard input must be either the Whitelist (-f -) or the requests (--json-lines)");
        }
        let scope = self.scope();
        let source = if self.file.is_empty() { remote::read(&scope).await? } else { remote::from_files(&scope)? };
        if self.json_lines {
            return self.explain_lines(&source, input, output);
        }
        let input = match &source.input {
            Some(input) => input.clone(),
            None => self.request_input()?,
        };
        if source.requester_trust == ReportedTrust::Untrusted {
            writeln!(
                output,
                "note: the requester is not trusted (condition RequesterKnown of a Whitelist): rules with subjects match nobody\n"
            )?;
        }
        let answer = self.explain(&source, &input);
        if let Some(user) = self.as_user.as_ref().filter(|_| self.as_group.is_empty())
            && answer.can_change_by_group(&source.rules)
        {
            writeln!(
                output,
                "note: {user} counts here as a member of no group: add --as-group for each group of {user}, or the answer can be \
                 wrong\n"
            )?;
        }
        answer.write(output)?;
        Ok(answer.exit())
    }

    /// Returns the flags that select the policy, the Machine and the requester.
    fn scope(&self) -> PolicyScope<'_> {
        PolicyScope {
            files: &self.file,
            kubeconfig: self.kubeconfig.as_deref(),
            namespace: self.namespace.as_deref(),
            machine: self.machine.as_deref(),
            machine_labels: &self.machine_label,
            execution: self.execution.as_deref(),
            is_requester_named: self.as_user.is_some(),
        }
    }

    /// Returns the request that the flags describe.
    fn request_input(&self) -> anyhow::Result<RequestInput> {
        let mut input = self.defaults();
        match (&self.rule, self.words.as_slice()) {
            (Some(name), _) => {
                let parameters = self.parameter.iter().cloned().collect();
                input.rule = Some(RuleRequest { name: name.clone(), parameters, whitelist: self.whitelist.clone() });
            }
            (None, []) => bail!("request missing: give -- WORD..., --rule NAME, --json-lines or --execution NAME"),
            (None, words) if self.argv => input.argv = Some(words.to_vec()),
            (None, words) => input.command = Some(words.join(" ")),
        }
        Ok(input)
    }

    /// Returns the request that the flags describe, without its command, argument vector or rule.
    fn defaults(&self) -> RequestInput {
        RequestInput {
            action_type: self.action_type.clone(),
            environment: self.environment.iter().cloned().collect(),
            timeout_seconds: self.timeout_seconds,
            session: self.session.then(SessionRequest::default),
            ..RequestInput::default()
        }
    }

    fn explain_lines(
        &self,
        source: &PolicySource,
        mut input: impl BufRead,
        output: &mut dyn Write,
    ) -> anyhow::Result<CliExit> {
        let mut exit = CliExit::Success;
        loop {
            let mut line = Vec::new();
            let read = std::io::Read::take(&mut input, MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
            if read.context("reading standard input failed")? == 0 {
                return Ok(exit);
            }
            let answer = if line.len() as u64 > MAX_LINE_BYTES {
                if line.last() != Some(&b'\n') {
                    skip_line(&mut input).context("reading standard input failed")?;
                }
                Explanation::Malformed(format!("the line is no request: it has more than {MAX_LINE_BYTES} bytes"))
            } else if line.trim_ascii().is_empty() {
                continue;
            } else {
                match serde_json::from_slice::<RequestInput>(&line) {
                    Ok(request) => self.explain(source, &self.with_defaults(request)),
                    Err(error) => Explanation::Malformed(format!("the line is no request: {error}")),
                }
            };
            exit = exit.max(answer.exit());
            writeln!(output, "{}", answer.json())?;
        }
    }

    fn with_defaults(&self, input: RequestInput) -> RequestInput {
        let defaults = self.defaults();
        let mut environment = defaults.environment;
        environment.extend(input.environment);
        RequestInput {
            action_type: input.action_type.or(defaults.action_type),
            timeout_seconds: input.timeout_seconds.or(defaults.timeout_seconds),
            session: input.session.or(defaults.session),
            environment,
            ..input
        }
    }

    fn explain(&self, source: &PolicySource, input: &RequestInput) -> Explanation {
        let request = match Request::parse(&input.spec()) {
            Ok(request) => request,
            Err(error) => return Explanation::Malformed(error.to_string()),
        };
        let by_flags = self.as_user.as_ref().map(|username| Requester {
            username: username.clone(),
            uid: String::new(),
            groups: self.as_group.clone(),
        });
        // A requester in the JSON line has priority over the requester of the flags.
        let requester = input.requested_by.as_ref().or(by_flags.as_ref()).or(source.requester.as_ref());
        let identity = match source.requester_trust {
            ReportedTrust::Trusted => requester.map_or(Identity::Unknown, Identity::Known),
            ReportedTrust::Untrusted => Identity::Unknown,
            ReportedTrust::Undecided => Identity::Undecided,
        };
        let labels = input.machine_labels.as_ref().unwrap_or(&source.labels);
        match policy::decide(&source.rules, &request, labels, identity) {
            Verdict::Allow(decision) => {
                // The decision time is removed, because `writ explain` only predicts a decision.
                let record = decision.record(MicroTime(Timestamp::UNIX_EPOCH));
                let mut record = serde_json::to_value(record).unwrap_or_default();
                record.as_object_mut().map(|fields| fields.remove("decidedTime"));
                Explanation::Allowed(record)
            }
            Verdict::Deny(denial) if self.lacks_requester(source, input, &request, &denial) => {
                let message = match &denial.nearest {
                    Some(nearest) if denial.reason == Reason::NotPermitted => format!(
                        "the rule {}/{} matches, but only for its subjects, and no requester was named; {NAME_REQUESTER}",
                        nearest.whitelist, nearest.rule
                    ),
                    _ => format!("{}; no requester was named; {NAME_REQUESTER}", denial.message),
                };
                Explanation::Denied {
                    reason: format!("{:?}", denial.reason),
                    message,
                    nearest: None,
                    out_of_force: None,
                }
            }
            Verdict::Deny(denial) if denial.awaits_identity(identity) => Explanation::Undecided(
                "the decision depends on subjects, and the controller could not check yet if the API server records \
                 requesters (condition RequesterKnown of a Whitelist); an execution stays Pending until then; try again \
                 in a few seconds"
                    .to_owned(),
            ),
            Verdict::Deny(denial) => Explanation::Denied {
                out_of_force: out_of_force(&source.rules, &request),
                reason: format!("{:?}", denial.reason),
                message: denial.message,
                nearest: denial
                    .nearest
                    .map(|nearest| json!({"whitelist": nearest.whitelist, "rule": nearest.rule, "why": nearest.why})),
            },
        }
    }
}

/// Returns a message about an invalid Allow rule that would have matched the request, or `None`. Writ ignores invalid
/// Allow rules.
fn out_of_force(rules: &RuleSet, request: &Request) -> Option<String> {
    let (whitelist, broken) = policy::matching_out_of_force(rules, request)?;
    let by = if matches!(request.form(), CommandForm::Rule(_)) { "name" } else { "text" };
    let name = format!("{whitelist}/{}", broken.rule);
    Some(format!("the rule {name} would have matched by its {by}, but is out of force: {}", broken.problem))
}

/// Skips the rest of a line. Uses no memory except the reader's buffer.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (length, end) = (buffer.len(), buffer.iter().position(|byte| *byte == b'\n'));
        input.consume(end.map_or(length, |end| end + 1));
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}

impl Explain {
    /// Returns true if the policy is from files, and the request is denied because no requester was named. The message
    /// of `denial` then names a wrong cause: a missing admission policy. To detect this case, the function decides
    /// again with a requester whom no rule lists. It returns true if the request is then allowed, or if the message
    /// differs from the message of `denial`.
    fn lacks_requester(&self, source: &PolicySource, input: &RequestInput, request: &Request, denial: &Denial) -> bool {
        let is_named = input.requested_by.is_some() || self.as_user.is_some() || source.requester.is_some();
        if is_named || self.file.is_empty() {
            return false;
        }
        let nobody = Requester { username: String::new(), uid: String::new(), groups: Vec::new() };
        let labels = input.machine_labels.as_ref().unwrap_or(&source.labels);
        match policy::decide(&source.rules, request, labels, Identity::Known(&nobody)) {
            Verdict::Deny(other) => other.message != denial.message,
            Verdict::Allow(_) => true,
        }
    }
}

impl Explanation {
    /// Returns true if further groups of the requester could change the answer.
    fn can_change_by_group(&self, rules: &RuleSet) -> bool {
        match self {
            Explanation::Allowed(_) => rules.names_group(Effect::Deny),
            Explanation::Denied { reason, .. } => {
                *reason == format!("{:?}", Reason::NotPermitted) && rules.names_group(Effect::Allow)
            }
            Explanation::Malformed(_) | Explanation::Undecided(_) => false,
        }
    }

    fn exit(&self) -> CliExit {
        match self {
            Explanation::Allowed(_) => CliExit::Success,
            Explanation::Denied { .. } => CliExit::Denied,
            Explanation::Malformed(_) | Explanation::Undecided(_) => CliExit::Usage,
        }
    }

    /// Returns the answer as JSON, for programs.
    fn json(&self) -> Value {
        match self {
            Explanation::Allowed(decision) => json!({"allowed": true, "decision": decision}),
            Explanation::Denied { reason, message, nearest, out_of_force } => {
                let mut answer = json!({"allowed": false, "reason": reason, "message": message, "nearest": nearest});
                if let (Some(why), Some(fields)) = (out_of_force, answer.as_object_mut()) {
                    fields.insert("outOfForce".to_owned(), json!(why));
                }
                answer
            }
            Explanation::Malformed(message) => json!({"allowed": false, "reason": "Malformed", "message": message}),
            Explanation::Undecided(message) => json!({"allowed": false, "reason": "Undecided", "message": message}),
        }
    }

    /// Writes the answer as text, for users.
    fn write(&self, output: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Explanation::Allowed(decision) => {
                let text = |path: &str| decision.pointer(path).and_then(Value::as_str).unwrap_or_default();
                writeln!(output, "allowed by the rule {} of the Whitelist {}", text("/rule"), text("/whitelist/name"))?;
                writeln!(output, "\ndecision:")?;
                let yaml = serde_saphyr::to_string(decision)?;
                for line in yaml.lines() {
                    writeln!(output, "  {line}")?;
                }
            }
            Explanation::Denied { reason, message, nearest, out_of_force } => {
                writeln!(output, "denied: {reason}: {message}")?;
                if let Some(why) = out_of_force {
                    writeln!(output, "\nout of force: {why}")?;
                }
                if let Some(nearest) = nearest {
                    let text = |field: &str| nearest.get(field).and_then(Value::as_str).unwrap_or_default();
                    writeln!(output, "\nnearest: {}/{}: {}", text("whitelist"), text("rule"), text("why"))?;
                }
            }
            Explanation::Malformed(message) => writeln!(output, "malformed: {message}")?,
            Explanation::Undecided(message) => writeln!(output, "no decision yet: {message}")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::api::Whitelist;
    use crate::policy::compile;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        explain: Explain,
    }

    #[test]
    fn a_decision_that_depends_on_subjects_is_open_while_the_requester_check_has_no_result() {
        let rules = json!([
            {"name": "mine", "match": "mine", "run": ["/bin/true"], "subjects": [{"kind": "User", "name": "jane"}]},
            {"name": "all", "match": "all", "run": ["/bin/true"]},
            {"name": "no", "match": "no", "run": ["/bin/true"]},
            {"name": "deny", "match": "no", "effect": "Deny", "subjects": [{"kind": "User", "name": "joe"}]},
        ]);
        let whitelist: Whitelist = serde_json::from_value(json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist",
            "metadata": {"name": "web", "namespace": "ops"}, "spec": {"rules": rules},
        }))
        .unwrap();
        let exit = |text: &str, requester_trust: ReportedTrust| {
            let arguments = ["explain", "--machine", "web-1", "--as", "jane", "--", text];
            let explain = CommandLine::parse_from(arguments).explain;
            let rules = RuleSet::new(vec![compile(&whitelist).into()]);
            let labels = std::collections::BTreeMap::new();
            let source = PolicySource { rules, labels, requester: None, input: None, requester_trust };
            let answer = explain.explain(&source, &explain.request_input().unwrap());
            let mut text = Vec::new();
            answer.write(&mut text).unwrap();
            (answer.exit(), String::from_utf8(text).unwrap())
        };
        for (text, trusted, undecided, untrusted) in [
            ("mine", CliExit::Success, CliExit::Usage, CliExit::Denied),
            ("all", CliExit::Success, CliExit::Success, CliExit::Success),
            // If the requester is not verified, the Deny rule for `joe` applies to everybody.
            ("no", CliExit::Success, CliExit::Usage, CliExit::Denied),
            ("other", CliExit::Denied, CliExit::Denied, CliExit::Denied),
        ] {
            assert_eq!(exit(text, ReportedTrust::Trusted).0, trusted, "{text}");
            assert_eq!(exit(text, ReportedTrust::Untrusted).0, untrusted, "{text}");
            let (code, printed) = exit(text, ReportedTrust::Undecided);
            assert_eq!(code, undecided, "{text}: {printed}");
            assert_eq!(printed.starts_with("no decision yet: "), code == CliExit::Usage, "{printed}");
        }
    }
}
