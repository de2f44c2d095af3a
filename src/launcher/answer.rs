//! Answers of a machine, and their parser. Each answer is one line. The parser returns `None` for an invalid line.

use super::identifiers::Uid;

/// Maximum number of holders in a reply, see `_find_holders` in drain.sh. A holder is a process that still has the
/// output open for writing.
pub const MAX_HOLDERS: usize = 8;
/// Maximum number of characters of each fact about the system.
const MAX_FACT_CHARACTERS: usize = 256;

/// Facts about a machine, from [`super::inspect`]. Valid only for the connection on which they were read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LauncherFacts {
    /// Boot id, different after each boot.
    pub boot_id: String,
    /// Uptime, in hundredths of a second.
    pub uptime_centiseconds: u64,
    /// Directory of the journals and outputs: an absolute path without symbolic links.
    pub directory: String,
    /// Random ID of this directory, stored in a file in the directory. The parser accepts up to 128 characters. Above
    /// 64 characters, a claim cannot record the ID, so Writ runs no command on the machine.
    pub directory_id: String,
    /// True if the login shell can read the scripts itself (dash or busybox). The request then starts no second shell.
    pub login_shell_is_posix: bool,
    /// True if the machine kills the processes of a login when its connection is closed (systemd's KillUserProcesses).
    /// Commands on such a machine end with their connection.
    pub kills_user_processes: bool,
}

/// Facts about the system, from [`super::system_info`]: printable ASCII, at most 256 characters each, empty if unknown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SystemInfoReply {
    /// Boot id, different after each boot.
    pub boot_id: String,
    /// Host name.
    pub hostname: String,
    /// Processor architecture.
    pub architecture: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Shell of the login user.
    pub shell: String,
    /// Name of the operating system.
    pub os: String,
}

/// Byte offsets in the two streams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offsets {
    /// Offset in standard output.
    pub stdout: u64,
    /// Offset in standard error.
    pub stderr: u64,
}

/// Answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Answer to [`super::inspect`].
    Inspected(LauncherFacts),
    /// Answer to [`super::system_info`].
    SystemInfo(SystemInfoReply),
    /// The execution runs. After a launch or an attach, the machine sends the output while the command writes it. At
    /// the end of the command, a second answer follows: `Ended` or `Lost`.
    Running(Running),
    /// The execution has ended. The reply to a launch or an attach also contains the output, up to [`Ended::lengths`].
    /// The reply to a poll, a stop or a close contains no output.
    Ended(Ended),
    /// The execution started, but its end is unknown. Perhaps the command still runs. Its output follows as for
    /// `Ended`.
    Lost(Lost),
    /// The machine does not know the execution, because no launch request has created its journal file yet. A launch
    /// request can still arrive.
    Absent,
    /// The journal file of the execution exists, but it contains neither a start nor a refusal. Either the command
    /// starts soon, or its launcher has died. [`super::close`] resolves this state.
    Starting,
    /// The execution was closed before its start, so it never starts.
    Tombstoned,
    /// The launch failed before the start, so the execution never starts.
    NotStarted(NotStarted),
    /// The request was refused and has started nothing. Other requests are not affected.
    Refused(RequestRefusal),
    /// Answer to [`super::stop`]: the signals were sent to the processes.
    Stopped {
        /// Number of remaining processes. `None` if the machine cannot count them, because the command has `runAs` and
        /// /proc is mounted with `hidepid`.
        processes_left: Option<u64>,
    },
    /// Answer to [`super::acknowledge`] and [`super::prune`].
    Done,
    /// Answer to [`super::unacknowledged`].
    Unacknowledged(Vec<Uid>),
}

/// A running execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Running {
    /// True if another request started the execution.
    pub started_by_other: bool,
    /// Offsets at which the output in this reply begins.
    pub from: Offsets,
    /// Uptime of the machine at the start of the command, in hundredths of a second. `None` if the clock was not
    /// readable at this time.
    pub started_centiseconds: Option<u64>,
    /// Uptime of the machine now, in hundredths of a second.
    pub now_centiseconds: Option<u64>,
    /// Id of the process group. The command's process and session have the same id.
    pub process_group: u64,
}

/// A finished execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// True if another request started the execution.
    pub started_by_other: bool,
    /// Offsets at which the output in this reply begins.
    pub from: Offsets,
    /// Total length of each output stream, in bytes.
    pub lengths: Offsets,
    /// Exit of the command.
    pub outcome: ExitOutcome,
    /// Uptime of the machine at the start, in hundredths of a second. `None` if the clock was not readable at the
    /// start.
    pub started_centiseconds: Option<u64>,
    /// Uptime of the machine at the end of the command's own process, in hundredths of a second. Other processes can
    /// write output later.
    pub ended_centiseconds: Option<u64>,
    /// True if the machine ended the command because its timeout expired.
    pub timed_out: bool,
    /// True if the output exceeded its limit. The machine then ended the command, if the command was still running.
    pub over_limit: bool,
    /// True if the machine ended the command because of its timeout, its output limit or [`super::stop`]. False if the
    /// command ended by itself.
    pub was_ended: bool,
    /// True if [`super::stop`] ended the command.
    pub stopped: bool,
    /// True if sudo required a password and did not execute the command. The exit code is sudo's.
    pub refused_by_sudo: bool,
    /// Reason for missing output. `None` if the output is complete as far as the machine knows.
    pub missing: Option<Missing>,
    /// Processes that still had the output open when the wait after the command's exit (`drainSeconds`) ended. The list
    /// has at most [`MAX_HOLDERS`] entries.
    pub holders: Vec<Holder>,
    /// True if the output was acknowledged and removed.
    pub output_removed: bool,
    /// Number of remaining processes after the machine ended the command. `None` if the number is unknown, or if the
    /// command ended by itself.
    pub processes_left: Option<u64>,
}

impl Ended {
    /// Returns true if the machine knows that bytes are missing.
    pub fn output_incomplete(&self) -> bool {
        self.missing.is_some()
    }
}

/// Reason for missing output on the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Other processes still had the output open when the wait after the command's exit (`drainSeconds`) ended.
    Held,
    /// The process that writes the output to the disk ended early.
    ReaderEnded,
    /// The disk was full.
    DiskFull,
    /// The login has a hard limit on the size of files.
    FileSizeLimit,
    /// The output files are shorter than the recorded lengths.
    Removed,
}

/// A process that still had the output of the command open for writing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Process id.
    pub process: u64,
    /// Process name: 1 to 15 letters, digits and `._+-`.
    pub name: String,
}

/// Exit of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitOutcome {
    /// Exit code, 0 to 255. A code of 129 or more can also mean a signal: 128 plus the number of the signal. The reason
    /// is that some shells do not report some signals (dash: INT and PIPE).
    Exited(u8),
    /// Signal, by its number on Linux.
    Signalled(u8),
    /// Writ ended the command, and its exit code is unknown.
    Unknown,
}

/// An execution with a known start and an unknown end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lost {
    /// True if the machine rebooted after the start, so that the command no longer runs.
    pub rebooted: bool,
    /// True if another request started the execution.
    pub started_by_other: bool,
    /// Offsets at which the output in this reply begins.
    pub from: Offsets,
    /// Length of each output stream so far, in bytes.
    pub lengths: Offsets,
    /// Uptime of the machine at the start, in hundredths of a second. `None` if unknown.
    pub started_centiseconds: Option<u64>,
}

/// Reason why a launch did not start the command. The command then never starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotStarted {
    /// sudo does not allow the command.
    SudoRefused,
    /// sudo refused with this message: printable ASCII, at most 256 characters.
    SudoSaid(String),
    /// The output files could not be created, because the disk is full.
    DiskFull,
    /// A file could not be opened, because the login's limit of open files is too low.
    Files,
}

/// Reason why a request was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestRefusal {
    /// The request came after the deadline for the start.
    DeadlinePassed,
    /// The machine rebooted after the claim.
    Rebooted,
    /// The directory is unsuitable:
    /// - As an answer to [`super::inspect`]: the directory does not exist, belongs to another user, is a symbolic link,
    ///   or is writable for others.
    /// - As an answer to other requests: the directory is not the directory in the claim.
    DirectoryUnsuitable,
    /// The directory does not exist and could not be created, with this message: printable ASCII, at most 256
    /// characters.
    Said(String),
    /// The disk is full.
    DiskFull,
    /// A file could not be opened, because the login's limit of open files is too low.
    Files,
    /// The directory is not writable.
    NotWritable,
    /// The machine has no /proc.
    NoProc,
    /// /proc/uptime of the machine is not readable, or its time has moved backwards.
    NoClock,
    /// The request did not arrive completely, because another process on the machine read a part of it. The machine
    /// evaluated nothing.
    Cut,
    /// The machine lacks the program with this name. The name has at most 64 characters.
    MissingTool(String),
}

/// Content of a line after the mark.
pub(super) enum ReplyLine {
    /// An answer. `bytes` is true if output belongs to the answer.
    Answer { answer: Answer, bytes: bool },
    /// A frame: `length` bytes of the stream follow, from `offset` on.
    Frame { offset: u64, length: u64 },
    /// No content. The mark confirms the bytes before the mark.
    Nothing,
    /// End of the stream.
    Last,
}

pub(super) fn read(line: &str) -> Option<ReplyLine> {
    match line {
        "+" => return Some(ReplyLine::Nothing),
        "." => return Some(ReplyLine::Last),
        _ => {}
    }
    if let Some(frame) = line.strip_prefix("C ") {
        let (offset, length) = frame.split_once(' ')?;
        return Some(ReplyLine::Frame { offset: number(offset)?, length: number(length)? });
    }
    let (bytes, line) = match line.strip_prefix("p ") {
        Some(polled) => (false, polled),
        None => (true, line),
    };
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let answer = match kind {
        "P" => Answer::Inspected(parse_facts(rest)?),
        "F" => Answer::SystemInfo(parse_system_info(rest)?),
        "U" => Answer::Unacknowledged(rest.split_whitespace().map(Uid::new).collect::<Option<_>>()?),
        "R" => Answer::Refused(refusal(rest)?),
        _ => parse_words(kind, &rest.split_whitespace().collect::<Vec<_>>())?,
    };
    Some(ReplyLine::Answer { answer, bytes })
}

fn parse_system_info(rest: &str) -> Option<SystemInfoReply> {
    let mut words = rest.splitn(6, '|').map(sanitize);
    Some(SystemInfoReply {
        boot_id: words.next()?,
        hostname: words.next()?,
        architecture: words.next()?,
        kernel: words.next()?,
        shell: words.next()?,
        os: words.next()?.trim_matches('"').to_owned(),
    })
}

/// Trims a fact, and keeps at most 256 printable ASCII characters. Other characters could change a user's terminal.
fn sanitize(word: &str) -> String {
    word.trim().chars().filter(|each| matches!(each, ' '..='~')).take(MAX_FACT_CHARACTERS).collect()
}

fn parse_words(kind: &str, words: &[&str]) -> Option<Answer> {
    Some(match (kind, words) {
        ("A", [who, out, err, started, now, group]) => Answer::Running(Running {
            started_by_other: attached(who)?,
            from: offsets(out, err)?,
            started_centiseconds: parse_count(started)?,
            now_centiseconds: parse_count(now)?,
            process_group: number(group)?,
        }),
        ("D", words) => Answer::Ended(ended(words)?),
        ("L", [who, from_out, from_err, started, out, err, why @ ..]) => Answer::Lost(Lost {
            rebooted: match why {
                [] => false,
                ["boot"] => true,
                _ => return None,
            },
            started_by_other: attached(who)?,
            from: offsets(from_out, from_err)?,
            lengths: offsets(out, err)?,
            started_centiseconds: parse_count(started)?,
        }),
        ("N", []) => Answer::Absent,
        ("B", []) => Answer::Starting,
        ("V", []) => Answer::Tombstoned,
        ("X", ["sudo"]) => Answer::NotStarted(NotStarted::SudoRefused),
        ("X", ["said", said @ ..]) if !said.is_empty() => {
            Answer::NotStarted(NotStarted::SudoSaid(sanitize(&said.join(" "))))
        }
        ("X", ["space"]) => Answer::NotStarted(NotStarted::DiskFull),
        ("X", ["files"]) => Answer::NotStarted(NotStarted::Files),
        ("K", [left]) => Answer::Stopped { processes_left: parse_count(left)? },
        ("Q", []) => Answer::Done,
        _ => return None,
    })
}

fn ended(words: &[&str]) -> Option<Ended> {
    let [who, from_out, from_err, started, code, signal, out, err, when, flags, left, held @ ..] = words else {
        return None;
    };
    let flags = flags.strip_prefix('-')?;
    if !flags.bytes().all(|flag| b"TCKOHRFSIGN".contains(&flag)) {
        return None;
    }
    let outcome = match (*code, *signal) {
        ("-", "-") => ExitOutcome::Unknown,
        (code, "-") => ExitOutcome::Exited(number(code)?.try_into().ok()?),
        (code, signal) => {
            number(code)?;
            ExitOutcome::Signalled(number(signal)?.try_into().ok().filter(|signal| (1..=127).contains(signal))?)
        }
    };
    // Several reasons can be recorded. The first match counts, so the most specific reason comes first.
    let missing = [
        ('H', Missing::Held),
        ('F', Missing::DiskFull),
        ('S', Missing::FileSizeLimit),
        ('R', Missing::ReaderEnded),
        ('I', Missing::Removed),
    ];
    Some(Ended {
        started_by_other: attached(who)?,
        from: offsets(from_out, from_err)?,
        lengths: offsets(out, err)?,
        outcome,
        started_centiseconds: parse_count(started)?,
        ended_centiseconds: parse_count(when)?,
        timed_out: flags.contains('T'),
        over_limit: flags.contains(['C', 'O']),
        was_ended: flags.contains(['T', 'C', 'K']),
        stopped: flags.contains('K'),
        refused_by_sudo: flags.contains('N'),
        missing: missing.into_iter().find_map(|(flag, missing)| flags.contains(flag).then_some(missing)),
        holders: holders(held)?,
        output_removed: flags.contains('G'),
        processes_left: parse_count(left)?,
    })
}

/// Parses the words `COUNT PROCESS:NAME...`. Returns up to [`MAX_HOLDERS`] holders, or an empty list if `held` is
/// empty. COUNT is `-` if the number of holders is unknown.
fn holders(held: &[&str]) -> Option<Vec<Holder>> {
    let [count, named @ ..] = held else { return Some(Vec::new()) };
    parse_count(count)?;
    let holder = |word: &&str| {
        let (process, name) = word.split_once(':')?;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
        let is_name = !name.is_empty() && name.len() <= 15 && is_plain;
        is_name.then_some(Holder { process: number(process)?, name: name.to_owned() })
    };
    named.iter().take(MAX_HOLDERS).map(holder).collect()
}

fn parse_facts(rest: &str) -> Option<LauncherFacts> {
    let mut words = rest.splitn(6, ' ');
    let mut word = || words.next();
    let (boot_id, uptime, directory_id, login_shell_is_posix, ends, directory) =
        (word()?, word()?, word()?, word()?, word()?, word()?);
    let is_id = |text: &str| {
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let usable = directory.starts_with('/') && !directory.contains(char::is_control);
    (is_id(boot_id) && is_id(directory_id) && usable).then_some(())?;
    Some(LauncherFacts {
        boot_id: boot_id.to_owned(),
        uptime_centiseconds: number(uptime)?,
        directory: directory.to_owned(),
        directory_id: directory_id.to_owned(),
        login_shell_is_posix: parse_bool(login_shell_is_posix)?,
        kills_user_processes: parse_bool(ends)?,
    })
}

fn refusal(why: &str) -> Option<RequestRefusal> {
    Some(match why {
        "late" => RequestRefusal::DeadlinePassed,
        "boot" => RequestRefusal::Rebooted,
        "directory" => RequestRefusal::DirectoryUnsuitable,
        "space" => RequestRefusal::DiskFull,
        "files" => RequestRefusal::Files,
        "unwritable" => RequestRefusal::NotWritable,
        "proc" => RequestRefusal::NoProc,
        "clock" => RequestRefusal::NoClock,
        "cut" => RequestRefusal::Cut,
        _ if why.starts_with("said ") => RequestRefusal::Said(sanitize(why.strip_prefix("said ")?)),
        _ => RequestRefusal::MissingTool(why.strip_prefix("tool ").filter(|tool| tool.len() <= 64).map(sanitize)?),
    })
}

fn attached(who: &str) -> Option<bool> {
    match who {
        "S" => Some(false),
        "A" => Some(true),
        _ => None,
    }
}

/// Reads a number. `-` means that the number is unknown.
fn parse_count(text: &str) -> Option<Option<u64>> {
    if text == "-" { Some(None) } else { number(text).map(Some) }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn offsets(stdout: &str, stderr: &str) -> Option<Offsets> {
    Some(Offsets { stdout: number(stdout)?, stderr: number(stderr)? })
}

/// Reads a number that has only digits and fits into 64 bits.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
