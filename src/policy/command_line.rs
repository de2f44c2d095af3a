//! Builds the text of the exec request for a decision. No other code builds such a text.
//!
//! # Guarantees
//! **The machine gets exactly the decided words.** sshd runs `$SHELL -c "<text>"`, so every login shell must read the
//! text in the same way. The text consists of `exec` and quoted words:
//!
//! ```text
//! exec '/usr/bin/env' '-uLD_PRELOAD' ... 'PATH=...' 'LC_ALL=C' 'NAME=value'...
//!     ['/bin/sh' '-c' 'cd "$1" || exit 126; shift; exec "$@"' 'writ' 'DIRECTORY']
//!     ['sudo' '-n' '-u' 'USER' 'NAME=value'... '--']
//!     'PROGRAM' 'argument'...
//! ```
//!
//! In Direct mode, an sh script comes before these words. The script executes the words only after it has received a
//! line from Writ (see [`marked_command_line`]).
//!
//! Each program replaces itself with the next program. sshd therefore reports the exit code or the signal of the
//! command itself. Only sudo can stay as a separate process. sudo then ends in the same way as the command.
//! `docs/design/20261121-what-the-machine-reads.md` has the reasons.

use crate::api::execution_status::DecisionRecord;

/// Search path of the command: the same as sudo's `secure_path` on Debian.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Locale of the command. Every system has the locale C. If a system lacks the set locale, bash and perl write warnings
/// to the standard error of the command.
const LOCALE: &str = "LC_ALL=C";

/// Variables that are removed from the environment of the session:
///
/// - LANGUAGE, which glibc reads if a rule sets another locale.
/// - Variables that make a loader, a shell or an interpreter load or run something else. Most of them are from sudo's
///   list of bad variables.
///
/// Only the command loses these variables. The login shell of the session keeps them.
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

/// Script that enters the directory in its first argument and executes the other arguments. sh runs this script,
/// because `cd` of a login shell is not reliable: tcsh continues after a failed `cd` (tried with 6.24), and a startup
/// file can replace `cd`.
const CHDIR_SCRIPT: &str = r#"cd "$1" || exit 126; shift; exec "$@""#;

/// First part of the script of Direct mode. Two terms:
///
/// - A *mark* is a line with which the script reports a step to Writ.
/// - The *permission* is a line of 32 characters that Writ sends. Before the permission, the script does not execute
///   the command.
///
/// If the input of the script is a file or /dev/null, no permission can arrive. If the output is a file or /dev/null,
/// Writ receives no mark. In both cases, the script ends.
///
/// In bash and ksh, `TMOUT` would end the wait for the permission. The script therefore unsets `TMOUT`. [`WAIT`]
/// restores `TMOUT` for the command.
const PREPARE: &str = r#"set +aeuvx; unset -f echo read test; unset _n _s _t; _t=$TMOUT; unset TMOUT; : 3<&0; test -f /dev/stdin || test /dev/stdin -ef /dev/null || test -f /dev/stdout || test /dev/stdout -ef /dev/null || { "#;

/// Second part of the script, only with `runAs`. `sudo -l` checks that sudo allows the command. Argument 3 of the
/// script is the user. Argument 4 is the number of words before the program.
///
/// If sudo requires a password only for this check (`listpw`), the script prints a mark and continues.
const ASK_SUDO: &str = r#"_s=$(_n=$3; shift $(($4 + 4)); export LC_ALL=C @PATH@; exec sudo -n -l -u "$_n" -- "$@" 2>&1 >/dev/null </dev/null) || case $_s in *"password is required"* | *"authentication is required"*) echo "$1:asks" ;; *) echo "$_s" >&2; exit 94 ;; esac; "#;
/// Last part of the script of Direct mode ([`PREPARE`] explains the terms):
///
/// 1. The script prints a mark: its first two arguments, joined with a colon. The mark reports that the login shell has
///    started the script.
/// 2. The script reads lines from standard input until it reads the permission.
/// 3. The script prepares the standard input of the command (see [`StandardInput`]), prints the first argument joined
///    with the permission, and executes the command.
///
/// The request contains the two parts of the mark as separate words. If a program only prints the request (a forced
/// command, a trace, a shell that refuses the request), its output therefore contains no mark.
const WAIT: &str = r#"echo "$1:$2" && while IFS="" read -r _n; do case ${#_n} in 32) test -z "$_t" || export TMOUT="$_t"; @INPUT@echo "$1:$_n" && shift @COUNT@ && exec "$@"; exit 93 ;; esac; done; }; exit 93"#;

/// Standard input of a command in Direct mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StandardInput {
    /// Empty.
    Empty,
    /// The bytes after the permission.
    Client,
    /// The bytes after the permission, through a terminal without echo. The script switches the echo on, so that the
    /// terminal does not show the permission.
    Terminal,
}

impl StandardInput {
    /// Returns the part of [`WAIT`] that prepares the standard input.
    fn script(self) -> String {
        match self {
            Self::Empty => "exec </dev/null && ".to_owned(),
            Self::Client => String::new(),
            // Without stty, the client sees no echo. The command runs nevertheless.
            Self::Terminal => format!("{PATH} stty echo 2>/dev/null; "),
        }
    }
}

/// Script that Writ sends instead of a command with an invalid variable name. sudo would read such a name as an option
/// or as the command.
const INVALID_VARIABLE_COMMAND: &str =
    r#"echo "writ: an environment variable has an invalid name; nothing was run" >&2; exit 126"#;

/// Returns the text for an exec request. Only the quoted words in the text depend on the decision.
///
/// # Caveats
/// - The text is correct for all words, with two exceptions: for a byte 0, sshd closes the connection, and tcsh
///   misreads a newline. The policy admits no such words.
/// - Linux accepts at most 128 KiB of text. For a longer text, sshd reports exit code 1, and nothing runs.
pub fn command_line(decision: &DecisionRecord) -> String {
    exec(line_words(decision))
}

/// Returns the text for an exec request in Direct mode: a script, followed by the text of [`command_line`]. The script
/// waits for a permission: `LINE`, a line of 32 characters that Writ sends. `PREFIX` and `READY` are the arguments
/// `prefix` and `ready`.
///
/// 1. The script prints the line `PREFIX:READY`.
/// 2. The script reads `LINE` from standard input. Before it has read `LINE`, it executes nothing.
/// 3. The script prints `PREFIX:LINE` and executes the command with the given standard input. All later output comes
///    from the command.
///
/// `PREFIX`, `READY` and `LINE` consist of letters and digits. No argument of the script contains `LINE`.
///
/// With `runAs`, `sudo -l` checks the command before step 1:
///
/// - If sudo refuses the command, the script ends with exit code 94 and prints no `PREFIX:READY`.
/// - If sudo requires a password for this check, the script prints the line `PREFIX:asks` and continues.
pub fn marked_command_line(decision: &DecisionRecord, (prefix, ready): (&str, &str), input: StandardInput) -> String {
    let words = line_words(decision);
    let wait = WAIT.replace("@INPUT@", &input.script());
    let Some(user) = decision.run_as.as_deref() else {
        let script = [PREPARE, &wait.replace("@COUNT@", "2")].concat();
        let marked = ["/bin/sh", "-c", &script, "writ", prefix, ready].map(str::to_owned);
        return exec(marked.into_iter().chain(words));
    };
    let script = [PREPARE, &ASK_SUDO.replace("@PATH@", PATH), &wait.replace("@COUNT@", "4")].concat();
    let before_program = words.len().saturating_sub(decision.argv.len()).to_string();
    let marked = ["/bin/sh", "-c", &script, "writ", prefix, ready, user, &before_program].map(str::to_owned);
    exec(marked.into_iter().chain(words))
}

/// Returns the variables that the launcher removes from the environment before it starts a command.
pub fn removed_variables() -> &'static [&'static str] {
    UNSET
}

/// Returns the search path of every command. The launcher sets it as `PATH`.
pub fn command_path() -> &'static str {
    PATH.trim_start_matches("PATH=")
}

/// Words that the launcher executes for a decision. The launcher itself removes [`removed_variables`] from the
/// environment, and sets `PATH` and `LC_ALL`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandWords {
    /// Directory to enter before the words are executed. `None` keeps the directory of the session.
    pub directory: Option<String>,
    /// Words of env or sudo, if the decision needs them, then the words of the decided program.
    pub words: Vec<String>,
    /// Number of words before the decided program.
    pub before_program: usize,
}

/// Returns words with the same effect as the text of [`command_line`].
pub fn command_words(decision: &DecisionRecord) -> CommandWords {
    if !has_settable_variables(decision) {
        let words = ["/bin/sh", "-c", INVALID_VARIABLE_COMMAND].map(str::to_owned).to_vec();
        return CommandWords { directory: None, words, before_program: 0 };
    }
    let mut words = Vec::new();
    // env sets the variables of the rule. A shell would refuse some variables, and would read others as its own
    // settings.
    if decision.run_as.is_none() && !decision.environment.is_empty() {
        words.push("/usr/bin/env".to_owned());
        words.extend(assignments(decision));
        // If the path of the program contains `=`, env would read the path as a variable. sh therefore executes the
        // program.
        if program(decision).contains('=') {
            words.extend(enter("."));
        }
    }
    words.extend(by_sudo(decision));
    let before_program = words.len();
    words.extend(argv(decision));
    CommandWords { directory: decision.working_directory.as_deref().map(path), words, before_program }
}

/// Returns the words for the text of [`command_line`].
fn line_words(decision: &DecisionRecord) -> Vec<String> {
    if !has_settable_variables(decision) {
        return ["/bin/sh", "-c", INVALID_VARIABLE_COMMAND].map(str::to_owned).to_vec();
    }
    let mut words = vec!["/usr/bin/env".to_owned()];
    words.extend(UNSET.iter().map(|name| format!("-u{name}")));
    words.extend([PATH, LOCALE].map(str::to_owned));
    if decision.run_as.is_none() {
        words.extend(assignments(decision));
    }
    // If the path of the program contains `=`, env would read the path as a variable. sh therefore executes the
    // program. With `runAs`, sudo executes the program. After `--`, sudo reads no variables.
    let stays = (decision.run_as.is_none() && program(decision).contains('=')).then_some(".");
    words.extend(decision.working_directory.as_deref().or(stays).into_iter().flat_map(enter));
    words.extend(by_sudo(decision));
    words.extend(argv(decision));
    words
}

fn has_settable_variables(decision: &DecisionRecord) -> bool {
    decision.environment.keys().all(|name| is_settable_variable(name))
}

fn assignments(decision: &DecisionRecord) -> impl Iterator<Item = String> {
    decision.environment.iter().map(|(name, value)| format!("{name}={value}"))
}

/// Returns words to put before a command. With these words, sh enters `directory` and then executes the command.
fn enter(directory: &str) -> impl Iterator<Item = String> + use<> {
    ["/bin/sh", "-c", CHDIR_SCRIPT, "writ"].map(str::to_owned).into_iter().chain([path(directory)])
}

/// Returns the words of sudo that come before the program, if the decision has `runAs`. Otherwise returns no words.
fn by_sudo(decision: &DecisionRecord) -> Vec<String> {
    let Some(user) = &decision.run_as else { return Vec::new() };
    let mut words = ["sudo", "-n", "-u", user].map(str::to_owned).to_vec();
    // The variables are arguments of sudo, because sudo removes nearly all inherited variables.
    words.extend(assignments(decision));
    words.push("--".to_owned());
    words
}

fn program(decision: &DecisionRecord) -> &str {
    decision.argv.first().map_or("", String::as_str)
}

/// Returns the decided program, as a path, and its arguments.
fn argv(decision: &DecisionRecord) -> impl Iterator<Item = String> {
    [path(program(decision))].into_iter().chain(decision.argv.iter().skip(1).cloned())
}

/// Returns true if a rule may set the variable. No rule may set `PATH`, because `PATH` decides which programs the
/// command finds.
fn is_settable_variable(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts && name != "PATH" && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns `text` as a path that no program reads as an option and that no shell searches in `PATH`.
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

/// Appends a word in single quotes. `'`, `\` and `!` are written outside of the quotes, after a backslash. Inside the
/// quotes, fish would interpret `\`, and tcsh would interpret `!`.
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
