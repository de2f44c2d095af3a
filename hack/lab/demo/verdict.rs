//! The expected results of the executions in `examples/`, and the comparison with the actual results.

use serde_json::Value;

use crate::lab::asked::launched;

/// One execution of `examples/`, and its expected result.
#[derive(Clone, Copy)]
pub struct Expected {
    /// Name of the execution and of its file.
    pub name: &'static str,
    phase: &'static str,
    reason: &'static str,
    /// Expected results of the command. `None` if the command must not start.
    ran: Option<Ran>,
}

/// Results of a command.
#[derive(Clone, Copy)]
struct Ran {
    exit_code: i64,
    stdout: &'static str,
    stderr: &'static str,
    /// Words of the command that the login shell must start.
    words: &'static [&'static str],
}

/// The four executions.
pub const EXPECTED: [Expected; 4] = [
    Expected {
        name: "say-hello",
        phase: "Succeeded",
        reason: "Completed",
        ran: Some(Ran {
            exit_code: 0,
            stdout: "Hello from a command that a rule allows.\n",
            stderr: "",
            words: &["/bin/echo", "Hello from a command that a rule allows."],
        }),
    },
    Expected {
        name: "exit-three",
        phase: "Failed",
        reason: "NonZeroExitCode",
        ran: Some(Ran {
            exit_code: 3,
            stdout: "",
            stderr: "no space left on the disk\n",
            words: &["/bin/sh", "-c", "echo no space left on the disk >&2; exit 3"],
        }),
    },
    Expected { name: "not-listed", phase: "Rejected", reason: "NoMatchingRule", ran: None },
    Expected { name: "wrong-host-key", phase: "LaunchFailed", reason: "HostKeyMismatch", ran: None },
];

/// Phases of an execution that has not finished.
const UNFINISHED: [&str; 5] = ["", "Pending", "Queued", "Dispatched", "Running"];

/// Returns true if all four executions have finished, with any result.
pub fn all_finished(list: &Value) -> bool {
    EXPECTED.iter().all(|expected| {
        let phase = find(list, expected.name).and_then(|execution| execution.pointer("/status/phase"));
        !UNFINISHED.contains(&phase.and_then(Value::as_str).unwrap_or_default())
    })
}

/// Compares each execution with its expected result, and prints the outcome. Returns one text for each difference.
///
/// `list` is the output of `kubectl get cmdexec -o json`. `ledger` contains the requests to the SSH server.
pub fn judge(list: &Value, ledger: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    println!();
    for expected in EXPECTED {
        let differences = match find(list, expected.name) {
            Some(execution) => expected.differences(execution),
            None => vec!["is not there".to_owned()],
        };
        report(&differences, expected.name, &expected.described());
        all.extend(differences.into_iter().map(|difference| format!("{}: {difference}", expected.name)));
    }
    let words = |ran: Ran| ran.words.iter().map(|word| (*word).to_owned()).collect();
    let mut must_be: Vec<Vec<String>> = EXPECTED.iter().filter_map(|expected| expected.ran).map(words).collect();
    must_be.sort_unstable();
    let differences = match launched(ledger) {
        Err(other) => vec![format!("it was asked for something that is not the launcher: {other:.200}")],
        Ok(mut seen) => {
            seen.sort_unstable();
            (seen != must_be).then(|| format!("it was to launch {seen:?}, must be {must_be:?}")).into_iter().collect()
        }
    };
    report(&differences, "login shell", "asked to launch the two allowed commands and nothing else");
    all.extend(differences.into_iter().map(|difference| format!("login shell: {difference}")));
    all
}

fn report(differences: &[String], name: &str, must_be: &str) {
    let mark = if differences.is_empty() { "as it must be" } else { "NOT AS IT MUST BE" };
    println!("{mark}: {name:<15} {must_be}");
}

fn find<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let items = list.get("items")?.as_array()?;
    items.iter().find(|item| item.pointer("/metadata/name").and_then(Value::as_str) == Some(name))
}

impl Expected {
    fn described(&self) -> String {
        match self.ran {
            Some(Ran { exit_code, stdout, stderr, .. }) => {
                let (stream, text) = if stdout.is_empty() { ("stderr", stderr) } else { ("stdout", stdout) };
                format!("{}, exit code {exit_code}, {stream} {:?}", self.phase, text.trim_end())
            }
            None => format!("{}, reason {}, never started", self.phase, self.reason),
        }
    }

    fn differences(&self, execution: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |field: &str, must_be: Value| {
            let is = execution.pointer(&format!("/status/{field}")).cloned().unwrap_or_default();
            if is != must_be {
                differences.push(format!("status.{field} is {is}, must be {must_be}"));
            }
        };
        compare("phase", self.phase.into());
        compare("reason", self.reason.into());
        match self.ran {
            Some(ran) => {
                compare("exitCode", ran.exit_code.into());
                compare("stdout", ran.stdout.into());
                compare("stderr", ran.stderr.into());
            }
            // The command must not start. Writ claims an execution only immediately before it sends the command.
            // Therefore there must be no claim either.
            None => ["exitCode", "startTime", "claim"].into_iter().for_each(|field| compare(field, Value::Null)),
        }
        if let Some(message) = execution.pointer("/status/message").filter(|_| !differences.is_empty()) {
            differences.push(format!("status.message says {message}"));
        }
        differences
    }
}
