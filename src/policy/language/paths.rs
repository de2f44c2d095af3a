//! Scanners for paths in words.

use std::sync::LazyLock;

use super::scanner::{Scanner, is_edge};

/// Directories below the root (Filesystem Hierarchy Standard). If a requester can choose several of these directories,
/// lint assumes that the requester can choose any path.
pub(in crate::policy) const TOP_DIRECTORIES: &[&str] = &[
    "etc", "home", "root", "var", "srv", "opt", "usr", "proc", "run", "tmp", "dev", "sys", "boot", "bin", "sbin",
    "lib", "mnt",
];

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Absolute {
    /// At a position where a path can begin.
    Start,
    /// After the dash or a letter of an option. A path can begin after the letters.
    Dash,
    /// After `/`.
    Slash,
    /// In the first segment of a path. The text so far is a prefix of one of [`TOP_DIRECTORIES`]. The flag is true if
    /// the requester chose a part of the text.
    Segment(String, bool),
    /// After `:`. `Colon` and `ColonSlash` (after `:/`) exclude URLs: the host in `https://host/` is not a directory.
    Colon,
    ColonSlash,
    /// In a text that is not a path to one of [`TOP_DIRECTORIES`], until a separator ends the text.
    Other,
    Found(usize),
}

/// Finds an absolute path to one of [`TOP_DIRECTORIES`] or below it, if the requester chose at least a part of the
/// directory's name.
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

/// Maximum depth of directories that the scanner counts. The depth shows if `..` segments lead back to the root.
const DEPTH: u8 = 9;

/// Directory that contains the current segment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Folder {
    /// Beginning of a path. A relative path begins in a home directory.
    Start,
    /// After the dash of an option.
    Dash,
    Root,
    /// Directory `/var`.
    Var,
    /// Directory that contains home directories, for example `/home`.
    Homes,
    /// Directory that is a home directory or can be a home directory.
    Home,
    Local,
    State,
    /// Another directory, with its depth.
    Elsewhere(u8),
    Found,
}

/// Directory, and the text of the current segment so far. The text is `None` if the segment can become neither `..` nor
/// one of [`names`].
type Walk = (Folder, Option<String>);

/// Returns the names that the scanner must recognise in a directory, in addition to `.` and `..`.
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

/// Finds a path into the launcher's directory, `.local/state/writ` in the home directory of the login user. A relative
/// path begins in the home directory.
///
/// The scanner does not know the home directory. Each directory in a usual place of home directories therefore counts
/// as the home directory.
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
