//! The scripts as they are sent: put together, without comments and indentation, with short names.
//!
//! They are written to be read, and reviewed, in `src/launcher/*.sh`. The changes made to them here cannot change their
//! meaning; the tests run only the results.

use std::sync::OnceLock;

use crate::policy::{command_path, removed_variables};

/// The largest number that is given to a script: sh computes with 64 bits and a sign.
pub const LARGEST_NUMBER: u64 = 1 << 62;

const BOOTSTRAP: &str = include_str!("bootstrap.sh");
const SESSION: &str = include_str!("session.sh");
const JOURNAL: &str = include_str!("journal.sh");
const PROCESSES: &str = include_str!("processes.sh");
const SEND: &str = include_str!("send.sh");
const FOLLOW: &str = include_str!("follow.sh");
const ATTACH: &str = include_str!("attach.sh");
const END: &str = include_str!("end.sh");
const DRAIN: &str = include_str!("drain.sh");
const WATCH: &str = include_str!("watch.sh");

/// Programs and builtins of the scripts. A login may export functions of these names to bash, which would run instead.
const COMMANDS: &[&str] = &[
    "break", "cat", "cd", "chmod", "command", "continue", "dd", "echo", "env", "eval", "exec", "exit", "export",
    "false", "find", "getent", "grep", "kill", "loginctl", "ls", "mkdir", "mkfifo", "printf", "pwd", "read",
    "readlink", "return", "rm", "set", "setsid", "shift", "sleep", "sudo", "test", "tr", "trap", "true", "ulimit",
    "umask", "uname", "unset", "wait", "wc",
];

/// A script that is made once.
macro_rules! script {
    ($(#[$documentation:meta])* $name:ident: $($part:expr),+) => {
        $(#[$documentation])*
        pub fn $name() -> &'static str {
            static SCRIPT: OnceLock<String> = OnceLock::new();
            SCRIPT.get_or_init(|| finish(&fill(&strip(&[$($part),+].concat()))))
        }
    };
}

script!(
    /// [`super::probe`].
    probe: SESSION, include_str!("probe.sh")
);
script!(
    /// [`super::facts`].
    facts: SESSION, include_str!("facts.sh")
);
script!(
    /// [`super::launch`].
    launch: SESSION, JOURNAL, SEND, include_str!("output.sh"), include_str!("launch.sh")
);
script!(
    /// [`super::attach`] and [`super::poll`].
    attach: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, include_str!("tell.sh")
);
script!(
    /// [`super::stop`].
    stop: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, END, include_str!("stop.sh")
);
script!(
    /// [`super::close`].
    close: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, include_str!("close.sh")
);
script!(
    /// [`super::acknowledge`], [`super::reap`] and [`super::leftovers`].
    files: SESSION, JOURNAL, PROCESSES, include_str!("files.sh")
);

/// The text of every exec request: one line.
pub fn bootstrap() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(|| strip(BOOTSTRAP).trim_end().replace('\n', " "))
}

/// Without comments, which have lines of their own, indentation and empty lines.
fn strip(source: &str) -> String {
    let lines = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Puts in the names and values that have another owner.
fn fill(script: &str) -> String {
    let removed = removed_variables().iter().filter(|name| !matches!(**name, "SHELLOPTS" | "BASHOPTS"));
    script
        .replace("@LATER@", &strip(&[PROCESSES, FOLLOW, ATTACH, END, DRAIN, WATCH].concat()))
        .replace("@COMMANDS@", &COMMANDS.join(" "))
        .replace("@VARIABLES@", &removed.copied().collect::<Vec<_>>().join(" "))
        .replace("@PATH@", command_path())
}

/// Gives the variables and functions whose names start with `_` and have two letters or more a name of one or two letters,
/// in the order in which they come, and returns how many: each kilobyte of a script costs the machine some 0.02 ms. Names of one letter are those
/// of the bootstrap, and stay.
fn shorten(script: &str) -> (String, usize) {
    let mut names: Vec<&str> = Vec::new();
    let mut short = String::with_capacity(script.len());
    let mut rest = script;
    let mut is_inside = false;
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|each: char| !is_of_name(each)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        if !is_inside && name.starts_with('_') && name.len() > 2 {
            let number = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            short.push_str(&short_name(number));
            rest = after;
        } else {
            short.push(first);
            is_inside = is_of_name(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    (short, names.len())
}

/// With short names, all of which are unset at the start.
fn finish(script: &str) -> String {
    let (short, count) = shorten(script);
    short.replace("@OWN@", &(0..count).map(short_name).collect::<Vec<_>>().join(" "))
}

fn is_of_name(each: char) -> bool {
    each.is_ascii_alphanumeric() || each == '_'
}

/// `_A` to `_Z`, then `_aa`, `_ab` and so on.
fn short_name(number: usize) -> String {
    let letter = |first: u8, index: usize| char::from(first + u8::try_from(index % 26).unwrap_or(0));
    match number.checked_sub(26) {
        None => format!("_{}", letter(b'A', number)),
        Some(number) => format!("_{}{}", letter(b'a', number / 26), letter(b'a', number)),
    }
}

#[cfg(test)]
mod tests;
