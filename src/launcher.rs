//! Starts a command on a machine at most once, by an SSH exec request, with nothing installed there.
//!
//! The promise kept here: **however often, over however many connections, and from however many places an execution is
//! launched, its command starts once or not at all, and its output and its end can be read again until they are
//! acknowledged.** The machine keeps that promise itself, by a program of POSIX sh that comes with each request
//! (`src/launcher/*.sh`): a file that is created exclusively is the fence, and the record.
//!
//! Pure: makes the text of requests and reads replies. `docs/design/20261129-launcher.md` says what runs on the machine.

mod answer;
mod reply;
mod script;

use crate::api::execution_status::DecisionRecord;
use crate::policy::{CommandWords, command_words};

pub use answer::{
    Answer, Described, Ended, Holder, Lost, MAX_HOLDERS, MachineFacts, Missing, NotStarted, Offsets, Outcome, Refusal,
    Running,
};
pub use reply::{Broken, Item, Reply};

/// Maximum length of an exec request, in bytes: dropbear closes the channel without a word over 9,000. (OpenSSH takes
/// 131,071.) The launcher's is constant and much shorter.
pub const LONGEST_LINE: usize = 8_500;
/// Exit code of a session that refused a request because it did not arrive whole, see `bootstrap.sh`. The nonce of the
/// request may be lost then, so the reply may have none.
pub const REFUSED_CUT_EXIT_CODE: u32 = 93;
/// Maximum number of executions in one reply to [`leftovers`]: their UIDs have to fit into one write to a pipe (4096
/// bytes), which the kernel does not mix with others.
const MAX_LEFTOVERS: u32 = 100;
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

/// Maximum number of bytes of output in one frame of a reply: 16 KiB to 1 MiB, in powers of 4. The default is the largest,
/// which a launch uses, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameSize(u32);

impl FrameSize {
    /// Returns the next smaller size, or the smallest.
    pub fn smaller(self) -> Self {
        Self((self.0 / 4).max(16 << 10))
    }
}

impl Default for FrameSize {
    fn default() -> Self {
        Self(1 << 20)
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

/// Contents of one session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecRequest {
    /// Text of the exec request. It is constant: it reads the script and its words from standard input, and evaluates them
    /// only if they are whole.
    pub line: String,
    /// Bytes for standard input. End the channel's standard input behind them: the machine waits for that end, so that a
    /// request that was cut is refused at once.
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
    // Which language the login shell reads is not known yet.
    request(nonce, false, script::probe(), &[directory])
}

/// Asks what the machine says of itself, for people. Leaves nothing there. Answered by [`Answer::Described`].
pub fn facts(nonce: &Nonce) -> ExecRequest {
    request(nonce, false, script::facts(), &[])
}

/// Starts the command, unless the execution is known to the machine: then tells of it, as [`attach`] does from the start.
pub fn launch(nonce: &Nonce, facts: &MachineFacts, launch: &Launch) -> ExecRequest {
    let decision = launch.decision;
    let mut command = command_words(decision);
    if command.words.iter().chain(&command.directory).any(|word| word.contains('\0')) {
        let words = UNSPEAKABLE.map(str::to_owned).to_vec();
        command = CommandWords { directory: None, words, before_program: 0 };
    }
    let centiseconds = |seconds: u32| u64::from(seconds).saturating_mul(100);
    let bounds = [
        facts.uptime_centiseconds,
        launch.not_after_centiseconds,
        centiseconds(decision.timeout_seconds),
        launch.grace_centiseconds,
        u64::try_from(decision.output.maximum_bytes).unwrap_or(0),
        centiseconds(decision.output.drain_seconds),
    ]
    .map(|bound| bound.min(script::LARGEST_NUMBER).to_string());
    let before_program = command.before_program.to_string();
    let mut words = vec![launch.boot_id];
    words.extend(bounds.iter().map(String::as_str));
    words.push(decision.run_as.as_deref().unwrap_or("-"));
    words.extend([command.directory.as_deref().unwrap_or_default(), &before_program]);
    words.extend(command.words.iter().map(String::as_str));
    of_execution(nonce, facts, script::launch(), launch.uid.as_str(), &words)
}

/// Tells of the execution and sends its output from these offsets on: what there is, or, where it runs, also what comes,
/// until it ends. Starts nothing. A frame of the reply has at most `max_frame` bytes: bytes count by frames, so on a line
/// that breaks often a smaller one gets further.
pub fn attach(nonce: &Nonce, facts: &MachineFacts, uid: &Uid, from: Offsets, max_frame: FrameSize) -> ExecRequest {
    let [stdout, stderr] = [from.stdout, from.stderr].map(|offset| offset.min(script::LARGEST_NUMBER).to_string());
    let max_frame = max_frame.0.to_string();
    of_execution(nonce, facts, script::attach(), uid.as_str(), &["follow", &stdout, &stderr, &max_frame])
}

/// Tells of the execution, without its output, and at once. Starts nothing.
pub fn poll(nonce: &Nonce, facts: &MachineFacts, uid: &Uid) -> ExecRequest {
    of_execution(nonce, facts, script::attach(), uid.as_str(), &["poll", "0", "0"])
}

/// Ends the execution's processes: TERM, the grace in hundredths of a second, KILL. Answered by [`Answer::Stopped`] once
/// they are gone or cannot be ended; by what there is, as [`poll`] does, where nothing runs. An execution that has
/// not started is closed.
pub fn stop(nonce: &Nonce, facts: &MachineFacts, uid: &Uid, grace_centiseconds: u64) -> ExecRequest {
    let grace = grace_centiseconds.min(script::LARGEST_NUMBER).to_string();
    of_execution(nonce, facts, script::stop(), uid.as_str(), &[&grace])
}

/// Makes sure that the execution does not start any more, whatever requests are still on their way. Answered by
/// [`Answer::Tombstoned`], or by what there is already, as [`poll`] does.
pub fn close(nonce: &Nonce, facts: &MachineFacts, uid: &Uid) -> ExecRequest {
    of_execution(nonce, facts, script::close(), uid.as_str(), &[])
}

/// Removes the output of executions whose end is recorded. The fence stays. What still runs is passed over.
pub fn acknowledge(nonce: &Nonce, facts: &MachineFacts, uids: &[&Uid]) -> ExecRequest {
    let mut words = vec!["acknowledge"];
    words.extend(uids.iter().map(|uid| uid.as_str()));
    of_execution(nonce, facts, script::files(), "-", &words)
}

/// Forgets executions in whose files nothing was written for more than so many days (at least 2: a command may run for
/// one): they could then start again.
pub fn reap(nonce: &Nonce, facts: &MachineFacts, days: u32) -> ExecRequest {
    of_execution(nonce, facts, script::files(), "-", &["reap", &days.max(2).to_string()])
}

/// Which executions have output on the machine that was not acknowledged, in the order of their UIDs; at most so many
/// (and at most 100, which fit into one write to a pipe).
pub fn leftovers(nonce: &Nonce, facts: &MachineFacts, limit: u32) -> ExecRequest {
    of_execution(nonce, facts, script::files(), "-", &["leftovers", &limit.min(MAX_LEFTOVERS).to_string()])
}

/// A request about one execution, or about the launcher's directory.
fn of_execution(nonce: &Nonce, facts: &MachineFacts, script: &str, uid: &str, words: &[&str]) -> ExecRequest {
    let mut arguments = vec![facts.directory.as_str(), &facts.directory_id, uid];
    arguments.extend(words);
    request(nonce, facts.reads_sh, script, &arguments)
}

/// The bootstrap, and the script with its arguments for it: the script twice, so that the machine knows that it is whole.
fn request(nonce: &Nonce, reads_sh: bool, script: &str, arguments: &[&str]) -> ExecRequest {
    let mut text = format!("#{}\nset --", nonce.0);
    for word in [nonce.0.as_str()].iter().chain(arguments) {
        text.push_str(" '");
        text.push_str(&word.replace('\'', r"'\''"));
        text.push('\'');
    }
    text.push('\n');
    text.push_str(script);
    // The shell that reads the text drops newlines at its end.
    let text = text.trim_end();
    let bootstrap = script::bootstrap();
    let line = if reads_sh { bootstrap.to_owned() } else { format!("exec /bin/sh -c '{bootstrap}'") };
    let Some(separator) = separator(text) else {
        // No request can say this, so it is refused as one that was cut, and nothing runs.
        return ExecRequest { line, stdin: Vec::new() };
    };
    let header = format!("WRIT2 {} {} {separator}\n", nonce.0, text.len());
    let stdin = [header.as_str(), text, separator.encode_utf8(&mut [0; 4]), text].concat().into_bytes();
    ExecRequest { line, stdin }
}

/// Returns a character that the text does not have and that no shell gives a meaning. bash keeps 0x01 for itself. `None` if
/// there is no such character, or if the text holds a byte 0, which no shell can read.
fn separator(text: &str) -> Option<char> {
    if text.contains('\0') {
        return None;
    }
    ('\u{1c}'..='\u{1f}').chain('\u{2}'..='\u{8}').find(|each| !text.contains(*each))
}

#[cfg(test)]
mod tests;
