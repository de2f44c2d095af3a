//! What a machine answers, read from one line each. Whatever the line holds, this ends in an answer or in None.

use super::Uid;

/// Maximum number of processes that are named as holders of an output, `_find_holders` in drain.sh.
pub const MAX_HOLDERS: usize = 8;
/// How much of what a machine says of itself is kept, in characters.
const LONGEST_FACT: usize = 256;

/// What was learned of a machine, by [`super::probe`]. Only for the connection on which it was learned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineFacts {
    /// Another one after each start of the machine.
    pub boot_id: String,
    /// How long ago that was, in hundredths of a second.
    pub uptime_centiseconds: u64,
    /// Where the fences and outputs are: absolute, without symbolic links.
    pub directory: String,
    /// What tells this directory from any other: random, kept in it. At most 128 characters; [`crate::api`] records fewer.
    pub directory_id: String,
    /// Whether the login shell reads the scripts itself (dash or busybox): a shell less to start.
    pub reads_sh: bool,
    /// Whether the machine ends what a login has left behind when its connection is closed (systemd's
    /// KillUserProcesses): a command there does not outlive its connection.
    pub ends_with_session: bool,
}

/// What a machine says of itself, by [`super::facts`]: printable ASCII, at most 256 characters each; empty where it says
/// nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Described {
    /// Another one after each start of the machine.
    pub boot_id: String,
    /// Its name.
    pub hostname: String,
    /// What it is built of.
    pub architecture: String,
    /// The release of its kernel.
    pub kernel: String,
    /// The login user's shell.
    pub shell: String,
    /// Its operating system.
    pub os: String,
}

/// How many bytes of each stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offsets {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

/// What a request was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// To [`super::probe`].
    Probed(MachineFacts),
    /// To [`super::facts`].
    Described(Described),
    /// It runs. To a launch or an attach, its output follows as it comes, and then a second answer: Ended or Lost.
    Running(Running),
    /// It has ended. Its output follows, or has come, up to the lengths; not to a poll, a stop or a close.
    Ended(Ended),
    /// It was started, and how it ended cannot be known; it may still run. What there is of its output follows as
    /// with Ended.
    Lost(Lost),
    /// Nothing is known of it: no request to launch it has come to the fence yet. One still may.
    Absent,
    /// There is a fence but neither a start nor a refusal: it is about to start, or its launcher has died.
    /// [`super::close`] settles which.
    Starting,
    /// It was closed before it started: it did not and never will.
    Tombstoned,
    /// It was launched, did not start, and never will.
    NotStarted(NotStarted),
    /// The request was refused, and has started nothing. Says nothing of other requests.
    Refused(Refusal),
    /// To [`super::stop`]: it was told to end.
    Stopped {
        /// How many of its processes are there all the same. None where that cannot be seen (with `runAs`, under
        /// `hidepid`).
        left: Option<u64>,
    },
    /// To [`super::acknowledge`] and [`super::reap`].
    Done,
    /// To [`super::leftovers`].
    Leftovers(Vec<Uid>),
}

/// An execution that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Running {
    /// Whether another request started it.
    pub attached: bool,
    /// From where on its output follows.
    pub from: Offsets,
    /// When it was started: the machine's uptime, in hundredths of a second. None if its clock could not be read then.
    pub started_centiseconds: Option<u64>,
    /// The machine's uptime now, in the same form.
    pub now_centiseconds: Option<u64>,
    /// The process group, which is the process and the session, too.
    pub process_group: u64,
}

/// An execution that has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Whether another request started it.
    pub attached: bool,
    /// From where on its output follows.
    pub from: Offsets,
    /// How much output there is in all.
    pub lengths: Offsets,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was started: the machine's uptime, in hundredths of a second. None if its clock could not be read then.
    pub started_centiseconds: Option<u64>,
    /// When its own process ended, in the same form. Its output may have gone on.
    pub ended_centiseconds: Option<u64>,
    /// It was ended on the machine because its time was over.
    pub timed_out: bool,
    /// It wrote too much. It was ended for that unless it had ended before.
    pub over_limit: bool,
    /// It was ended, for its time, for its output or by [`super::stop`]; false if it ended by itself.
    pub was_ended: bool,
    /// It was ended by [`super::stop`].
    pub stopped: bool,
    /// sudo wanted a password and did not execute the command: the exit code is that of sudo.
    pub refused_by_sudo: bool,
    /// Why output is missing. None if it is whole as far as the machine knows.
    pub missing: Option<Missing>,
    /// Processes that held the output when the wait for its end was over, at most [`MAX_HOLDERS`] of them.
    pub holders: Vec<Holder>,
    /// The output was acknowledged, and is gone.
    pub output_gone: bool,
    /// Where it was ended: how many of its processes are there all the same. None where nobody could see it or has looked,
    /// as with one that ended by itself.
    pub left: Option<u64>,
}

impl Ended {
    /// Returns true if the machine knows that bytes are missing.
    pub fn output_incomplete(&self) -> bool {
        self.missing.is_some()
    }
}

/// Why output is missing on the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Other processes still held it when the wait for its end was over.
    Held,
    /// The process that writes it to the disk ended early.
    ReaderEnded,
    /// The disk was full.
    DiskFull,
    /// The login has a hard limit on the size of files.
    FileSizeLimit,
    /// The files are shorter than they were.
    Removed,
}

/// A process that held the output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Its number.
    pub process: u64,
    /// Its name: 1 to 15 of letters, digits and `._+-`.
    pub name: String,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// With this exit code, 0 to 255. From 129 on it may have been the signal of this number less 128, where the shell of
    /// the machine does not say so (dash: INT and PIPE).
    Exited(u8),
    /// By this signal, by its number on Linux.
    Signalled(u8),
    /// It was seen to be ended by Writ, and its exit code was not.
    Unknown,
}

/// An execution of which nothing but the start is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lost {
    /// Whether the machine has been started anew since, so that it runs no more.
    pub rebooted: bool,
    /// Whether another request started it.
    pub attached: bool,
    /// From where on its output follows.
    pub from: Offsets,
    /// How much output there is in all; it may grow.
    pub lengths: Offsets,
    /// When it was started: the machine's uptime then, in hundredths of a second. None where that is not known.
    pub started_centiseconds: Option<u64>,
}

/// Why a launch started nothing and never will.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotStarted {
    /// sudo does not allow it.
    Sudo,
    /// sudo refused, and said this: printable ASCII, at most 256 characters.
    SudoSaid(String),
    /// The files for its output could not be made: the disk is full.
    Space,
    /// A file could not be opened: the login's limit of open files is too low.
    Files,
}

/// Why a request was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It came later than the last moment to start.
    Late,
    /// The machine was started anew since the claim.
    OtherBoot,
    /// The directory is not the one of the claim; or, to a probe, cannot be used: it is not there, not the user's own, a
    /// symbolic link, or others may write to it.
    Directory,
    /// The directory is not there and could not be made, and this was said of it: printable ASCII, at most 256 characters.
    Said(String),
    /// The disk is full.
    Space,
    /// A file could not be opened: the login's limit of open files is too low.
    Files,
    /// The directory cannot be written to.
    Unwritable,
    /// The machine has no /proc.
    NoProc,
    /// The machine's /proc/uptime is not readable, or holds an earlier time than it did.
    NoClock,
    /// The request did not arrive whole: something on the machine read a part of it. Nothing of it was evaluated.
    Cut,
    /// The machine has not this program. At most 64 characters.
    NoTool(String),
}

/// What stands behind the mark.
pub(super) enum Line {
    /// An answer, and whether output belongs to it.
    Answer { answer: Answer, bytes: bool },
    /// A frame: `length` bytes of the stream follow, from `offset` on.
    Frame { offset: u64, length: u64 },
    /// Nothing: it confirms what stands before it.
    Nothing,
    /// The end of the stream.
    Last,
}

pub(super) fn read(line: &str) -> Option<Line> {
    match line {
        "+" => return Some(Line::Nothing),
        "." => return Some(Line::Last),
        _ => {}
    }
    if let Some(frame) = line.strip_prefix("C ") {
        let (offset, length) = frame.split_once(' ')?;
        return Some(Line::Frame { offset: number(offset)?, length: number(length)? });
    }
    let (bytes, line) = match line.strip_prefix("p ") {
        Some(polled) => (false, polled),
        None => (true, line),
    };
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let answer = match kind {
        "P" => Answer::Probed(facts(rest)?),
        "F" => Answer::Described(described(rest)?),
        "U" => Answer::Leftovers(rest.split_whitespace().map(Uid::new).collect::<Option<_>>()?),
        "R" => Answer::Refused(refusal(rest)?),
        _ => of_words(kind, &rest.split_whitespace().collect::<Vec<_>>())?,
    };
    Some(Line::Answer { answer, bytes })
}

fn described(rest: &str) -> Option<Described> {
    let mut words = rest.splitn(6, '|').map(presentable);
    Some(Described {
        boot_id: words.next()?,
        hostname: words.next()?,
        architecture: words.next()?,
        kernel: words.next()?,
        shell: words.next()?,
        os: words.next()?.trim_matches('"').to_owned(),
    })
}

/// What may be shown on a terminal and stored in a status.
fn presentable(word: &str) -> String {
    word.trim().chars().filter(|each| matches!(each, ' '..='~')).take(LONGEST_FACT).collect()
}

fn of_words(kind: &str, words: &[&str]) -> Option<Answer> {
    Some(match (kind, words) {
        ("A", [who, out, err, started, now, group]) => Answer::Running(Running {
            attached: attached(who)?,
            from: offsets(out, err)?,
            started_centiseconds: counted(started)?,
            now_centiseconds: counted(now)?,
            process_group: number(group)?,
        }),
        ("D", words) => Answer::Ended(ended(words)?),
        ("L", [who, from_out, from_err, started, out, err, why @ ..]) => Answer::Lost(Lost {
            rebooted: match why {
                [] => false,
                ["boot"] => true,
                _ => return None,
            },
            attached: attached(who)?,
            from: offsets(from_out, from_err)?,
            lengths: offsets(out, err)?,
            started_centiseconds: counted(started)?,
        }),
        ("N", []) => Answer::Absent,
        ("B", []) => Answer::Starting,
        ("V", []) => Answer::Tombstoned,
        ("X", ["sudo"]) => Answer::NotStarted(NotStarted::Sudo),
        ("X", ["said", said @ ..]) if !said.is_empty() => {
            Answer::NotStarted(NotStarted::SudoSaid(presentable(&said.join(" "))))
        }
        ("X", ["space"]) => Answer::NotStarted(NotStarted::Space),
        ("X", ["files"]) => Answer::NotStarted(NotStarted::Files),
        ("K", [left]) => Answer::Stopped { left: counted(left)? },
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
        ("-", "-") => Outcome::Unknown,
        (code, "-") => Outcome::Exited(number(code)?.try_into().ok()?),
        (code, signal) => {
            number(code)?;
            Outcome::Signalled(number(signal)?.try_into().ok().filter(|signal| (1..=127).contains(signal))?)
        }
    };
    // The cause that explains most comes first.
    let missing = [
        ('H', Missing::Held),
        ('F', Missing::DiskFull),
        ('S', Missing::FileSizeLimit),
        ('R', Missing::ReaderEnded),
        ('I', Missing::Removed),
    ];
    Some(Ended {
        attached: attached(who)?,
        from: offsets(from_out, from_err)?,
        lengths: offsets(out, err)?,
        outcome,
        started_centiseconds: counted(started)?,
        ended_centiseconds: counted(when)?,
        timed_out: flags.contains('T'),
        over_limit: flags.contains(['C', 'O']),
        was_ended: flags.contains(['T', 'C', 'K']),
        stopped: flags.contains('K'),
        refused_by_sudo: flags.contains('N'),
        missing: missing.into_iter().find_map(|(flag, missing)| flags.contains(flag).then_some(missing)),
        holders: holders(held)?,
        output_gone: flags.contains('G'),
        left: counted(left)?,
    })
}

/// Their number, then up to [`MAX_HOLDERS`] of them as PROCESS:NAME; `-` if it is not known; nothing if none was looked for.
fn holders(held: &[&str]) -> Option<Vec<Holder>> {
    let [count, named @ ..] = held else { return Some(Vec::new()) };
    counted(count)?;
    let holder = |word: &&str| {
        let (process, name) = word.split_once(':')?;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
        let is_name = !name.is_empty() && name.len() <= 15 && is_plain;
        is_name.then_some(Holder { process: number(process)?, name: name.to_owned() })
    };
    named.iter().take(MAX_HOLDERS).map(holder).collect()
}

fn facts(rest: &str) -> Option<MachineFacts> {
    let mut words = rest.splitn(6, ' ');
    let mut word = || words.next();
    let (boot_id, uptime, directory_id, reads_sh, ends, directory) =
        (word()?, word()?, word()?, word()?, word()?, word()?);
    let is_id = |text: &str| {
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let usable = directory.starts_with('/') && !directory.contains(char::is_control);
    (is_id(boot_id) && is_id(directory_id) && usable).then_some(())?;
    Some(MachineFacts {
        boot_id: boot_id.to_owned(),
        uptime_centiseconds: number(uptime)?,
        directory: directory.to_owned(),
        directory_id: directory_id.to_owned(),
        reads_sh: truth(reads_sh)?,
        ends_with_session: truth(ends)?,
    })
}

fn refusal(why: &str) -> Option<Refusal> {
    Some(match why {
        "late" => Refusal::Late,
        "boot" => Refusal::OtherBoot,
        "directory" => Refusal::Directory,
        "space" => Refusal::Space,
        "files" => Refusal::Files,
        "unwritable" => Refusal::Unwritable,
        "proc" => Refusal::NoProc,
        "clock" => Refusal::NoClock,
        "cut" => Refusal::Cut,
        _ if why.starts_with("said ") => Refusal::Said(presentable(why.strip_prefix("said ")?)),
        _ => Refusal::NoTool(why.strip_prefix("tool ").filter(|tool| tool.len() <= 64).map(presentable)?),
    })
}

fn attached(who: &str) -> Option<bool> {
    match who {
        "S" => Some(false),
        "A" => Some(true),
        _ => None,
    }
}

/// A number, or none.
fn counted(text: &str) -> Option<Option<u64>> {
    if text == "-" { Some(None) } else { number(text).map(Some) }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn offsets(stdout: &str, stderr: &str) -> Option<Offsets> {
    Some(Offsets { stdout: number(stdout)?, stderr: number(stderr)? })
}

/// Digits and nothing else, as far as 64 bits go.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
