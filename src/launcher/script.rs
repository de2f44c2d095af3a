//! The scripts as they are sent: put together, without comments and indentation, in one line, with short names.
//!
//! They are written to be read, and reviewed, in `src/launcher/*.sh`. What is done to them here is so little that it
//! cannot change their meaning; the tests run only what comes out.

use std::fmt::Write as _;
use std::sync::OnceLock;

/// The largest number that is given to a script: sh computes with 64 bits and a sign.
pub const LARGEST_NUMBER: u64 = 1 << 62;

const COMMON: &str = include_str!("common.sh");
const FOLLOW: &str = include_str!("follow.sh");
const ATTACH: &str = include_str!("attach.sh");
const END: &str = include_str!("end.sh");

/// A script that is made once.
macro_rules! script {
    ($(#[$documentation:meta])* $name:ident: $($part:expr),+) => {
        $(#[$documentation])*
        pub fn $name() -> String {
            static SCRIPT: OnceLock<String> = OnceLock::new();
            SCRIPT.get_or_init(|| shorten(&strip(&[$($part),+].concat()))).clone()
        }
    };
}

script!(
    /// [`super::probe`].
    probe: include_str!("probe.sh")
);
script!(
    /// [`super::facts`].
    facts: include_str!("facts.sh")
);
script!(
    /// [`super::launch`].
    launch: COMMON, FOLLOW, ATTACH, END, include_str!("launch.sh")
);
script!(
    /// [`super::attach`] and [`super::poll`].
    attach: COMMON, FOLLOW, ATTACH, include_str!("tell.sh")
);
script!(
    /// [`super::stop`].
    stop: COMMON, FOLLOW, ATTACH, END, include_str!("stop.sh")
);
script!(
    /// [`super::close`].
    close: COMMON, FOLLOW, ATTACH, include_str!("close.sh")
);
script!(
    /// [`super::acknowledge`], [`super::reap`] and [`super::leftovers`].
    files: COMMON, include_str!("files.sh")
);

/// One line: without comments, which have lines of their own, indentation and empty lines. A line that does not end in
/// something that goes on gets a `;`. The scripts have no here-documents, no words over several lines, and no pattern of
/// `case` alone on its line.
fn strip(source: &str) -> String {
    let mut script = String::new();
    for line in source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if !script.is_empty() {
            script.push(' ');
        }
        script.push_str(line);
        let goes_on = ["{", "(", ";;", "&", "|"].iter().any(|end| line.ends_with(end))
            || ["then", "do", "else", "in"].iter().any(|word| line.split_whitespace().next_back() == Some(word));
        if !goes_on {
            // tcsh takes a `!` for history, but not before a blank or a `=`.
            script.push_str(if line.ends_with('!') { " ;" } else { ";" });
        }
    }
    script
}

/// Gives the variables, whose names all start with `_` and a lower-case letter, names of one or two letters, in the
/// order in which they come: room for arguments in the request.
fn shorten(script: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut short = String::with_capacity(script.len());
    let mut rest = script;
    let mut inside = false;
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|each: char| !is_of_name(each)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        if !inside && name.starts_with('_') && name.len() > 1 {
            let number = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            short.push('_');
            push_letters(&mut short, number);
            rest = after;
        } else {
            short.push(first);
            inside = is_of_name(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    short
}

fn is_of_name(each: char) -> bool {
    each.is_ascii_alphanumeric() || each == '_'
}

/// A number in letters, as columns of a table have it: a to z, aa, ab ...
fn push_letters(text: &mut String, number: usize) {
    if let Some(higher) = (number / 26).checked_sub(1) {
        push_letters(text, higher);
    }
    let letter = u8::try_from(number % 26).map_or('a', |letter| char::from(b'a' + letter));
    let _ = text.write_char(letter);
}

#[cfg(test)]
mod tests;
