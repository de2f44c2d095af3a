//! The one place where a decision becomes text.
//!
//! The promise kept here: **the machine gets exactly the words that were decided.** sshd runs `$SHELL -c "<text>"`, so the
//! text must be read the same by every login shell. All that is asked of that shell is `exec` and quoted words; the
//! environment, the directory and the user are the business of what it executes:
//!
//! ```text
//! exec '/usr/bin/env' '-uLD_PRELOAD' ... 'PATH=...' 'LC_ALL=C' 'NAME=value'...
//!     ['/bin/sh' '-c' 'cd "$1" || exit 126; shift; exec "$@"' 'writ' 'DIRECTORY']
//!     ['sudo' '-n' '-u' 'USER' 'NAME=value'... '--']
//!     'PROGRAM' 'argument'...
//! ```
//!
//! Each of these executes the next in its own place, so that sshd reports the program's own exit code or signal (a shell
//! in between would turn signal 15 into exit code 143); sudo alone may stay, and ends as its program does. `docs/design/20261121-what-the-machine-reads.md` says why so.

use crate::api::execution_status::DecisionRecord;

/// Where the program finds other programs by name. The same that sudo's `secure_path` is on Debian.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// C and not C.UTF-8, which not every system has: bash and perl then write warnings, which would be recorded as the
/// command's own standard error.
const LOCALE: &str = "LC_ALL=C";

/// What is taken out of the environment of the session: LANGUAGE, which glibc minds where a rule sets another locale, and
/// what makes a loader, a shell or an interpreter load or run something else: of the names that sudo takes for bad, those
/// that do so on Linux, and a few of the same kind. Where a machine's own sshd or startup file sets one of these, the
/// login shell still sees it, the command does not.
const UNSET: &[&str] = &[
    "LANGUAGE",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "GCONV_PATH",
    "BASHOPTS",
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "FPATH",
    "GLOBIGNORE",
    "IFS",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
    "JAVA_TOOL_OPTIONS",
    "NODE_OPTIONS",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "RUBYLIB",
    "RUBYOPT",
];

/// Enters its first argument and executes the others. Done by sh, not by the login shell: after a `cd` that failed tcsh
/// goes on (tried with 6.24), and a `cd` of somebody's startup file may do anything.
const IN_DIRECTORY: &str = r#"cd "$1" || exit 126; shift; exec "$@""#;

/// What is sent instead where a variable's name is none. sudo would take it for an option or for the command.
const REFUSAL: &str = r#"echo "writ: an environment variable has a name that is none; nothing was run" >&2; exit 126"#;

/// The text for an exec request. Nothing varies in it but quoted words.
///
/// The policy has checked all that comes in; what is sent is right also where it has not, but for two things that cannot
/// be said: a byte 0, for which sshd drops the connection, and a newline to tcsh. Linux takes at most 128 KiB of text;
/// for more, sshd reports exit code 1, and nothing has run.
pub fn command_line(decision: &DecisionRecord) -> String {
    exec(command_words(decision, None).words)
}

/// What is executed for a decision, word for word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandWords {
    /// All words, from the program that sets the environment on.
    pub words: Vec<String>,
    /// How many of them come before the decided program.
    pub before_program: usize,
}

/// The words of which [`command_line`] makes a text; with a mark, which is `NAME=value`, in the environment of what is
/// executed (with `runAs`: of sudo, which does not pass it on).
pub fn command_words(decision: &DecisionRecord, mark: Option<&str>) -> CommandWords {
    if !decision.environment.keys().all(|name| is_own_name(name)) {
        return CommandWords { words: ["/bin/sh", "-c", REFUSAL].map(str::to_owned).to_vec(), before_program: 0 };
    }
    let (program, arguments) = match decision.argv.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", [].as_slice()),
    };
    let variables = || decision.environment.iter().map(|(name, value)| format!("{name}={value}"));

    let mut words = vec!["/usr/bin/env".to_owned()];
    words.extend(UNSET.iter().map(|name| format!("-u{name}")));
    words.extend([PATH, LOCALE].map(str::to_owned));
    if decision.run_as.is_none() {
        words.extend(variables());
    }
    words.extend(mark.map(str::to_owned));
    // What has a `=` env takes for a variable; sh and, behind `--`, sudo do not.
    let stays = (decision.run_as.is_none() && program.contains('=')).then_some(".");
    if let Some(directory) = decision.working_directory.as_deref().or(stays) {
        words.extend(["/bin/sh", "-c", IN_DIRECTORY, "writ"].map(str::to_owned));
        words.push(path(directory));
    }
    if let Some(user) = &decision.run_as {
        words.extend(["sudo", "-n", "-u", user].map(str::to_owned));
        // In sudo's own form: of what it inherits, sudo drops nearly all.
        words.extend(variables());
        words.push("--".to_owned());
    }
    let before_program = words.len();
    words.push(path(program));
    words.extend_from_slice(arguments);
    CommandWords { words, before_program }
}

/// Whether this is the name of a variable that a rule may set. PATH is no rule's: with it, the program would find others.
fn is_own_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts && name != "PATH" && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A path that can be taken neither for an option nor for a name to be searched for.
fn path(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { format!("./{text}") }
}

fn exec(words: impl IntoIterator<Item = String>) -> String {
    let mut line = String::from("exec");
    for word in words {
        line.push(' ');
        quote(&mut line, &word);
    }
    line
}

/// A word in single quotes, but for three characters that stand between them with a backslash each, which means the
/// character itself in every shell: `'` ends the quotes, fish minds `\` in them, and tcsh `!`.
pub fn quote(line: &mut String, word: &str) {
    line.push('\'');
    for character in word.chars() {
        match character {
            '\'' | '\\' | '!' => line.extend(['\'', '\\', character, '\'']),
            _ => line.push(character),
        }
    }
    line.push('\'');
}

#[cfg(test)]
mod tests;
