//! Starts a command on a machine at most once, by an SSH exec request, with nothing installed there.
//!
//! The promise kept here: **however often, over however many connections, and from however many places an execution is
//! launched, its command starts once or not at all, and its output and its end can be read again until they are
//! acknowledged.** The machine keeps that promise itself, by a program of POSIX sh that comes with each request
//! (`src/launcher/*.sh`): a file that is created exclusively is the fence, and the record.
//!
//! Pure: makes the text of requests and reads replies. `docs/design/20261121-launcher.md` says what runs on the machine.

mod answer;
mod reply;
mod script;

use crate::api::execution_status::DecisionRecord;
use crate::policy::{command_words, quote};

pub use answer::{Answer, Described, Ended, Lost, MachineFacts, NotStarted, Offsets, Outcome, Refusal, Running};
pub use reply::{Broken, Item, Reply};

/// What an exec request may hold, in bytes: dropbear closes the channel without a word over 9,000. (OpenSSH takes 131,071.)
pub const LONGEST_LINE: usize = 8_500;
/// The variable by which the processes of an execution are found.
const MARK: &str = "WRIT_EXECUTION";
/// What is executed where a word holds a byte 0, which no word can.
const UNSPEAKABLE: [&str; 3] =
    ["/bin/sh", "-c", r#"echo "writ: a word holds a byte 0; nothing was run" >&2; exit 126"#];

/// What makes a reply recognizable: 32 lower-case hexadecimal digits, random, another for each request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nonce(String);

impl Nonce {
    /// None where the text is not of this form.
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (text.len() == 32 && digits).then(|| Self(text.to_owned()))
    }
}

/// The UID of an execution, as the name of files on the machine.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(String);

impl Uid {
    /// None where the text is not 1 to 64 letters, digits and `-`, the first of them no `-`.
    pub fn new(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (!text.is_empty() && text.len() <= 64 && plain && !text.starts_with('-')).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is to be sent in one session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecRequest {
    /// The text of the exec request, at most [`LONGEST_LINE`] bytes unless the directory's path is absurd.
    pub line: String,
    /// What is to be sent on standard input at once. The channel's standard input then stays open until the reply is
    /// complete: its end says that nobody listens any more.
    pub stdin: Vec<u8>,
}

/// What is to be launched, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The execution.
    pub uid: &'a Uid,
    /// What was decided.
    pub decision: &'a DecisionRecord,
    /// The machine's boot id that the claim was made for. Another one refuses.
    pub boot_id: &'a str,
    /// The last moment at which it may start: the machine's uptime, in hundredths of a second.
    pub not_after_centiseconds: u64,
    /// How long after TERM comes KILL, where the machine itself ends the command, in hundredths of a second.
    pub grace_centiseconds: u64,
}

/// Asks what there is to know of the machine: once for each connection, before anything else. Makes the directory.
/// Without one given, it is `.local/state/writ` in the user's home. Answered by [`Answer::Probed`] or [`Answer::Refused`].
pub fn probe(nonce: &Nonce, directory: Option<&str>) -> ExecRequest {
    let directory = directory.unwrap_or_default();
    let trimmed = directory.trim_end_matches('/');
    let directory = if trimmed.is_empty() && !directory.is_empty() { "/" } else { trimmed };
    let mut line = String::new();
    executed(&mut line, &script::probe(), &[nonce.0.as_str(), directory]);
    ExecRequest { line, stdin: Vec::new() }
}

/// Asks what the machine says of itself, for people. Leaves nothing there. Answered by [`Answer::Described`].
pub fn facts(nonce: &Nonce) -> ExecRequest {
    let mut line = String::new();
    executed(&mut line, &script::facts(), &[nonce.0.as_str()]);
    ExecRequest { line, stdin: Vec::new() }
}

/// Starts the command, unless the execution is known to the machine: then tells of it, as [`attach`] does from the start.
pub fn launch(nonce: &Nonce, facts: &MachineFacts, launch: &Launch) -> ExecRequest {
    let decision = launch.decision;
    let mark = format!("{MARK}={}", launch.uid.0);
    let mut command = command_words(decision, Some(&mark));
    if command.words.iter().any(|word| word.contains('\0')) {
        command.words = UNSPEAKABLE.map(str::to_owned).to_vec();
        command.before_program = 0;
    }
    let bounds = [
        launch.not_after_centiseconds,
        u64::from(decision.timeout_seconds).saturating_mul(100),
        launch.grace_centiseconds,
        u64::try_from(decision.output.maximum_bytes).unwrap_or(0),
    ]
    .map(|bound| bound.min(script::LARGEST_NUMBER).to_string());
    let before_program = command.before_program.to_string();
    let mut words = vec![launch.uid.as_str(), launch.boot_id];
    words.extend(bounds.iter().map(String::as_str));
    words.extend([decision.run_as.as_deref().unwrap_or("-"), &before_program]);
    words.extend(command.words.iter().map(String::as_str));
    request(nonce, facts, &script::launch(), &words)
}

/// Tells of the execution and sends its output from these offsets on: what there is, or, where it runs, also what comes,
/// until it ends. Starts nothing.
pub fn attach(nonce: &Nonce, facts: &MachineFacts, uid: &Uid, from: Offsets) -> ExecRequest {
    let [stdout, stderr] = [from.stdout, from.stderr].map(|offset| offset.min(script::LARGEST_NUMBER).to_string());
    request(nonce, facts, &script::attach(), &[uid.as_str(), "follow", &stdout, &stderr])
}

/// Tells of the execution, without its output, and at once. Starts nothing.
pub fn poll(nonce: &Nonce, facts: &MachineFacts, uid: &Uid) -> ExecRequest {
    request(nonce, facts, &script::attach(), &[uid.as_str(), "poll", "0", "0"])
}

/// Ends the execution's processes: TERM, the grace in hundredths of a second, KILL. Answered by [`Answer::Stopped`] once
/// they are gone or cannot be ended; by what there is, as [`poll`] does, where nothing runs. An execution that has
/// not started is closed.
pub fn stop(nonce: &Nonce, facts: &MachineFacts, uid: &Uid, grace_centiseconds: u64) -> ExecRequest {
    let grace = grace_centiseconds.min(script::LARGEST_NUMBER).to_string();
    request(nonce, facts, &script::stop(), &[uid.as_str(), &grace])
}

/// Makes sure that the execution does not start any more, whatever requests are still on their way. Answered by
/// [`Answer::Tombstoned`], or by what there is already, as [`poll`] does.
pub fn close(nonce: &Nonce, facts: &MachineFacts, uid: &Uid) -> ExecRequest {
    request(nonce, facts, &script::close(), &[uid.as_str()])
}

/// Removes the output of executions whose end is recorded. The fence stays. What still runs is passed over.
pub fn acknowledge(nonce: &Nonce, facts: &MachineFacts, uids: &[&Uid]) -> ExecRequest {
    let mut words = vec!["-", "acknowledge"];
    words.extend(uids.iter().map(|uid| uid.as_str()));
    request(nonce, facts, &script::files(), &words)
}

/// Forgets executions in whose files nothing was written for more than so many days (at least 2: a command may run for
/// one): they could then start again.
pub fn reap(nonce: &Nonce, facts: &MachineFacts, days: u32) -> ExecRequest {
    request(nonce, facts, &script::files(), &["-", "reap", &days.max(2).to_string()])
}

/// Which executions have output on the machine that was not acknowledged, in the order of their UIDs; at most so many
/// (and at most 200).
pub fn leftovers(nonce: &Nonce, facts: &MachineFacts, limit: u32) -> ExecRequest {
    request(nonce, facts, &script::files(), &["-", "leftovers", &limit.min(200).to_string()])
}

/// The script with its arguments; these by standard input where they do not fit, or where no line can say them.
fn request(nonce: &Nonce, facts: &MachineFacts, script: &str, words: &[&str]) -> ExecRequest {
    let mut arguments = vec![nonce.0.as_str(), &facts.directory, &facts.directory_id];
    arguments.extend(words);
    let mut line = String::new();
    written(&mut line, facts, script, &arguments);
    if line.len() <= LONGEST_LINE && !line.contains('\n') {
        return ExecRequest { line, stdin: Vec::new() };
    }
    line.clear();
    written(&mut line, facts, script, &[nonce.0.as_str()]);
    ExecRequest { line, stdin: words_as_line(&arguments).into_bytes() }
}

fn written(line: &mut String, facts: &MachineFacts, script: &str, arguments: &[&str]) {
    if facts.reads_sh {
        line.push_str("set --");
        quoted(line, arguments);
        line.push_str("; ");
        line.push_str(script);
    } else {
        executed(line, script, arguments);
    }
}

/// In single quotes the script is the same to every shell: it holds no single quote, backslash, newline or `!` before
/// anything but a blank or `=` (which tcsh would take for history).
fn executed(line: &mut String, script: &str, arguments: &[&str]) {
    line.push_str("exec /bin/sh -c '");
    line.push_str(script);
    line.push_str("' writ");
    quoted(line, arguments);
}

fn quoted(line: &mut String, words: &[&str]) {
    for word in words {
        line.push(' ');
        quote(line, word);
    }
}

/// What /bin/sh evaluates to set these as its arguments: one line, so a newline in a word comes from a variable.
fn words_as_line(words: &[&str]) -> String {
    let mut line = String::new();
    if words.iter().any(|word| word.contains('\n')) {
        line.push_str(
            "WRIT_NEWLINE=$(echo x; echo y); WRIT_NEWLINE=${WRIT_NEWLINE#x}; WRIT_NEWLINE=${WRIT_NEWLINE%y}; ",
        );
    }
    line.push_str("set --");
    for word in words {
        line.push_str(" '");
        line.push_str(&word.replace('\'', r"'\''").replace('\n', r#"'"$WRIT_NEWLINE"'"#));
        line.push('\'');
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
