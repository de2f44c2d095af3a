//! Starts a command on a machine at most once, by an SSH exec request. Nothing must be installed on the machine. Pure:
//! this module only builds the requests and parses the replies.
//!
//! # Guarantees
//! **The command of an execution starts at most once, for any number of launch requests, connections and sending
//! processes. The output and the end of the command can be read again until Writ acknowledges them.**
//!
//! A POSIX sh program on the machine keeps this guarantee (`src/launcher/*.sh`). Each request contains the program.
//! Only the request that creates the journal file of the execution starts the command (fence). The journal file also
//! records the start and the end of the command. `docs/design/20261129-launcher.md` describes the program.

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

/// Maximum length of an exec request, in bytes. Above 9,000 bytes, dropbear closes the channel without a message.
/// OpenSSH accepts up to 131,071 bytes. The launcher's exec request is constant and much shorter.
pub const MAX_COMMAND_BYTES: usize = 8_500;
/// Exit code of a session that refused an incomplete request, see `bootstrap.sh`. Writ needs this exit code if the
/// request lost its nonce, because the reply then has no nonce.
pub const REFUSED_CUT_EXIT_CODE: u32 = 93;
/// Maximum number of executions in one reply to [`unacknowledged`]. Their UIDs must fit into one write to a pipe (4096
/// bytes), because the kernel does not mix such a write with other writes.
const MAX_UNACKNOWLEDGED: u32 = 100;
/// Replacement for a command with a NUL byte, because no argument of a process can contain a NUL byte. The replacement
/// prints the reason and exits with 126.
const NUL_GUARD: [&str; 3] = ["/bin/sh", "-c", r#"echo "writ: a word holds a byte 0; nothing was run" >&2; exit 126"#];

/// Maximum number of output bytes in one frame of a reply: 16 KiB, 64 KiB, 256 KiB or 1 MiB (default). A launch always
/// uses the default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameSize(u32);

impl FrameSize {
    /// Returns the next smaller size, but at least 16 KiB.
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
    /// Text of the exec request: a constant program that reads the script from standard input. The program evaluates
    /// only a complete script.
    pub command: String,
    /// Bytes for standard input. After these bytes, the caller must end the channel's standard input, so that the
    /// machine can refuse a truncated request at once.
    pub stdin: Vec<u8>,
}

/// Arguments of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// UID of the execution.
    pub uid: &'a Uid,
    /// Recorded decision.
    pub decision: &'a DecisionRecord,
    /// Boot id of the machine at the time of the claim. The machine refuses the launch if its current boot id is
    /// different.
    pub boot_id: &'a str,
    /// Deadline for the start, as an uptime of the machine, in hundredths of a second.
    pub not_after_centiseconds: u64,
    /// Time between TERM and KILL if the machine itself ends the command, in hundredths of a second.
    pub grace_centiseconds: u64,
}

/// Builds the request that inspects the machine. Writ sends this request first on each connection. The request also
/// creates the launcher's `directory` (default: `.local/state/writ` in the user's home). The answer is
/// [`Answer::Inspected`] or [`Answer::Refused`].
pub fn inspect(nonce: &Nonce, directory: Option<&str>) -> ExecRequest {
    let directory = directory.unwrap_or_default();
    let trimmed = directory.trim_end_matches('/');
    let directory = if trimmed.is_empty() && !directory.is_empty() { "/" } else { trimmed };
    // Writ does not know the login shell yet, so the request starts /bin/sh.
    build_request(nonce, false, script::inspect(), &[directory])
}

/// Builds the request that reads facts about the system, for users. The request leaves nothing on the machine. The
/// answer is [`Answer::SystemInfo`].
pub fn system_info(nonce: &Nonce) -> ExecRequest {
    build_request(nonce, false, script::system_info(), &[])
}

/// Builds the request that starts the command, unless the machine already knows the execution. For a known
/// execution, the request only reports the state and the output, as [`attach`] does from offset 0.
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

/// Builds the request that reports the state of the execution, and its output from the offsets `from` on. If the
/// command runs, the machine also sends later output until the command ends. The request starts nothing.
///
/// A frame of the reply has at most `max_frame` bytes. If a connection often breaks, smaller frames make more progress,
/// because only whole frames count.
pub fn attach(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid, from: Offsets, max_frame: FrameSize) -> ExecRequest {
    let [stdout, stderr] = [from.stdout, from.stderr].map(|offset| offset.min(script::MAX_NUMBER).to_string());
    let max_frame = max_frame.0.to_string();
    execution_request(nonce, facts, script::attach(), uid.as_str(), &["follow", &stdout, &stderr, &max_frame])
}

/// Builds the request that reports the state of the execution at once, without its output. The request starts nothing.
pub fn poll(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid) -> ExecRequest {
    execution_request(nonce, facts, script::attach(), uid.as_str(), &["poll", "0", "0"])
}

/// Builds the request that ends the processes of the execution. The machine sends TERM, waits for the grace period in
/// hundredths of a second, and sends KILL. The answer depends on the execution:
/// - If the command runs: [`Answer::Stopped`], after the processes are gone or cannot be killed.
/// - If the command has not started: the request closes the execution, as [`close`] does.
/// - In other cases: the answer is the same as for [`poll`].
pub fn stop(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid, grace_centiseconds: u64) -> ExecRequest {
    let grace = grace_centiseconds.min(script::MAX_NUMBER).to_string();
    execution_request(nonce, facts, script::stop(), uid.as_str(), &[&grace])
}

/// Builds the request that prevents the execution from starting, even by requests that arrive later. The answer is
/// [`Answer::Tombstoned`]. If the machine already knows the execution, the answer is the same as for [`poll`].
pub fn close(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid) -> ExecRequest {
    execution_request(nonce, facts, script::close(), uid.as_str(), &[])
}

/// Builds the request that removes the output of these executions, except running executions. The journal files stay,
/// so the commands cannot start again.
pub fn acknowledge(nonce: &Nonce, facts: &LauncherFacts, uids: &[&Uid]) -> ExecRequest {
    let mut words = vec!["acknowledge"];
    words.extend(uids.iter().map(|uid| uid.as_str()));
    execution_request(nonce, facts, script::cleanup(), "-", &words)
}

/// Builds the request that removes all files of executions whose journal was last written more than `days` days ago.
/// The minimum is 2 days, because a command can run for one day. After the removal, the machine no longer knows these
/// executions, so a launch could start their commands again.
pub fn prune(nonce: &Nonce, facts: &LauncherFacts, days: u32) -> ExecRequest {
    execution_request(nonce, facts, script::cleanup(), "-", &["reap", &days.max(2).to_string()])
}

/// Builds the request that lists the executions with unacknowledged output on the machine, in the order of their UIDs.
/// The list has at most `limit` and at most 100 entries, so that it fits into one write to a pipe.
pub fn unacknowledged(nonce: &Nonce, facts: &LauncherFacts, limit: u32) -> ExecRequest {
    execution_request(nonce, facts, script::cleanup(), "-", &["leftovers", &limit.min(MAX_UNACKNOWLEDGED).to_string()])
}

/// Builds a request about one execution, or about the launcher's directory.
fn execution_request(nonce: &Nonce, facts: &LauncherFacts, script: &str, uid: &str, words: &[&str]) -> ExecRequest {
    let mut arguments = vec![facts.directory.as_str(), &facts.directory_id, uid];
    arguments.extend(words);
    build_request(nonce, facts.login_shell_is_posix, script, &arguments)
}

/// Builds the exec request and its standard input. The standard input contains the script with its arguments twice. The
/// machine compares the two copies to check that the script is complete.
fn build_request(nonce: &Nonce, login_shell_is_posix: bool, script: &str, arguments: &[&str]) -> ExecRequest {
    let mut text = format!("#{}\nset --", nonce.0);
    for word in [nonce.0.as_str()].iter().chain(arguments) {
        text.push_str(" '");
        text.push_str(&word.replace('\'', r"'\''"));
        text.push('\'');
    }
    text.push('\n');
    text.push_str(script);
    // The shell on the machine drops newlines at the end of the text, so the text must not end with a newline.
    let text = text.trim_end();
    let bootstrap = script::bootstrap();
    let command = if login_shell_is_posix { bootstrap.to_owned() } else { format!("exec /bin/sh -c '{bootstrap}'") };
    let Some(separator) = separator(text) else {
        // Without a separator, Writ sends an empty request. The machine refuses the empty request as truncated.
        return ExecRequest { command, stdin: Vec::new() };
    };
    let header = format!("WRIT2 {} {} {separator}\n", nonce.0, text.len());
    let stdin = [header.as_str(), text, separator.encode_utf8(&mut [0; 4]), text].concat().into_bytes();
    ExecRequest { command, stdin }
}

/// Returns a control character that the text does not contain and that no shell interprets. Returns `None` if the text
/// contains all such characters, or a NUL byte. 0x01 is excluded, because bash reserves it.
fn separator(text: &str) -> Option<char> {
    if text.contains('\0') {
        return None;
    }
    ('\u{1c}'..='\u{1f}').chain('\u{2}'..='\u{8}').find(|each| !text.contains(*each))
}

#[cfg(test)]
mod tests;
