//! Starts a command on a machine at most once, by an SSH exec request, without anything installed there. Pure: this
//! module writes the requests and reads the replies.
//!
//! # Guarantees
//! **The command of an execution starts once or not at all, however many launch requests arrive, over however many
//! connections and from however many processes. Its output and its end can be read again until they are acknowledged.**
//!
//! The machine itself keeps this guarantee, by a program of POSIX sh that comes with each request
//! (`src/launcher/*.sh`). A file that is created exclusively is the fence and the record.
//! `docs/design/20261129-launcher.md` describes the program.

mod answer;
mod identifiers;
mod reply;
mod script;

use crate::api::execution_status::DecisionRecord;
use crate::policy::{CommandWords, command_words};

pub use answer::{
    Answer, Ended, ExitOutcome, Holder, LauncherFacts, Lost, MAX_HOLDERS, Missing, NotStarted, Offsets, RequestRefusal,
    Running, SystemInfoReply,
};
pub use identifiers::{Nonce, Uid};
pub use reply::{Reply, ReplyError, ReplyEvent};

/// Maximum length of an exec request, in bytes. dropbear closes the channel without a message over 9,000, OpenSSH takes
/// 131,071. The launcher's request is constant and much shorter.
pub const MAX_COMMAND_BYTES: usize = 8_500;
/// Exit code of a session that refused a request because it did not arrive whole, see `bootstrap.sh`. The reply may
/// have no nonce, because that may be lost too.
pub const REFUSED_CUT_EXIT_CODE: u32 = 93;
/// Maximum number of executions in one reply to [`unacknowledged`]. Their UIDs must fit into one write to a pipe (4096
/// bytes), which the kernel does not mix with other writes.
const MAX_UNACKNOWLEDGED: u32 = 100;
/// Command that runs instead of one with a byte 0 in a word. No word can hold a byte 0.
const NUL_GUARD: [&str; 3] = ["/bin/sh", "-c", r#"echo "writ: a word holds a byte 0; nothing was run" >&2; exit 126"#];

/// Maximum number of output bytes in one frame of a reply: 16 KiB to 1 MiB, in powers of 4. The default is the maximum;
/// a launch always uses it.
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

/// Content of one session: the exec request and the standard input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecRequest {
    /// Text of the exec request. It is constant: it reads the script and its arguments from standard input, and
    /// evaluates them only if they are whole.
    pub command: String,
    /// Bytes for standard input. End the channel's standard input after them: the machine waits for that end, and so
    /// refuses a truncated request at once.
    pub stdin: Vec<u8>,
}

/// Arguments of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The execution.
    pub uid: &'a Uid,
    /// Recorded decision.
    pub decision: &'a DecisionRecord,
    /// Boot id of the machine at the time of the claim. The machine refuses a launch with another one.
    pub boot_id: &'a str,
    /// Deadline for the start: the machine's uptime, in hundredths of a second.
    pub not_after_centiseconds: u64,
    /// Time between TERM and KILL if the machine itself ends the command, in hundredths of a second.
    pub grace_centiseconds: u64,
}

/// Inspects the machine, once for each connection and before any other request. Creates the directory; the default is
/// `.local/state/writ` in the user's home. The answer is [`Answer::Inspected`] or [`Answer::Refused`].
pub fn inspect(nonce: &Nonce, directory: Option<&str>) -> ExecRequest {
    let directory = directory.unwrap_or_default();
    let trimmed = directory.trim_end_matches('/');
    let directory = if trimmed.is_empty() && !directory.is_empty() { "/" } else { trimmed };
    // The language of the login shell is not known yet.
    build_request(nonce, false, script::inspect(), &[directory])
}

/// Reads facts about the system, for people. Leaves nothing on the machine. The answer is [`Answer::SystemInfo`].
pub fn system_info(nonce: &Nonce) -> ExecRequest {
    build_request(nonce, false, script::system_info(), &[])
}

/// Starts the command, unless the machine knows the execution. Then it reports that execution, as [`attach`] does from
/// the start.
pub fn launch(nonce: &Nonce, facts: &LauncherFacts, launch: &Launch) -> ExecRequest {
    let decision = launch.decision;
    let mut command = command_words(decision);
    if command.words.iter().chain(&command.directory).any(|word| word.contains('\0')) {
        let words = NUL_GUARD.map(str::to_owned).to_vec();
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
    .map(|bound| bound.min(script::MAX_NUMBER).to_string());
    let before_program = command.before_program.to_string();
    let mut words = vec![launch.boot_id];
    words.extend(bounds.iter().map(String::as_str));
    words.push(decision.run_as.as_deref().unwrap_or("-"));
    words.extend([command.directory.as_deref().unwrap_or_default(), &before_program]);
    words.extend(command.words.iter().map(String::as_str));
    execution_request(nonce, facts, script::launch(), launch.uid.as_str(), &words)
}

/// Reports the execution, and sends its output from these offsets. If the command runs, also sends later output until
/// it ends. Starts nothing. A frame of the reply has at most `max_frame` bytes. Only whole frames count, so smaller
/// frames make more progress on a connection that breaks often.
pub fn attach(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid, from: Offsets, max_frame: FrameSize) -> ExecRequest {
    let [stdout, stderr] = [from.stdout, from.stderr].map(|offset| offset.min(script::MAX_NUMBER).to_string());
    let max_frame = max_frame.0.to_string();
    execution_request(nonce, facts, script::attach(), uid.as_str(), &["follow", &stdout, &stderr, &max_frame])
}

/// Reports the execution at once and without its output. Starts nothing.
pub fn poll(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid) -> ExecRequest {
    execution_request(nonce, facts, script::attach(), uid.as_str(), &["poll", "0", "0"])
}

/// Ends the execution's processes: TERM, then the grace in hundredths of a second, then KILL. The answer is
/// [`Answer::Stopped`] once they are gone or cannot be killed. If nothing runs, the answer is that of [`poll`]. An
/// execution that has not started is closed.
pub fn stop(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid, grace_centiseconds: u64) -> ExecRequest {
    let grace = grace_centiseconds.min(script::MAX_NUMBER).to_string();
    execution_request(nonce, facts, script::stop(), uid.as_str(), &[&grace])
}

/// Prevents the execution from starting, even by requests that arrive later. The answer is [`Answer::Tombstoned`], or
/// that of [`poll`] if the execution is known.
pub fn close(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid) -> ExecRequest {
    execution_request(nonce, facts, script::close(), uid.as_str(), &[])
}

/// Removes the output of executions with a recorded end. The fence stays. Ignores running executions.
pub fn acknowledge(nonce: &Nonce, facts: &LauncherFacts, uids: &[&Uid]) -> ExecRequest {
    let mut words = vec!["acknowledge"];
    words.extend(uids.iter().map(|uid| uid.as_str()));
    execution_request(nonce, facts, script::cleanup(), "-", &words)
}

/// Removes all files of executions whose journal was not written for more than `days` (at least 2, because a command
/// may run for one). These executions could then start again.
pub fn prune(nonce: &Nonce, facts: &LauncherFacts, days: u32) -> ExecRequest {
    execution_request(nonce, facts, script::cleanup(), "-", &["reap", &days.max(2).to_string()])
}

/// Lists the executions with unacknowledged output on the machine, in the order of their UIDs: at most `limit`, and at
/// most 100, which fit into one write to a pipe.
pub fn unacknowledged(nonce: &Nonce, facts: &LauncherFacts, limit: u32) -> ExecRequest {
    execution_request(nonce, facts, script::cleanup(), "-", &["leftovers", &limit.min(MAX_UNACKNOWLEDGED).to_string()])
}

/// Builds a request about one execution, or about the launcher's directory.
fn execution_request(nonce: &Nonce, facts: &LauncherFacts, script: &str, uid: &str, words: &[&str]) -> ExecRequest {
    let mut arguments = vec![facts.directory.as_str(), &facts.directory_id, uid];
    arguments.extend(words);
    build_request(nonce, facts.login_shell_is_posix, script, &arguments)
}

/// Builds the exec request, and the standard input: the script with its arguments, twice, so that the machine can check
/// that it is whole.
fn build_request(nonce: &Nonce, login_shell_is_posix: bool, script: &str, arguments: &[&str]) -> ExecRequest {
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
    let command = if login_shell_is_posix { bootstrap.to_owned() } else { format!("exec /bin/sh -c '{bootstrap}'") };
    let Some(separator) = separator(text) else {
        // No request can express this text. The machine refuses the empty one as truncated, and nothing runs.
        return ExecRequest { command, stdin: Vec::new() };
    };
    let header = format!("WRIT2 {} {} {separator}\n", nonce.0, text.len());
    let stdin = [header.as_str(), text, separator.encode_utf8(&mut [0; 4]), text].concat().into_bytes();
    ExecRequest { command, stdin }
}

/// Returns a character that the text does not contain and that has no meaning in any shell. bash reserves 0x01. Returns
/// `None` if there is no such character, or if the text holds a byte 0, which no shell can read.
fn separator(text: &str) -> Option<char> {
    if text.contains('\0') {
        return None;
    }
    ('\u{1c}'..='\u{1f}').chain('\u{2}'..='\u{8}').find(|each| !text.contains(*each))
}

#[cfg(test)]
mod tests;
