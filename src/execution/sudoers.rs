//! Lines for sudoers(5) that allow a command with `runAs`.

use crate::api::CommandExecution;

/// Maximum length of a line in a message, in bytes. For a longer command, the message has no line, and the user writes
/// the line by hand.
const MAX_LINE: usize = 1024;

/// Returns the name of a user, escaped for sudoers. Returns `None` for these names:
///
/// - A name in capital letters, for example `ALL`, which sudoers reads as an alias.
/// - A name with a character that is not an ASCII letter, a digit or one of `_.@\+-$`.
pub fn user(name: &str) -> Option<String> {
    let is_alias = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@\\+-$".contains(&byte);
    if is_alias || !name.bytes().all(is_plain) {
        return None;
    }
    Some(name.chars().flat_map(|each| matches!(each, '@' | '\\').then_some('\\').into_iter().chain([each])).collect())
}

/// Escapes wildcards and separators for sudoers (sudoers(5)).
pub fn escape(word: &str) -> String {
    let mut escaped = String::new();
    for each in word.chars() {
        if matches!(each, ',' | ':' | '=' | '\\' | '*' | '?' | '[' | ']' | '!' | '#' | '"') {
            escaped.push('\\');
        }
        escaped.push(each);
    }
    escaped
}

/// Returns the command part of a sudoers line: the program with exactly these arguments. If there are no arguments, the
/// line has `""`, so that sudo refuses all arguments.
pub fn command(program: &str, arguments: &[String]) -> String {
    let words = match arguments {
        [] => "\"\"".to_owned(),
        words => words.iter().map(|word| escape(word)).collect::<Vec<_>>().join(" "),
    };
    format!("{} {words}", escape(program))
}

/// Returns the line that allows `login` to run a command as `run_as` without a password.
pub fn grant(login: &str, run_as: &str, command: &str) -> String {
    format!("{login} ALL=({run_as}) NOPASSWD: {command}")
}

/// Returns true if a sudoers line can contain the word. sudo reads only printable ASCII characters literally.
pub fn is_plain(word: &str) -> bool {
    word.chars().all(|each| matches!(each, ' '..='~'))
}

/// Returns the line that allows the command of an execution with `runAs`, and no other command. Returns `None` in these
/// cases:
///
/// - The execution has no decision with `runAs`.
/// - A user name, the program or an argument cannot be written in a sudoers line.
/// - The line is too long.
pub fn line(execution: &CommandExecution) -> Option<String> {
    let status = execution.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let (program, arguments) = decision.argv.split_first()?;
    let run_as = user(decision.run_as.as_ref()?)?;
    let login = match &status.machine {
        Some(machine) => user(&machine.user)?,
        None => "LOGIN-USER".to_owned(),
    };
    let is_plain = decision.argv.iter().all(|word| is_plain(word));
    is_plain.then(|| grant(&login, &run_as, &command(program, arguments))).filter(|line| line.len() <= MAX_LINE)
}
