//! The commands that an argument vector comes to: itself, and what stands behind launchers (`timeout 5 systemctl stop
//! x`, `sudo -n -u app env A=b nohup ...`), each with the user that executes it. A Deny is held against all of them.
//!
//! It is for what must not run, so it errs on one side: if the options of a launcher are not understood, each later word
//! may begin the inner command. Text for a shell (`sh -c '...'`) is not parsed; `writ lint` warns about it.

mod names;

use super::{MAXIMUM_WORDS, base_name, is_plain_path};
use names::{ANY_LATER_WORD, ANY_LATER_WORD_AS_ANY_USER, INTERPRETERS, LAUNCHERS, LOADERS, Launcher, UserFrom};

/// The most commands that one vector comes to. Without `env -S` there are at most three for each word: this bounds what
/// nested texts of `env -S` can add.
const MAX_COMMANDS: usize = 512;

/// Directories in which a base name is the same program: on systems with a merged /usr these are links to one another.
const SYSTEM: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
const LOCAL: &[&str] = &["/usr/local/bin", "/usr/local/sbin"];

/// A word as the options of launchers are read from it: text at decision time, a template for `writ lint`.
pub(super) trait Word<'a>: Copy + PartialEq {
    /// Its text up to the first placeholder.
    fn text(self) -> &'a str;
    /// Whether it has no placeholder.
    fn is_constant(self) -> bool;
    /// A word of this text.
    fn from_text(text: &'a str) -> Self;
}

impl<'a> Word<'a> for &'a str {
    fn text(self) -> &'a str {
        self
    }

    fn is_constant(self) -> bool {
        true
    }

    fn from_text(text: &'a str) -> Self {
        text
    }
}

/// Who executes a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum User<'a> {
    /// The login user of the machine.
    Login,
    Named(&'a str),
    /// Any user: the launcher's options do not say it in a way that is understood.
    Unknown,
}

/// One command that an argument vector comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command<'a, W> {
    /// The program and its arguments.
    pub words: Vec<W>,
    pub user: User<'a>,
    /// Whether a launcher starts it: then its program may be a bare name.
    pub is_launched: bool,
}

/// What a launcher starts, and as whom if that changes.
type Started<'a, W> = (Vec<W>, Option<User<'a>>);

impl User<'_> {
    /// Whether it may be the user with this name.
    pub fn may_be(self, name: &str) -> bool {
        match self {
            User::Login => false,
            User::Named(own) => own == name,
            User::Unknown => true,
        }
    }
}

/// All commands that `words` come to if `run_as` executes them (None: the login user): first these words themselves.
pub(super) fn commands<'a, W: Word<'a>>(words: Vec<W>, run_as: Option<&'a str>) -> Vec<Command<'a, W>> {
    let user = run_as.map_or(User::Login, User::Named);
    let mut found = vec![Command { words, user, is_launched: false }];
    let mut next = 0;
    while let Some(command) = found.get(next) {
        let (outer_user, inner) = (command.user, started(&command.words));
        for (words, user) in inner {
            add(&mut found, words, user.unwrap_or(outer_user));
        }
        next += 1;
    }
    found
}

/// Adds a command that a launcher starts. If two users are known for the same words already, a third stands for any.
fn add<'a, W: Word<'a>>(found: &mut Vec<Command<'a, W>>, words: Vec<W>, user: User<'a>) {
    let same: Vec<User<'_>> = found
        .iter()
        .filter(|command| command.is_launched && command.words == words)
        .map(|command| command.user)
        .collect();
    if found.len() < MAX_COMMANDS && !same.contains(&user) && !same.contains(&User::Unknown) {
        let user = if same.len() < 2 { user } else { User::Unknown };
        found.push(Command { words, user, is_launched: true });
    }
}

/// What a command starts if its program is a launcher.
fn started<'a, W: Word<'a>>(words: &[W]) -> Vec<Started<'a, W>> {
    let Some(program) = words.first().filter(|program| program.is_constant()) else { return Vec::new() };
    let name = base_name(program.text());
    if name == "find" {
        return started_by_find(words);
    }
    if let Some(launcher) = LAUNCHERS.iter().find(|launcher| launcher.names.contains(&name)) {
        let unknown = launcher.changes_user().then_some(User::Unknown);
        return launcher.started(words).unwrap_or_else(|| any_later_word(words, unknown));
    }
    if ANY_LATER_WORD.contains(&name) || LOADERS.iter().any(|loader| name.starts_with(loader)) {
        return any_later_word(words, None);
    }
    if ANY_LATER_WORD_AS_ANY_USER.contains(&name) {
        return any_later_word(words, Some(User::Unknown));
    }
    let is_version = |each: char| each.is_ascii_digit() || matches!(each, '.' | '-');
    if INTERPRETERS.contains(&name) || INTERPRETERS.contains(&name.trim_end_matches(is_version)) {
        // Without options the first word is the script.
        let has_options = words.get(1).is_some_and(|word| word.text().starts_with('-'));
        return if has_options { any_later_word(words, None) } else { suffix(words, 1, None).into_iter().collect() };
    }
    // `ip netns exec NAME COMMAND`, `ip vrf exec NAME COMMAND`.
    if name == "ip" && words.iter().any(|word| word.text() == "exec") {
        return any_later_word(words, None);
    }
    Vec::new()
}

/// The words from `start` on, if there are any.
fn suffix<'a, W: Word<'a>>(words: &[W], start: usize, user: Option<User<'a>>) -> Option<Started<'a, W>> {
    let rest = words.get(start..).filter(|rest| !rest.is_empty())?;
    Some((rest.to_vec(), user))
}

/// Each later word that is no option may begin the command. A Deny has at most so many words, so no longer ones count.
fn any_later_word<'a, W: Word<'a>>(words: &[W], user: Option<User<'a>>) -> Vec<Started<'a, W>> {
    let first = words.len().saturating_sub(MAXIMUM_WORDS).max(1);
    let is_option = |start: &usize| words.get(*start).is_some_and(|word| word.text().starts_with('-'));
    (first..words.len()).filter(|start| !is_option(start)).filter_map(|start| suffix(words, start, user)).collect()
}

/// `find ... -exec COMMAND ;`
fn started_by_find<'a, W: Word<'a>>(words: &[W]) -> Vec<Started<'a, W>> {
    let is_action = |word: &W| matches!(word.text(), "-exec" | "-execdir" | "-ok" | "-okdir");
    let behind = words.iter().enumerate().filter(|(_, word)| is_action(word)).map(|(index, _)| index + 1);
    let command = |start: usize| {
        let rest = words.get(start..).unwrap_or_default();
        let is_end = |word: &W| matches!(word.text(), ";" | "+");
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        rest.get(..end).filter(|command| !command.is_empty()).map(|command| (command.to_vec(), None))
    };
    behind.filter_map(command).collect()
}

/// An option as it was read.
struct ReadOption<'a> {
    /// Its value, if it takes one: in the same word, or None for the next word.
    value: Option<Option<&'a str>>,
    /// Whether the value names the user.
    is_user: bool,
    /// Whether the value is text that is split into further words (`env -S`).
    is_split: bool,
}

impl Launcher {
    fn changes_user(&self) -> bool {
        !matches!(self.user, UserFrom::Caller)
    }

    /// What it starts. None: an option is not understood.
    fn started<'a, W: Word<'a>>(&self, words: &[W]) -> Option<Vec<Started<'a, W>>> {
        let mut user = match self.user {
            UserFrom::Option { default, .. } => default.map(User::Named),
            UserFrom::OptionOnly { .. } | UserFrom::Operand | UserFrom::Caller => None,
        };
        let mut index = 1;
        while let Some(word) = words.get(index).copied() {
            index += 1;
            if word.is_constant() && word.text() == "--" {
                break;
            }
            if self.has_assignments && word.is_constant() && word.text() == "-" {
                continue;
            }
            let Some(option) = word.text().strip_prefix('-').filter(|option| !option.is_empty()) else {
                index -= 1;
                break;
            };
            let option = self.read_option(option, word.is_constant())?;
            let Some(attached) = option.value else { continue };
            let value = match attached {
                Some(text) => W::from_text(text),
                None => {
                    index += 1;
                    words.get(index - 1).copied()?
                }
            };
            if option.is_split {
                // env reads on, with the words of the text in its place.
                let split = value.text().split_whitespace().map(|word| W::from_text(word.trim_matches(['"', '\''])));
                let rest = words.get(index..).unwrap_or_default().iter().copied();
                return Some(vec![(words.iter().take(1).copied().chain(split).chain(rest).collect(), None)]);
            }
            if option.is_user {
                let is_known = word.is_constant() && value.is_constant();
                user = Some(if is_known { named(value.text()) } else { User::Unknown });
            }
        }
        if matches!(self.user, UserFrom::Operand) {
            user = words.get(index).map(|word| if word.is_constant() { named(word.text()) } else { User::Unknown });
        } else if matches!(self.user, UserFrom::OptionOnly { .. }) && user.is_none() {
            return None;
        }
        index += self.operands;
        let is_assignment = |word: &&W| self.has_assignments && word.text().contains('=');
        index += words.get(index..).unwrap_or_default().iter().take_while(is_assignment).count();
        match words.get(index).map(|word| word.text()) {
            Some("--") => index += 1,
            // An option behind the operands.
            Some(option) if option.starts_with('-') => return None,
            _ => {}
        }
        Some(suffix(words, index, user).into_iter().collect())
    }

    /// An option, without its first dash. `is_whole`: no placeholder stands behind the text.
    fn read_option<'a>(&self, option: &'a str, is_whole: bool) -> Option<ReadOption<'a>> {
        let (letter, name) = match self.user {
            UserFrom::Option { letter, name, .. } | UserFrom::OptionOnly { letter, name } => (letter, name),
            UserFrom::Operand | UserFrom::Caller => ("", ""),
        };
        let flag = ReadOption { value: None, is_user: false, is_split: false };
        if let Some(long) = option.strip_prefix('-') {
            let (long, value) = long.split_once('=').map_or((long, None), |(long, value)| (long, Some(value)));
            let is_user = !name.is_empty() && long == name;
            if is_user || self.long_values.contains(&long) {
                let is_split = long == "split-string";
                return (value.is_some() || is_whole).then_some(ReadOption { value: Some(value), is_user, is_split });
            }
            return self.long_flags.contains(&long).then_some(flag);
        }
        for (at, each) in option.char_indices() {
            let is_user = letter.contains(each);
            if is_user || self.values.contains(each) {
                let rest = option.get(at + each.len_utf8()..).unwrap_or_default();
                let value = if rest.is_empty() && is_whole { None } else { Some(rest) };
                let is_split = each == 'S' && self.has_assignments && self.long_values.contains(&"split-string");
                return Some(ReadOption { value: Some(value), is_user, is_split });
            }
            if !self.flags.contains(each) {
                return None;
            }
        }
        is_whole.then_some(flag)
    }
}

/// A user as launchers take one: `app`, `app:group`, `:1000:1000`, `#0`, `0`.
fn named(text: &str) -> User<'_> {
    let name = text.trim_start_matches([':', '#', '+']);
    let name = name.split(':').next().unwrap_or_default();
    match name {
        "" => User::Unknown,
        "0" => User::Named("root"),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => User::Unknown,
        name => User::Named(name),
    }
}

/// The directories in which a program is the same as the one at `path`.
fn same_directories(path: &str) -> &'static [&'static str] {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    [SYSTEM, LOCAL].into_iter().find(|same| same.contains(&directory)).unwrap_or_default()
}

/// Whether a word that names a program may be the program of a Deny: the same path, or the same name in a directory that
/// is the same one, or behind a launcher the same name if it is no plain path.
pub(super) fn may_be_program(word: &str, is_launched: bool, denied: &str) -> bool {
    if word == denied {
        return true;
    }
    let is_searched = is_launched && !is_plain_path(word);
    base_name(word) == base_name(denied)
        && (is_searched || !denied.contains('/') || same_directories(word).contains(&denied_directory(denied)))
}

fn denied_directory(denied: &str) -> &str {
    denied.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The ways in which a Deny whose program has a placeholder may write the program of this word.
pub(super) fn spellings(word: &str, is_launched: bool) -> Vec<String> {
    let name = base_name(word);
    let is_searched = is_launched && !is_plain_path(word);
    let searched = [SYSTEM, LOCAL].into_iter().flatten().filter(|_| is_searched);
    let directories = searched.chain(same_directories(word));
    let paths = directories.map(|directory| format!("{directory}/{name}"));
    std::iter::once(word.to_owned()).chain(paths).collect()
}

#[cfg(test)]
mod tests;
