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
//! In Direct mode an sh that waits for a permission and prints marks comes before all of it ([`marked_command_line`]). Each of these executes the next in its own place, so that sshd reports the program's own exit code or signal (a shell
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

/// The sh of Direct mode, in three parts. It prints its first two arguments, joined, as the mark that the login shell came so far.
/// Then it reads a line of 32 characters from standard input, passes over others before it, prints the first argument joined
/// with that line, and executes the other arguments with an empty standard input. Without the word it executes nothing. It does not
/// begin if its output is a file or nothing, as nobody would see the mark, or if its input is, as no word could come.
///
/// Done by sh behind the login shell's `exec`. The request holds the parts of the mark apart: whoever prints the request (a forced
/// command, a trace, a shell that refuses it) prints no mark. `TMOUT` would end the wait in bash and ksh; the command gets it back.
const PREPARE: &str = r#"set +aeuvx; unset -f echo read test; unset _n _s _t; _t=$TMOUT; unset TMOUT; : 3<&0; test -f /dev/stdin || test /dev/stdin -ef /dev/null || test -f /dev/stdout || test /dev/stdout -ef /dev/null || { "#;

/// With `runAs`, sudo is asked first whether it allows the command; its third argument is the user, the fourth the number of
/// words before the program. sudo may want a password for this question and none for the command (`listpw`): a mark says so.
const ASK_SUDO: &str = r#"_s=$(_n=$3; shift $(($4 + 4)); export LC_ALL=C @PATH@; exec sudo -n -l -u "$_n" -- "$@" 2>&1 >/dev/null </dev/null) || case $_s in *"password is required"* | *"authentication is required"*) echo "$1:asks" ;; *) echo "$_s" >&2; exit 94 ;; esac; "#;

const WAIT: &str = r#"echo "$1:$2" && while IFS="" read -r _n; do case ${#_n} in 32) test -z "$_t" || export TMOUT="$_t"; exec </dev/null && echo "$1:$_n" && shift @COUNT@ && exec "$@"; exit 93 ;; esac; done; }; exit 93"#;

/// What is sent instead where a variable's name is none. sudo would take it for an option or for the command.
const REFUSAL: &str = r#"echo "writ: an environment variable has a name that is none; nothing was run" >&2; exit 126"#;

/// The text for an exec request. Nothing varies in it but quoted words.
///
/// The policy has checked all that comes in; what is sent is right also where it has not, but for two things that cannot
/// be said: a byte 0, for which sshd drops the connection, and a newline to tcsh. Linux takes at most 128 KiB of text;
/// for more, sshd reports exit code 1, and nothing has run.
pub fn command_line(decision: &DecisionRecord) -> String {
    exec(line_words(decision))
}

/// The same text, which first prints the line `PREFIX:READY`, and executes nothing before it has read a line of 32 characters
/// from standard input. It prints that line as `PREFIX:LINE`: what comes behind that is the command's. A session that did not get
/// the line has not executed the command. All parts hold letters and digits only. No argument holds the line.
///
/// With `runAs`, sudo is asked first. If it refuses, the session ends with exit code 94 and without the first line. If it wants a
/// password for that question, `PREFIX:asks` comes before that line.
pub fn marked_command_line(decision: &DecisionRecord, (prefix, ready): (&str, &str)) -> String {
    let words = line_words(decision);
    let Some(user) = decision.run_as.as_deref() else {
        let script = [PREPARE, &WAIT.replace("@COUNT@", "2")].concat();
        let marked = ["/bin/sh", "-c", &script, "writ", prefix, ready].map(str::to_owned);
        return exec(marked.into_iter().chain(words));
    };
    let script = [PREPARE, &ASK_SUDO.replace("@PATH@", PATH), &WAIT.replace("@COUNT@", "4")].concat();
    let before_program = words.len().saturating_sub(decision.argv.len()).to_string();
    let marked = ["/bin/sh", "-c", &script, "writ", prefix, ready, user, &before_program].map(str::to_owned);
    exec(marked.into_iter().chain(words))
}

/// Variables that are removed from the environment of a session before a command of it starts; for the launcher.
pub fn removed_variables() -> &'static [&'static str] {
    UNSET
}

/// Value of `PATH` for every command; for the launcher.
pub fn command_path() -> &'static str {
    PATH.trim_start_matches("PATH=")
}

/// The words of a decision, for an environment that the launcher has prepared as [`command_line`] does by env: without
/// [`removed_variables`], and with `PATH` and `LC_ALL`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandWords {
    /// The directory to enter first. `None` for the one of the session.
    pub directory: Option<String>,
    /// All words: env with the variables of the rule if it has any, or sudo, then the decided program.
    pub words: Vec<String>,
    /// How many of them come before the decided program.
    pub before_program: usize,
}

/// The words that have the same effect as the text of [`command_line`].
pub fn command_words(decision: &DecisionRecord) -> CommandWords {
    if !has_settable_variables(decision) {
        let words = ["/bin/sh", "-c", REFUSAL].map(str::to_owned).to_vec();
        return CommandWords { directory: None, words, before_program: 0 };
    }
    let mut words = Vec::new();
    // A shell has variables of its own, which it would refuse or act on: so env sets those of the rule.
    if decision.run_as.is_none() && !decision.environment.is_empty() {
        words.push("/usr/bin/env".to_owned());
        words.extend(assignments(decision));
        // env takes a program with a `=` for a variable; sh does not.
        if program(decision).contains('=') {
            words.extend(enter("."));
        }
    }
    words.extend(by_sudo(decision));
    let before_program = words.len();
    words.extend(argv(decision));
    CommandWords { directory: decision.working_directory.as_deref().map(path), words, before_program }
}

/// The words of which [`command_line`] makes a text.
fn line_words(decision: &DecisionRecord) -> Vec<String> {
    if !has_settable_variables(decision) {
        return ["/bin/sh", "-c", REFUSAL].map(str::to_owned).to_vec();
    }
    let mut words = vec!["/usr/bin/env".to_owned()];
    words.extend(UNSET.iter().map(|name| format!("-u{name}")));
    words.extend([PATH, LOCALE].map(str::to_owned));
    if decision.run_as.is_none() {
        words.extend(assignments(decision));
    }
    // What has a `=` env takes for a variable; sh and, behind `--`, sudo do not.
    let stays = (decision.run_as.is_none() && program(decision).contains('=')).then_some(".");
    words.extend(decision.working_directory.as_deref().or(stays).into_iter().flat_map(enter));
    words.extend(by_sudo(decision));
    words.extend(argv(decision));
    words
}

fn has_settable_variables(decision: &DecisionRecord) -> bool {
    decision.environment.keys().all(|name| is_own_name(name))
}

fn assignments(decision: &DecisionRecord) -> impl Iterator<Item = String> {
    decision.environment.iter().map(|(name, value)| format!("{name}={value}"))
}

/// The words by which sh enters a directory and executes the words behind them.
fn enter(directory: &str) -> impl Iterator<Item = String> + use<> {
    ["/bin/sh", "-c", IN_DIRECTORY, "writ"].map(str::to_owned).into_iter().chain([path(directory)])
}

/// The words by which another user executes the words behind them; none without `runAs`.
fn by_sudo(decision: &DecisionRecord) -> Vec<String> {
    let Some(user) = &decision.run_as else { return Vec::new() };
    let mut words = ["sudo", "-n", "-u", user].map(str::to_owned).to_vec();
    // In sudo's own form: of what it inherits, sudo drops nearly all.
    words.extend(assignments(decision));
    words.push("--".to_owned());
    words
}

fn program(decision: &DecisionRecord) -> &str {
    decision.argv.first().map_or("", String::as_str)
}

/// The decided program, as a path, and its arguments.
fn argv(decision: &DecisionRecord) -> impl Iterator<Item = String> {
    [path(program(decision))].into_iter().chain(decision.argv.iter().skip(1).cloned())
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
