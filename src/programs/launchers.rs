//! Finds all commands that an argument vector executes, each with its user. Writ matches a Deny against all these
//! commands. For example, `sudo -u app systemctl stop x` executes `sudo` as the login user, and `systemctl` as `app`.
//!
//! A requester could evade a Deny with a command that this module misses. If a launcher has an unknown option, each
//! later word that is not an option therefore counts as the beginning of a command.
//!
//! # Caveats
//! This module does not parse text for a shell (`sh -c '...'`), but `writ lint` warns about such text.

use super::table::{self, Description, Role, Start, Takes};
use super::{MAXIMUM_WORDS, base_name, is_plain_path};

/// Maximum number of commands of one vector. Only nested texts of `env -S` can reach the maximum. Other vectors have
/// at most three commands for each word.
const MAX_COMMANDS: usize = 512;

/// System directories. Files with the same name in these directories count as one program, because systems with a
/// merged /usr link the directories to each other.
const SYSTEM: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// Local directories. Files with the same name in these directories count as one program.
const LOCAL: &[&str] = &["/usr/local/bin", "/usr/local/sbin"];

/// Word of an argument vector. In a decision, a word is a text. In `writ lint`, a word is a template with placeholders.
pub(crate) trait Word<'a>: Copy + PartialEq {
    /// Returns the text before the first placeholder.
    fn text(self) -> &'a str;
    /// Returns true if the word has no placeholder.
    fn is_constant(self) -> bool;
    /// Returns a word with this text.
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

/// User that executes a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum User<'a> {
    /// Login user of the machine.
    Login,
    Named(&'a str),
    /// User that is not known. It counts as any user.
    Unknown,
}

/// One command that an argument vector executes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command<'a, W> {
    /// Program and arguments.
    pub words: Vec<W>,
    pub user: User<'a>,
    /// True if a launcher starts the command. The program can then be a name without a directory.
    pub is_launched: bool,
}

/// Command that a launcher starts: its words and its user. The user is `None` if the launcher does not change it.
type Started<'a, W> = (Vec<W>, Option<User<'a>>);

impl User<'_> {
    /// Returns true if the user can be the user `name`.
    pub fn may_be(self, name: &str) -> bool {
        match self {
            User::Login => false,
            User::Named(own) => own == name,
            User::Unknown => true,
        }
    }
}

/// Returns all commands that `words` execute as the user `run_as` (`None` for the login user). The first command is
/// `words` itself.
pub(crate) fn commands<'a, W: Word<'a>>(words: Vec<W>, run_as: Option<&'a str>) -> Vec<Command<'a, W>> {
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

/// Adds a command that a launcher starts. The list gets at most three entries with the same words: the third entry has
/// [`User::Unknown`], which counts as any user.
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

/// Command that adds words to the commands that it starts. `xargs` and `parallel` add words from their input.
/// `find -exec` adds names of files. The rule does not contain these words.
pub(crate) struct InputCommand<'a, W> {
    /// The program that adds the words.
    pub launcher: &'a str,
    /// Commands that the program can start, without the added words.
    pub started: Vec<Command<'a, W>>,
    /// True if an added word can become the program of a command.
    pub starts_input: bool,
}

/// Returns `command` as an [`InputCommand`]. Returns `None` if the program adds no words to other commands.
pub(crate) fn input_command<'a, W: Word<'a>>(command: &Command<'a, W>) -> Option<InputCommand<'a, W>> {
    let program = command.words.first().filter(|program| program.is_constant())?;
    let (_, description) = table::find(program.text()).filter(|(_, description)| description.adds_words)?;
    let started: Vec<_> = commands(command.words.clone(), None).into_iter().skip(1).collect();
    // An added word can become the program in two cases: the program of the command contains `{}`, or the program is a
    // launcher without an inner command (`xargs sudo`, `xargs sh`).
    let is_open = |command: &Command<'a, W>| {
        let program = command.words.first().filter(|program| program.is_constant());
        let is_launcher = |program: &W| {
            table::find(program.text()).is_some_and(|(_, description)| description.start() != Start::Nothing)
        };
        program.is_some_and(|program| {
            program.text().contains("{}") || (is_launcher(program) && self::started(&command.words).is_empty())
        })
    };
    // Without an inner command, a program such as `parallel` executes the added words themselves.
    let starts_input = started.iter().any(is_open) || (started.is_empty() && description.starts_any_word);
    Some(InputCommand { launcher: base_name(program.text()), started, starts_input })
}

/// Returns the commands that the program of `words` starts, if that program is a launcher.
fn started<'a, W: Word<'a>>(words: &[W]) -> Vec<Started<'a, W>> {
    let Some(program) = words.first().filter(|program| program.is_constant()) else { return Vec::new() };
    let Some((name, description)) = table::find(program.text()) else { return Vec::new() };
    let unknown = description.changes_user().then_some(User::Unknown);
    match (name, description.start()) {
        ("find", _) => started_by_find(words),
        // With `exec`, ip starts a command: `ip netns exec NAME COMMAND`, `ip vrf exec NAME COMMAND`.
        ("ip", _) if words.iter().any(|word| word.text() == "exec") => any_later_word(words, None),
        (_, Start::Exact) => read_exactly(description, words).unwrap_or_else(|| any_later_word(words, unknown)),
        // If the first argument is not an option, it is the script.
        (_, Start::Script) if words.get(1).is_none_or(|word| !word.text().starts_with('-')) => {
            suffix(words, 1, None).into_iter().collect()
        }
        (_, Start::Script | Start::AnyWord) => any_later_word(words, unknown),
        (_, Start::Nothing) => Vec::new(),
    }
}

/// Returns all words from the index `start`. Returns `None` if no word has this index.
fn suffix<'a, W: Word<'a>>(words: &[W], start: usize, user: Option<User<'a>>) -> Option<Started<'a, W>> {
    let rest = words.get(start..).filter(|rest| !rest.is_empty())?;
    Some((rest.to_vec(), user))
}

/// Returns one command for each later word that is not an option. For `nice a -x b`, the commands are `a -x b` and `b`.
/// Omits commands with more than `MAXIMUM_WORDS` words, because no Deny is longer.
fn any_later_word<'a, W: Word<'a>>(words: &[W], user: Option<User<'a>>) -> Vec<Started<'a, W>> {
    let first = words.len().saturating_sub(MAXIMUM_WORDS).max(1);
    let is_option = |start: &usize| words.get(*start).is_some_and(|word| word.text().starts_with('-'));
    (first..words.len()).filter(|start| !is_option(start)).filter_map(|start| suffix(words, start, user)).collect()
}

/// Returns the commands of the actions `-exec`, `-execdir`, `-ok` and `-okdir` of `find`.
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

/// Option of a launcher, parsed from a word.
struct ReadOption<'a> {
    /// Value of the option:
    ///
    /// - `None`: the option takes no value.
    /// - `Some(Some(value))`: the value is in the same word.
    /// - `Some(None)`: the value is the next word.
    value: Option<Option<&'a str>>,
    /// True if the value names the user.
    is_user: bool,
    /// True if the value is a text that the launcher splits into more words (`env -S`).
    is_split: bool,
}

/// Reads the words of a launcher exactly, and returns the command that the launcher starts. Returns `None` if an exact
/// reading is impossible, for example because an option is not listed.
fn read_exactly<'a, W: Word<'a>>(launcher: &'static Description, words: &[W]) -> Option<Vec<Started<'a, W>>> {
    let mut user = launcher.default_user.as_deref().map(User::Named);
    let mut index = 1;
    while let Some(word) = words.get(index).copied() {
        index += 1;
        if word.is_constant() && word.text() == "--" {
            break;
        }
        if launcher.has_assignments && word.is_constant() && word.text() == "-" {
            continue;
        }
        if !word.text().starts_with('-') || (word.is_constant() && word.text() == "-") {
            index -= 1;
            break;
        }
        let option = read_option(launcher, word.text(), word.is_constant())?;
        let Some(attached) = option.value else { continue };
        let value = match attached {
            Some(text) => W::from_text(text),
            None => {
                index += 1;
                words.get(index - 1).copied()?
            }
        };
        if option.is_split {
            // For `env -S "A=b program"`, this returns the command `env A=b program`.
            let split = value.text().split_whitespace().map(|word| W::from_text(word.trim_matches(['"', '\''])));
            let rest = words.get(index..).unwrap_or_default().iter().copied();
            return Some(vec![(words.iter().take(1).copied().chain(split).chain(rest).collect(), None)]);
        }
        if option.is_user {
            let is_known = word.is_constant() && value.is_constant();
            user = Some(if is_known { named(value.text()) } else { User::Unknown });
        }
    }
    if launcher.operands.first() == Some(&Role::User) {
        user = words.get(index).map(|word| if word.is_constant() { named(word.text()) } else { User::Unknown });
    } else if launcher.needs_user && user.is_none() {
        return None;
    }
    index += launcher.operands_before_command();
    let is_assignment = |word: &&W| launcher.has_assignments && word.text().contains('=');
    index += words.get(index..).unwrap_or_default().iter().take_while(is_assignment).count();
    match words.get(index).map(|word| word.text()) {
        Some("--") => index += 1,
        // The command is expected at this index, but the word begins with a dash. The index is therefore not certain.
        Some(option) if option.starts_with('-') => return None,
        _ => {}
    }
    Some(suffix(words, index, user).into_iter().collect())
}

/// Reads an option word that begins with a dash. `is_whole` is true if the word has no placeholder. Returns `None` if
/// the option is not listed, if implementations differ in it, or if its value is code or a program. Also returns `None`
/// if a placeholder can contain more option letters.
fn read_option<'a>(launcher: &Description, word: &'a str, is_whole: bool) -> Option<ReadOption<'a>> {
    let flag = ReadOption { value: None, is_user: false, is_split: false };
    if word.starts_with("--") {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        return match launcher.takes(name) {
            Takes::Unknown => None,
            Takes::Nothing => Some(flag),
            Takes::Value => read_value(launcher, name, value, is_whole),
        };
    }
    for (at, letter) in word.char_indices().skip(1) {
        let name = format!("-{letter}");
        match launcher.takes(&name) {
            Takes::Unknown => return None,
            Takes::Nothing => {}
            Takes::Value => {
                let rest = word.get(at + letter.len_utf8()..).filter(|rest| !(rest.is_empty() && is_whole));
                return read_value(launcher, &name, rest, is_whole);
            }
        }
    }
    is_whole.then_some(flag)
}

/// Reads an option with a value. `value` is the value in the same word, or `None` if the value is the next word.
fn read_value<'a>(
    launcher: &Description,
    name: &str,
    value: Option<&'a str>,
    is_whole: bool,
) -> Option<ReadOption<'a>> {
    let option = launcher.options.get(name)?;
    let is_known = value.is_some() || is_whole;
    let (is_user, is_split) = match (option.others, option.values.as_slice()) {
        (Some(Role::Text), _) => (false, true),
        (Some(_), _) | (None, [Role::Code | Role::Program | Role::Command | Role::Script, ..] | [_, _, ..]) => {
            return None;
        }
        (None, values) => (values.first() == Some(&Role::User), false),
    };
    is_known.then_some(ReadOption { value: Some(value), is_user, is_split })
}

/// Parses a user as launchers accept it: a name, a name with a group (`app:group`), or a number (`#0`, `:1000:1000`).
/// The number 0 is root. Any other number is an unknown user.
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

/// Returns all directories that contain the same program as `path`.
fn same_directories(path: &str) -> &'static [&'static str] {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    [SYSTEM, LOCAL].into_iter().find(|same| same.contains(&directory)).unwrap_or_default()
}

/// Returns true if `word` can be the program `denied` of a Deny. The texts must be equal, or the file names must be
/// equal in one of these cases:
///
/// - Both directories are in [`SYSTEM`], or both are in [`LOCAL`].
/// - `denied` has no directory.
/// - A launcher starts `word`, and `word` is not a plain path. The launcher then searches `PATH`.
pub(crate) fn may_be_program(word: &str, is_launched: bool, denied: &str) -> bool {
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

/// Returns all paths that the word can stand for. If the program of a Deny has a placeholder, Writ matches the Deny
/// with each of these paths.
pub(crate) fn spellings(word: &str, is_launched: bool) -> Vec<String> {
    let name = base_name(word);
    let is_searched = is_launched && !is_plain_path(word);
    let searched = [SYSTEM, LOCAL].into_iter().flatten().filter(|_| is_searched);
    let directories = searched.chain(same_directories(word));
    let paths = directories.map(|directory| format!("{directory}/{name}"));
    std::iter::once(word.to_owned()).chain(paths).collect()
}

#[cfg(test)]
mod tests;
