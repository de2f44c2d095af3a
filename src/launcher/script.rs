//! Builds the scripts from `src/launcher/*.sh`: removes comments and indentation, and shortens names. The tests run
//! only the resulting scripts, which must have the same meaning as the sources.

use std::sync::OnceLock;

use crate::policy::{command_path, removed_variables};

/// Largest number that an argument of a script may contain. sh computes with signed 64-bit numbers.
pub const MAX_NUMBER: u64 = 1 << 62;

const BOOTSTRAP: &str = include_str!("bootstrap.sh");
const SESSION: &str = include_str!("session.sh");
const JOURNAL: &str = include_str!("journal.sh");
const PROCESSES: &str = include_str!("processes.sh");
const SEND: &str = include_str!("send.sh");
const FOLLOW: &str = include_str!("follow.sh");
const ATTACH: &str = include_str!("attach.sh");
const TERMINATE: &str = include_str!("terminate.sh");
const DRAIN: &str = include_str!("drain.sh");
const WATCH: &str = include_str!("watch.sh");

/// Programs and builtins that the scripts use. The scripts unset functions with these names, because bash would run
/// functions that the login has exported.
const COMMANDS: &[&str] = &[
    "break", "cat", "cd", "chmod", "command", "continue", "dd", "echo", "env", "eval", "exec", "exit", "export",
    "false", "find", "getent", "grep", "kill", "loginctl", "ls", "mkdir", "mkfifo", "printf", "pwd", "read",
    "readlink", "return", "rm", "set", "setsid", "shift", "sleep", "sudo", "test", "tr", "trap", "true", "ulimit",
    "umask", "uname", "unset", "wait", "wc",
];

/// Defines a script that is built once.
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
    /// Script of [`super::inspect`].
    inspect: SESSION, include_str!("inspect.sh")
);
script!(
    /// Script of [`super::system_info`].
    system_info: SESSION, include_str!("system_info.sh")
);
script!(
    /// Script of [`super::launch`].
    launch: SESSION, JOURNAL, SEND, include_str!("output.sh"), include_str!("launch.sh")
);
script!(
    /// Script of [`super::attach`] and [`super::poll`].
    attach: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, include_str!("report.sh")
);
script!(
    /// Script of [`super::stop`].
    stop: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, TERMINATE, include_str!("stop.sh")
);
script!(
    /// Script of [`super::close`].
    close: SESSION, JOURNAL, PROCESSES, SEND, FOLLOW, ATTACH, include_str!("close.sh")
);
script!(
    /// Script of [`super::acknowledge`], [`super::prune`] and [`super::unacknowledged`].
    cleanup: SESSION, JOURNAL, PROCESSES, include_str!("cleanup.sh")
);

/// Returns the program that is the text of every exec request, as one line.
pub fn bootstrap() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(|| strip(BOOTSTRAP).trim_end().replace('\n', " "))
}

/// Removes comment lines, indentation and empty lines.
fn strip(source: &str) -> String {
    let lines = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Inserts the names and values that other modules define.
fn fill(script: &str) -> String {
    let removed = removed_variables().iter().filter(|name| !matches!(**name, "SHELLOPTS" | "BASHOPTS"));
    script
        .replace("@LATER@", &strip(&[PROCESSES, FOLLOW, ATTACH, TERMINATE, DRAIN, WATCH].concat()))
        .replace("@COMMANDS@", &COMMANDS.join(" "))
        .replace("@VARIABLES@", &removed.copied().collect::<Vec<_>>().join(" "))
        .replace("@PATH@", command_path())
}

/// Shortens the names of variables and functions, because the machine needs about 0.02 ms for each kilobyte of a
/// script. Changes names that consist of `_` and at least two letters. Names that consist of `_` and one lower-case
/// letter belong to the bootstrap, and stay unchanged. Returns the script and the number of changed names, see
/// [`short_name`].
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

/// Shortens the names. The resulting script unsets all short names at its start.
fn finish(script: &str) -> String {
    let (short, count) = shorten(script);
    short.replace("@OWN@", &(0..count).map(short_name).collect::<Vec<_>>().join(" "))
}

fn is_of_name(each: char) -> bool {
    each.is_ascii_alphanumeric() || each == '_'
}

/// Returns the name with this number: `_A` to `_Z`, then `_aa`, `_ab` and so on.
fn short_name(number: usize) -> String {
    let letter = |first: u8, index: usize| char::from(first + u8::try_from(index % 26).unwrap_or(0));
    match number.checked_sub(26) {
        None => format!("_{}", letter(b'A', number)),
        Some(number) => format!("_{}{}", letter(b'a', number / 26), letter(b'a', number)),
    }
}

#[cfg(test)]
mod tests;
