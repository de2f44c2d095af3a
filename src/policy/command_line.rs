//! The one place where an argument vector becomes text.
//!
//! sshd runs `$SHELL -c "<text>"`, so the text has to give the same words in any login shell. Single quotes do, in
//! dash, bash, zsh, ksh and busybox (and fish and tcsh for the bytes that rules admit).

/// The text for an exec request: `exec`, then each word in single quotes. Nothing but the words of `argv` varies.
///
/// `exec` replaces the login shell by the program, so that sshd reports the program's own exit code or signal
/// (a shell in between would turn signal 15 into exit code 143).
///
/// A single quote inside a word is written as `'\''`; rules do not admit one, but what is sent must be right even
/// where a rule was not checked.
pub fn command_line(argv: &[String]) -> String {
    let mut text = String::from("exec");
    for word in argv {
        text.push_str(" '");
        text.push_str(&word.replace('\'', r"'\''"));
        text.push('\'');
    }
    text
}
