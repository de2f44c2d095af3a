//! Scanners for paths: where on the machine a word can lead.

use std::sync::LazyLock;

use super::scanner::{Scanner, is_edge};

/// The directories below the root by which a path is taken for a free one (Filesystem Hierarchy Standard).
pub(in crate::policy) const TOP_DIRECTORIES: &[&str] = &[
    "etc", "home", "root", "var", "srv", "opt", "usr", "proc", "run", "tmp", "dev", "sys", "boot", "bin", "sbin",
    "lib", "mnt",
];

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Absolute {
    /// A path may begin here.
    Start,
    /// Behind the dash of an option: a path may begin behind its letters.
    Dash,
    /// Behind `/`.
    Slash,
    /// In the first segment, which is one of the directories so far; whether the requester chose a part of it.
    Segment(String, bool),
    /// Behind `:`, and behind `:/`: `https://host/` has no directory in it.
    Colon,
    ColonSlash,
    /// In another path.
    Other,
    Found(usize),
}

/// Finds an absolute path to one of [`TOP_DIRECTORIES`], or below it, if the requester chose that directory.
pub(in crate::policy) static ABSOLUTE: LazyLock<Scanner> = LazyLock::new(|| {
    let directory = |name: &str| TOP_DIRECTORIES.iter().position(|directory| *directory == name);
    let begins_one = |name: &str| TOP_DIRECTORIES.iter().any(|directory| directory.starts_with(name));
    let step = move |state: &Absolute, byte: u8, is_free: bool| {
        let other = || match byte {
            b':' => Absolute::Colon,
            b'/' => Absolute::Other,
            byte if is_edge(byte) => Absolute::Start,
            _ => Absolute::Other,
        };
        let slash = |next: Absolute| if byte == b'/' { next } else { other() };
        match state {
            Absolute::Found(what) => Absolute::Found(*what),
            Absolute::Start if byte == b'-' => Absolute::Dash,
            Absolute::Dash if byte.is_ascii_alphanumeric() => Absolute::Dash,
            Absolute::Start | Absolute::Dash => slash(Absolute::Slash),
            Absolute::Colon => slash(Absolute::ColonSlash),
            Absolute::Slash if byte == b'/' => Absolute::Slash,
            Absolute::ColonSlash if byte == b'/' => Absolute::Other,
            Absolute::Slash | Absolute::ColonSlash if begins_one(&char::from(byte).to_string()) => {
                Absolute::Segment(char::from(byte).to_string(), is_free)
            }
            Absolute::Segment(name, was_free) if is_edge(byte) => match directory(name).filter(|_| *was_free) {
                Some(what) => Absolute::Found(what),
                None => other(),
            },
            Absolute::Segment(name, was_free) => {
                let name = format!("{name}{}", char::from(byte));
                if begins_one(&name) { Absolute::Segment(name, *was_free || is_free) } else { Absolute::Other }
            }
            Absolute::Slash | Absolute::ColonSlash | Absolute::Other => other(),
        }
    };
    Scanner::new(Absolute::Start, step, move |state| match state {
        Absolute::Found(what) => Some(*what),
        Absolute::Segment(name, true) => directory(name),
        _ => None,
    })
});

/// How many directories deep a path is followed, so that `..` is known to lead to the root.
const DEPTH: u8 = 9;

/// The folder that the current segment is in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Folder {
    /// A path may begin here; relative, it begins in a home.
    Start,
    /// Behind the dash of an option.
    Dash,
    Root,
    /// `/var`.
    Var,
    /// Where homes are: one directory deeper there is one.
    Homes,
    /// In a home, or in a folder that may be one.
    Home,
    Local,
    State,
    /// Somewhere else, so many directories deep.
    Elsewhere(u8),
    Found,
}

/// Folder, and the segment up to here: the beginning of one of [`names`], or None for any other text.
type Walk = (Folder, Option<String>);

/// The names that lead on from a folder, beside `.` and `..`.
fn names(folder: Folder) -> &'static [&'static str] {
    match folder {
        Folder::Root => &["home", "root", "var", "srv", "opt", "export", "usr"],
        Folder::Var => &["lib"],
        Folder::Start | Folder::Dash | Folder::Home => &[".local"],
        Folder::Local => &["state", ".local"],
        Folder::State => &["writ", ".local"],
        Folder::Homes | Folder::Elsewhere(_) | Folder::Found => &[],
    }
}

fn enter(folder: Folder, name: Option<&str>) -> Folder {
    match (folder, name) {
        (Folder::Start | Folder::Dash, Some("")) => Folder::Root,
        (folder, Some("")) => folder,
        (Folder::Start | Folder::Dash, Some(".")) => Folder::Home,
        (folder, Some(".")) => folder,
        (Folder::State, Some("writ")) | (Folder::Found, _) => Folder::Found,
        (Folder::Local, Some("state")) => Folder::State,
        (Folder::Home | Folder::Local | Folder::State | Folder::Start | Folder::Dash, Some(".local")) => Folder::Local,
        (Folder::Home | Folder::Local | Folder::State | Folder::Start | Folder::Dash, _) => Folder::Home,
        (Folder::Homes | Folder::Var | Folder::Root, Some("..")) | (Folder::Elsewhere(0 | 1), Some("..")) => {
            Folder::Root
        }
        (Folder::Elsewhere(depth), Some("..")) => Folder::Elsewhere(depth - 1),
        (Folder::Elsewhere(depth), _) => Folder::Elsewhere((depth + 1).min(DEPTH)),
        (Folder::Root, Some("root")) => Folder::Home,
        (Folder::Root, Some("home" | "srv" | "opt" | "export" | "usr")) | (Folder::Var, Some("lib")) => Folder::Homes,
        (Folder::Root, Some("var")) => Folder::Var,
        (Folder::Root, _) => Folder::Elsewhere(1),
        (Folder::Var, _) => Folder::Elsewhere(2),
        (Folder::Homes, _) => Folder::Home,
    }
}

/// Finds a path into the launcher's directory, `.local/state/writ` in the home of the login user. Which home that is, is
/// not known here: everything below the usual folders of homes may be one, and a relative path begins in one.
pub(in crate::policy) static LAUNCHER: LazyLock<Scanner> = LazyLock::new(|| {
    let begins_one =
        |folder: Folder, name: &str| [".."].iter().chain(names(folder)).any(|known| known.starts_with(name));
    let start = || (Folder::Start, Some(String::new()));
    let step = move |(folder, name): &Walk, byte: u8, _: bool| -> Walk {
        let is_empty = name.as_deref() == Some("");
        match (folder, byte) {
            (Folder::Found, _) => (Folder::Found, None),
            (_, b'/') => (enter(*folder, name.as_deref()), Some(String::new())),
            (_, byte) if is_edge(byte) => start(),
            (Folder::Start, b'-') if is_empty => (Folder::Dash, Some(String::new())),
            (Folder::Dash, byte) if is_empty && (byte.is_ascii_alphanumeric() || byte == b'-') => {
                (Folder::Dash, Some(String::new()))
            }
            _ => {
                let name = name.as_ref().map(|name| format!("{name}{}", char::from(byte)));
                (*folder, name.filter(|name| begins_one(*folder, name)))
            }
        }
    };
    Scanner::new(start(), step, |(folder, name)| (enter(*folder, name.as_deref()) == Folder::Found).then_some(0))
});
