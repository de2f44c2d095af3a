//! Describes programs on machines: their names, options, arguments and environment variables. Pure.
//!
//! This module also finds the commands that launchers such as `sudo` start, and the programs that give a shell.
//! [`policy`](crate::policy) uses this module to check rules of Whitelists and to match Deny rules.

pub(crate) mod environment;
pub(crate) mod flags;
pub(crate) mod launchers;
mod names;
pub(crate) mod shells;
pub(crate) mod table;

/// Maximum number of words in an argument vector.
pub(crate) const MAXIMUM_WORDS: usize = 64;

/// Returns the name of a program without its directory.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns true if a path is absolute and has no empty segment, no `.` and no `..`. Such a path has only one spelling.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let mut parts = path.split('/');
    path.len() > 1 && parts.next() == Some("") && parts.all(|part| !matches!(part, "" | "." | ".."))
}
