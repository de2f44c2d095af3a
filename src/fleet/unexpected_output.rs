//! Explains why a session did not execute its request although the login succeeded. Writ derives the cause from the
//! output, the exit code and the signal of the session.
//!
//! sshd refuses a session after the login in these cases:
//!
//! - /etc/nologin exists.
//! - PAM opens no session.
//! - The password has expired.
//!
//! sshd itself then ends the session, with exit code 254 or 1.

use crate::ssh::is_about_account;

/// Maximum number of characters that are kept from the start (head) and from the end (tail) of the output. A greeting
/// comes first, and a refusal comes last.
const MAX_HEAD: usize = 160;
const MAX_TAIL: usize = 240;
/// Start of the launcher's markers.
const MARK: &str = "WRIT2:";
/// Exit code of sshd if it refuses a session after the login, and of bash if bash cannot fork.
const REFUSED_EXIT_CODE: u32 = 254;
/// Exit codes of a killed shell: 128 plus the number of the signal HUP, KILL or TERM.
const KILLED_EXIT_CODES: [u32; 3] = [129, 137, 143];
/// Signals with which other processes usually end a shell.
const SIGNALS_OF_OTHERS: [&str; 3] = ["HUP", "KILL", "TERM"];

/// Phrases about temporary problems, in lower case: a limit of the user or of the system is reached, or the machine
/// boots or shuts down.
const PASSING_WORDS: [&str; 12] = [
    "resource temporarily unavailable",
    "cannot fork",
    "can't fork",
    "too many logins",
    "too many processes",
    "too many open files",
    "no space left on device",
    "disk quota exceeded",
    "cannot allocate memory",
    "out of memory",
    "system is booting up",
    "system is going down",
];

/// Cause of the refusal, which decides if a retry can help.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalCause {
    /// Temporary: the machine boots or shuts down, or lacks resources for a further session.
    Transient,
    /// The account needs manual action.
    Account,
    /// Something other than a shell answers, or a start-up file ends the shell.
    Unsupported,
}

/// Output that the session sent before the launcher's answer, or instead of the answer.
#[derive(Debug, Default)]
pub(crate) struct UnexpectedOutput {
    head: String,
    tail: String,
    is_cut: bool,
    exit_code: Option<u32>,
    signal: Option<String>,
}

impl UnexpectedOutput {
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let is_printable = matches!(byte, b'!'..=b'~');
            let next = if is_printable { char::from(*byte) } else { ' ' };
            let last = self.tail.chars().next_back().or_else(|| self.head.chars().next_back());
            if next == ' ' && last.is_none_or(|last| last == ' ') {
                continue;
            }
            if self.head.len() < MAX_HEAD && self.tail.is_empty() {
                self.head.push(next);
            } else {
                self.tail.push(next);
            }
        }
        // All characters are ASCII, so each byte index is a character boundary.
        if let Some(cut) = self.tail.len().checked_sub(MAX_TAIL).filter(|cut| *cut > 0) {
            self.tail.drain(..cut);
            self.is_cut = true;
        }
    }

    pub fn exited(&mut self, code: u32) {
        self.exit_code.get_or_insert(code);
    }

    pub fn signalled(&mut self, signal: &str) {
        self.signal.get_or_insert_with(|| signal.to_owned());
    }

    pub fn exit_code(&self) -> Option<u32> {
        self.exit_code
    }

    /// Returns the kept output before the launcher's marker. Characters that are not printable are replaced by spaces.
    pub fn words(&self) -> String {
        let between = if self.is_cut { " ... " } else { "" };
        let words = format!("{}{between}{}", self.head, self.tail);
        // Text after the launcher's marker comes from the launcher.
        words.split(MARK).next().unwrap_or_default().trim().to_owned()
    }

    /// Returns the kept output as the start of a message.
    pub fn quoted(&self) -> String {
        match self.words() {
            words if words.is_empty() => String::new(),
            words => format!("{words} (said by the login); "),
        }
    }

    pub fn cause(&self) -> RefusalCause {
        let words = self.words().to_ascii_lowercase();
        let has = |known: &[&str]| known.iter().any(|known| words.contains(known));
        let was_killed = self.signal.as_deref().is_some_and(|signal| SIGNALS_OF_OTHERS.contains(&signal))
            || self.exit_code.is_some_and(|code| KILLED_EXIT_CODES.contains(&code));
        if is_about_account(&words) {
            RefusalCause::Account
        } else if self.exit_code == Some(REFUSED_EXIT_CODE) || was_killed || has(&PASSING_WORDS) {
            RefusalCause::Transient
        } else {
            RefusalCause::Unsupported
        }
    }

    /// Returns a message for users: first the output of the machine, then its meaning. `unfit` is the advice if the
    /// cause is `Unsupported`.
    pub fn explain(&self, unfit: &str) -> String {
        let ended = match (self.exit_code, &self.signal) {
            (Some(code), _) => format!("its session ended with exit code {code}"),
            (None, Some(signal)) => format!("its session was ended by signal {signal}"),
            (None, None) => "its session ended without an exit code".to_owned(),
        };
        let advice = match self.cause() {
            RefusalCause::Transient => {
                format!(
                    "the machine let the login in and then refused the session ({ended}); it does so while it boots or \
                     goes down, and if it has no room for a further session (limits of PAM, of processes, of the disk)"
                )
            }
            RefusalCause::Account => format!(
                "the machine let the login in, and the account may not execute ({ended}); somebody has to see to the \
                 account: its password, its expiry (`chage -l USER` there) and its login shell"
            ),
            RefusalCause::Unsupported => format!("{unfit}; {ended}"),
        };
        format!("{}{advice}", self.quoted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unexpected(code: u32, words: &str) -> UnexpectedOutput {
        let mut unexpected = UnexpectedOutput::default();
        unexpected.push(words.as_bytes());
        unexpected.exited(code);
        unexpected
    }

    #[test]
    fn what_passes_is_told_from_what_needs_a_person() {
        let cases = [
            (254, "booting, come back later\n", RefusalCause::Transient),
            (254, "", RefusalCause::Transient),
            (254, "There were too many logins for 'writ'.", RefusalCause::Transient),
            (254, "bash: fork: retry: Resource temporarily unavailable\n", RefusalCause::Transient),
            (2, "sh: 1: Cannot fork\n", RefusalCause::Transient),
            (137, "", RefusalCause::Transient),
            (
                1,
                "WARNING: Your password has expired.\nPassword change required but no TTY available.\n",
                RefusalCause::Account,
            ),
            (254, "Your account has expired; please contact your system administrator.", RefusalCause::Account),
            (1, "This account is currently not available.\n", RefusalCause::Account),
            (0, "", RefusalCause::Unsupported),
            (1, "Welcome", RefusalCause::Unsupported),
            (127, "writ: 1: exec: /bin/sh: not found", RefusalCause::Unsupported),
        ];
        for (code, words, cause) in cases {
            assert_eq!(unexpected(code, words).cause(), cause, "{code} {words}");
        }
        let mut killed = UnexpectedOutput::default();
        killed.signalled("KILL");
        assert_eq!(killed.cause(), RefusalCause::Transient);
    }

    #[test]
    fn the_words_of_the_machine_come_first() {
        let told = unexpected(1, "WARNING: Your password has expired.\nPassword change required").explain("advice");
        assert!(told.starts_with("WARNING: Your password has expired. Password change required (said by"), "{told}");
        assert!(!told.contains("advice"), "{told}");
        assert_eq!(unexpected(3, " \n").explain("advice"), "advice; its session ended with exit code 3");
    }

    #[test]
    fn of_much_text_the_start_and_the_end_are_kept() {
        let mut unexpected = UnexpectedOutput::default();
        unexpected.push(b"Welcome.\n");
        for _ in 0..10_000 {
            unexpected.push(b"\x1b[1mnoise\xff\r\n");
        }
        unexpected.push(b"Password change required but no TTY available.\n");
        unexpected.exited(1);
        let words = unexpected.words();
        assert!(words.len() <= MAX_HEAD + MAX_TAIL + 5, "{words}");
        assert!(words.starts_with("Welcome. [1mnoise") && words.ends_with("no TTY available."), "{words}");
        assert_eq!(unexpected.cause(), RefusalCause::Account);
    }
}
