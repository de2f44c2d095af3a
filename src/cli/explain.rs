//! `writ explain`: what would be decided about a request, and why; nothing is run.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use crate::api::Reason;
use crate::api::command_execution::{Requester, RuleRequest};
use crate::policy::{self, Ask, Denial, Identity, Request, RuleSet, Verdict};

use super::Ending;
use super::input::{Question, pair};
use super::remote::{self, Ground};

/// The longest line of JSON that is read; a request is well under 100 KiB.
const MAXIMUM_LINE_BYTES: u64 = 1024 * 1024;

/// How to name the requester, if a rule depends on that.
const NAME_SOMEBODY: &str =
    "add --as USER, and --as-group GROUP for each group (with --json-lines: requestedBy in the line), to ask as a user";

/// Say what would be decided about a request, and why. Nothing is run.
///
/// Offline, from files:
///   writ explain -f whitelist.yaml --machine-label role=web --as jane --as-group sre -- systemctl restart nginx.service
///   writ explain -f whitelist.yaml --argv -- /usr/bin/systemctl restart -- nginx.service
///   writ explain -f whitelist.yaml --rule restart-service --parameter unit=nginx.service
///   writ explain -f whitelist.yaml --json-lines < requests.jsonl
/// Against a cluster, with your own rights:
///   writ explain -n ops --machine web-1 -- systemctl restart nginx.service
///   writ explain -n ops --execution restart-nginx-20261121
///
/// Exit code 0 allowed, 3 denied, 2 bad input. With --json-lines: 2 where a line was none, else 3 where one was denied.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// Files with the Whitelists of the namespace, YAML or JSON; `-` is standard input. Without it the cluster's are read.
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: Vec<PathBuf>,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Namespace of Whitelists and Machine [default: the kubeconfig's; with -f what the file says, else `default`].
    #[arg(long, short, value_name = "NAME")]
    pub(super) namespace: Option<String>,

    /// The Machine that it would run on.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub(super) machine: Option<String>,

    /// A CommandExecution of the cluster, to see how it would be decided now.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "machine", "words", "rule", "json_lines"])]
    pub(super) execution: Option<String>,

    /// A label of the Machine.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "machine")]
    pub(super) machine_label: Vec<(String, String)>,

    /// Who asks [default: against a cluster you; with -f nobody, so that rules with subjects do not hold].
    #[arg(long = "as", value_name = "USER")]
    pub(super) asked_by: Option<String>,

    /// A group of who asks.
    #[arg(long = "as-group", value_name = "GROUP", requires = "asked_by")]
    as_group: Vec<String>,

    /// Only rules with this action type.
    #[arg(long, value_name = "TYPE")]
    action_type: Option<String>,

    /// An environment variable to set.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,

    /// How long it may take.
    #[arg(long, value_name = "SECONDS")]
    timeout_seconds: Option<u32>,

    /// Take the words for an argument vector (spec.argv), not for text (spec.command).
    #[arg(long, conflicts_with_all = ["rule", "json_lines"])]
    argv: bool,

    /// Ask for a rule by name (spec.rule).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["words", "json_lines"])]
    rule: Option<String>,

    /// A value for a parameter of the rule.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "rule")]
    parameter: Vec<(String, String)>,

    /// The Whitelist of the rule.
    #[arg(long, value_name = "NAME", requires = "rule")]
    whitelist: Option<String>,

    /// Read requests from standard input, a JSON object a line, and answer with one a line. Fields: command, argv or
    /// rule {name, parameters, whitelist}; actionType, environment, timeoutSeconds, machineLabels, requestedBy
    /// {username, groups}. What a line leaves out is as the flags say.
    #[arg(long, conflicts_with = "words")]
    json_lines: bool,

    /// The request: text as spec.command has it (several words are joined with one space), or words with --argv.
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// What is answered.
enum Answer {
    Allowed(Value),
    Denied { reason: String, message: String, nearest: Option<Value>, out_of_force: Option<String> },
    Malformed(String),
}

impl Explain {
    /// Answers, and writes the answer.
    ///
    /// # Errors
    /// Files, cluster or flags that cannot be used.
    pub async fn run(&self, input: impl BufRead, output: &mut dyn Write) -> anyhow::Result<Ending> {
        let uses_stdin = self.file.iter().any(|file| file.as_os_str() == "-");
        if uses_stdin && self.json_lines {
            bail!("standard input can be the Whitelist (-f -) or the requests (--json-lines), not both");
        }
        let ground = if self.file.is_empty() { remote::read(self).await? } else { remote::from_files(self)? };
        if self.json_lines {
            return self.answer_lines(&ground, input, output);
        }
        let question = match &ground.question {
            Some(question) => question.clone(),
            None => self.question()?,
        };
        if !ground.is_stamped {
            writeln!(
                output,
                "note: it is not established who asks (the condition RequesterKnown of a Whitelist): everybody counts as nobody\n"
            )?;
        }
        let answer = self.answer(&ground, &question);
        answer.write(output)?;
        Ok(answer.ending())
    }

    /// What the flags ask.
    fn question(&self) -> anyhow::Result<Question> {
        let mut question = self.defaults();
        match (&self.rule, self.words.as_slice()) {
            (Some(name), _) => {
                let parameters = self.parameter.iter().cloned().collect();
                question.rule = Some(RuleRequest { name: name.clone(), parameters, whitelist: self.whitelist.clone() });
            }
            (None, []) => bail!("say what is asked for: -- WORD..., --rule NAME, --json-lines or --execution NAME"),
            (None, words) if self.argv => question.argv = Some(words.to_vec()),
            (None, words) => question.command = Some(words.join(" ")),
        }
        Ok(question)
    }

    /// What the flags say beside what is asked for.
    fn defaults(&self) -> Question {
        Question {
            action_type: self.action_type.clone(),
            environment: self.environment.iter().cloned().collect(),
            timeout_seconds: self.timeout_seconds,
            ..Question::default()
        }
    }

    fn answer_lines(&self, ground: &Ground, mut input: impl BufRead, output: &mut dyn Write) -> anyhow::Result<Ending> {
        let mut ending = Ending::Good;
        loop {
            let mut line = Vec::new();
            let read = std::io::Read::take(&mut input, MAXIMUM_LINE_BYTES + 1).read_until(b'\n', &mut line);
            if read.context("standard input cannot be read")? == 0 {
                return Ok(ending);
            }
            let answer = if line.len() as u64 > MAXIMUM_LINE_BYTES {
                if line.last() != Some(&b'\n') {
                    skip_line(&mut input).context("standard input cannot be read")?;
                }
                Answer::Malformed(format!("the line is no request: it has more than {MAXIMUM_LINE_BYTES} bytes"))
            } else if line.trim_ascii().is_empty() {
                continue;
            } else {
                match serde_json::from_slice::<Question>(&line) {
                    Ok(question) => self.answer(ground, &self.with_defaults(question)),
                    Err(error) => Answer::Malformed(format!("the line is no request: {error}")),
                }
            };
            ending = ending.max(answer.ending());
            writeln!(output, "{}", answer.json())?;
        }
    }

    fn with_defaults(&self, question: Question) -> Question {
        let defaults = self.defaults();
        let mut environment = defaults.environment;
        environment.extend(question.environment);
        Question {
            action_type: question.action_type.or(defaults.action_type),
            timeout_seconds: question.timeout_seconds.or(defaults.timeout_seconds),
            environment,
            ..question
        }
    }

    fn answer(&self, ground: &Ground, question: &Question) -> Answer {
        let request = match Request::parse(&question.spec()) {
            Ok(request) => request,
            Err(error) => return Answer::Malformed(error.to_string()),
        };
        let by_flags = self.asked_by.as_ref().map(|username| Requester {
            username: username.clone(),
            uid: String::new(),
            groups: self.as_group.clone(),
        });
        // A line says by itself who asks; the flags are for those that do not.
        let requester = question.requested_by.as_ref().or(by_flags.as_ref()).or(ground.requester.as_ref());
        let identity = requester.filter(|_| ground.is_stamped).map_or(Identity::Unknown, Identity::Known);
        let labels = question.machine_labels.as_ref().unwrap_or(&ground.labels);
        match policy::decide(&ground.rules, &request, labels, identity) {
            Verdict::Allow(decision) => {
                // The time is the one thing that is not decided yet.
                let record = decision.record(MicroTime(Timestamp::UNIX_EPOCH));
                let mut record = serde_json::to_value(record).unwrap_or_default();
                record.as_object_mut().map(|fields| fields.remove("decidedTime"));
                Answer::Allowed(record)
            }
            Verdict::Deny(denial) if self.depends_on_nobody(ground, question, &request, &denial) => {
                let message = match &denial.nearest {
                    Some(nearest) if denial.reason == Reason::NotPermitted => format!(
                        "the rule {}/{} lists it, but only for its subjects, and nobody was named who asks; {NAME_SOMEBODY}",
                        nearest.whitelist, nearest.rule
                    ),
                    _ => format!("{}; but nobody was named who asks; {NAME_SOMEBODY}", denial.message),
                };
                Answer::Denied { reason: format!("{:?}", denial.reason), message, nearest: None, out_of_force: None }
            }
            Verdict::Deny(denial) => Answer::Denied {
                out_of_force: out_of_force(&ground.rules, &request),
                reason: format!("{:?}", denial.reason),
                message: denial.message,
                nearest: denial
                    .nearest
                    .map(|nearest| json!({"whitelist": nearest.whitelist, "rule": nearest.rule, "why": nearest.why})),
            },
        }
    }
}

/// The rule out of force that would have matched by its text, and why it is out of force.
fn out_of_force(rules: &RuleSet, request: &Request) -> Option<String> {
    let (whitelist, broken) = policy::matching_out_of_force(rules, request)?;
    let by = if matches!(request.ask(), Ask::Rule(_)) { "name" } else { "text" };
    let name = format!("{whitelist}/{}", broken.rule);
    Some(format!("the rule {name} would have matched by its {by}, but is out of force: {}", broken.problem))
}

/// Reads on to the end of a line, in as much memory as the reader itself has.
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
    /// Whether a denial from files comes of nobody being named who asks: with a name that is in no list it is another one. (The
    /// controller's reason for that case, a missing admission policy, is not the cause then.)
    fn depends_on_nobody(&self, ground: &Ground, question: &Question, request: &Request, denial: &Denial) -> bool {
        let is_named = question.requested_by.is_some() || self.asked_by.is_some() || ground.requester.is_some();
        if is_named || self.file.is_empty() {
            return false;
        }
        let nobody = Requester { username: String::new(), uid: String::new(), groups: Vec::new() };
        let labels = question.machine_labels.as_ref().unwrap_or(&ground.labels);
        match policy::decide(&ground.rules, request, labels, Identity::Known(&nobody)) {
            Verdict::Deny(other) => other.message != denial.message,
            Verdict::Allow(_) => true,
        }
    }
}

impl Answer {
    fn ending(&self) -> Ending {
        match self {
            Answer::Allowed(_) => Ending::Good,
            Answer::Denied { .. } => Ending::Denied,
            Answer::Malformed(_) => Ending::BadInput,
        }
    }

    /// On one line, for programs.
    fn json(&self) -> Value {
        match self {
            Answer::Allowed(decision) => json!({"allowed": true, "decision": decision}),
            Answer::Denied { reason, message, nearest, out_of_force } => {
                let mut answer = json!({"allowed": false, "reason": reason, "message": message, "nearest": nearest});
                if let (Some(why), Some(fields)) = (out_of_force, answer.as_object_mut()) {
                    fields.insert("outOfForce".to_owned(), json!(why));
                }
                answer
            }
            Answer::Malformed(message) => json!({"allowed": false, "reason": "Malformed", "message": message}),
        }
    }

    /// For people.
    fn write(&self, output: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Answer::Allowed(decision) => {
                let text = |path: &str| decision.pointer(path).and_then(Value::as_str).unwrap_or_default();
                writeln!(output, "allowed by the rule {} of the Whitelist {}", text("/rule"), text("/whitelist/name"))?;
                writeln!(output, "\ndecision:")?;
                let yaml = serde_saphyr::to_string(decision)?;
                for line in yaml.lines() {
                    writeln!(output, "  {line}")?;
                }
            }
            Answer::Denied { reason, message, nearest, out_of_force } => {
                writeln!(output, "denied: {reason}: {message}")?;
                if let Some(why) = out_of_force {
                    writeln!(output, "\nout of force: {why}")?;
                }
                if let Some(nearest) = nearest {
                    let text = |field: &str| nearest.get(field).and_then(Value::as_str).unwrap_or_default();
                    writeln!(output, "\nnearest: {}/{}: {}", text("whitelist"), text("rule"), text("why"))?;
                }
            }
            Answer::Malformed(message) => writeln!(output, "malformed: {message}")?,
        }
        Ok(())
    }
}
