//! Reads the words of a rule as the program of the rule reads them, and finds the role of each parameter.

use super::super::template::Template;
use super::super::{base_name, environment};
use super::telling_names::is_telling;
use crate::programs::table::{Description, ProgramOption, Role, find, find_subcommand};

/// Maximum number of nested programs (`sudo nice timeout ...`). The words of deeper programs have unknown roles.
const NESTED_PROGRAMS: usize = 8;
/// First character of a mark: the text that stands for a free parameter in a [`Word`]. For example, the mark of
/// parameter 3 is `\u{1}3\u{2}`. Only marks contain these two characters, because words are printable ASCII.
const BEGIN: char = '\u{1}';
/// Last character of a mark.
const END: char = '\u{2}';

/// Word of a rule. A mark replaces each free parameter, and a value replaces each other parameter.
#[derive(Clone, Debug)]
pub(super) struct Word(String);

impl Word {
    pub fn new(template: &Template, values: &[&str]) -> Self {
        Self(template.expand(values))
    }

    /// Returns the mark that stands for the value of a free parameter.
    pub fn mark(parameter: usize) -> String {
        format!("{BEGIN}{parameter}{END}")
    }

    /// Returns the text before the first free parameter, or the whole text if the word has no free parameter.
    fn before(&self) -> &str {
        self.0.split(BEGIN).next().unwrap_or_default()
    }

    fn constant(&self) -> Option<&str> {
        (!self.is_free()).then_some(self.0.as_str())
    }

    fn is_free(&self) -> bool {
        self.0.contains(BEGIN)
    }

    /// Returns the free parameters in the word, each with the text before it.
    fn placeholders(&self) -> impl Iterator<Item = (usize, String)> {
        let mut before = String::new();
        self.0.split(BEGIN).enumerate().filter_map(move |(index, part)| {
            if index == 0 {
                part.clone_into(&mut before);
                return None;
            }
            let (number, text) = part.split_once(END)?;
            let found = (number.parse().ok()?, before.clone());
            before = format!("{before}{{}}{text}");
            Some(found)
        })
    }
}

/// Use of a free parameter in a word, with its role for the program.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// Index of the parameter.
    pub parameter: usize,
    pub role: Role,
    /// Program, as the rule names it, without its directory.
    pub program: String,
    /// Text before the placeholder in the same word, without the option.
    pub before: String,
    /// Option whose value contains the placeholder.
    pub option: Option<String>,
    /// Values with which the requester chooses an option that runs a program or code. For example,
    /// `use-compress-program` in `tar --{x}`. `None` if the placeholder is not in the name of an option.
    pub choices: Option<Vec<String>>,
}

/// Reads a command line, and adds the uses of its free parameters to `uses`.
pub(super) fn command(words: &[Word], depth: usize, uses: &mut Vec<Use>) {
    let Some((program, words)) = words.split_first() else { return };
    let Some(path) = program.constant() else { return };
    let name = base_name(path);
    let known = if depth < NESTED_PROGRAMS { find(path) } else { None };
    let mut walk = Walk { program: name, words, next: 0, depth, key: String::new(), levels: Vec::new(), uses };
    match known {
        Some((key, description)) => {
            key.clone_into(&mut walk.key);
            walk.levels.push(description);
            walk.known();
        }
        None => walk.unknown(),
    }
}

struct Walk<'a> {
    program: &'a str,
    words: &'a [Word],
    /// Index of the next word.
    next: usize,
    depth: usize,
    /// Name of the program in the tables, followed by the subcommands so far.
    key: String,
    /// Descriptions of the program and of each subcommand.
    levels: Vec<&'static Description>,
    uses: &'a mut Vec<Use>,
}

impl<'a> Walk<'a> {
    fn known(&mut self) {
        let mut operands = 0;
        let mut has_ended = false;
        let mut others = None;
        if let Some(word) = self.words.first().filter(|_| self.top().is_some_and(|level| level.has_old_style)) {
            self.old_style(word);
        }
        while let Some(word) = self.words.get(self.next) {
            let text = word.before();
            if !has_ended && word.constant() == Some("--") {
                has_ended = true;
                self.next += 1;
            } else if let Some(role) = others {
                self.note(word, role, 0, None);
                self.next += 1;
            } else if !has_ended && text.starts_with('-') && (text.len() > 1 || word.is_free()) {
                let option = self.option(word);
                if let Some(option) = option {
                    others = option.others;
                    operands += usize::from(option.replaces_operand);
                }
            } else if self.is_assignment(text) && operands == 0 {
                let name = text.split('=').next().unwrap_or_default();
                let role = if environment::is_dangerous_variable(name) || environment::loads(name) {
                    Role::Code
                } else {
                    Role::Value
                };
                self.note(word, role, name.len() + 1, None);
                self.next += 1;
            } else if self.operand(word, &mut operands) {
                return;
            }
        }
    }

    fn top(&self) -> Option<&'static Description> {
        self.levels.last().copied()
    }

    fn is_assignment(&self, text: &str) -> bool {
        let has = self.levels.first().is_some_and(|level| level.has_assignments);
        has && text.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !name.contains('/'))
    }

    /// Reads an operand. Returns true if no later word belongs to this program.
    fn operand(&mut self, word: &'a Word, operands: &mut usize) -> bool {
        let role = self.top().map_or(Role::Unknown, |level| level.operand(*operands));
        match (role, word.constant()) {
            (Role::Command, Some(_)) => {
                command(self.words.get(self.next..).unwrap_or_default(), self.depth + 1, self.uses);
                return true;
            }
            (Role::Script, Some(path)) => {
                self.script(path);
                return true;
            }
            (Role::Subcommand, Some(text)) => {
                self.subcommand(text, operands);
                self.next += 1;
                return false;
            }
            _ => {
                if role == Role::Unknown {
                    self.unknown_operand(word);
                }
                self.note(word, role, 0, None);
            }
        }
        self.next += 1;
        *operands += 1;
        // If the requester chooses the program or script, the walk ends, because the meaning of the later words is
        // unknown.
        matches!(role, Role::Command | Role::Script)
    }

    /// Reads the words after a script. They are the arguments of the script.
    fn script(&mut self, path: &'a str) {
        let words = self.words.get(self.next + 1..).unwrap_or_default();
        let program = base_name(path);
        let (key, levels) = (String::new(), Vec::new());
        let mut walk = Walk { program, words, next: 0, depth: self.depth + 1, key, levels, uses: self.uses };
        walk.unknown();
    }

    fn subcommand(&mut self, text: &str, operands: &mut usize) {
        let key = format!("{} {text}", self.key);
        match find_subcommand(&key) {
            Some(description) if description.is_group => {}
            Some(description) => {
                self.key = key;
                self.levels.push(description);
                *operands = 0;
            }
            None => *operands += 1,
        }
    }

    /// Reads an option and its values.
    fn option(&mut self, word: &'a Word) -> Option<&'static ProgramOption> {
        let text = word.before();
        let has_one_dash = self.levels.iter().any(|level| level.has_one_dash);
        // A listed option of several letters, such as `-TT` of zip, is one option, not several options of one letter.
        let is_whole = text.len() > 2 && self.levels.iter().any(|level| level.options.contains_key(text));
        if text.starts_with("--") || has_one_dash || is_whole { self.long_option(word) } else { self.cluster(word, 1) }
    }

    fn find_option(&self, name: &str) -> Option<&'static ProgramOption> {
        let levels = || self.levels.iter().rev();
        levels()
            .find_map(|level| level.options.get(name))
            .or_else(|| levels().find_map(|level| level.abbreviated(name)))
    }

    fn long_option(&mut self, word: &'a Word) -> Option<&'static ProgramOption> {
        let text = word.before();
        let (name, has_value) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
        let is_named = has_value || !word.is_free();
        let found = if is_named { self.find_option(name) } else { None };
        // The value can follow directly after an option with one dash, as in `-javaagent:{path}` and `-o{file}`.
        let prefix = if found.is_none() && !text.starts_with("--") {
            self.levels
                .iter()
                .rev()
                .find_map(|level| level.prefix(text))
                .filter(|(_, rest)| !rest.is_empty() || word.is_free())
        } else {
            None
        };
        if let Some((option, rest)) = prefix {
            let length = text.len() - rest.len();
            let role = option.values.first().copied().or(option.others).unwrap_or(Role::Value);
            self.note(word, role, length, text.get(..length));
            self.next += 1;
            self.further_values(option, 1, text.get(..length).unwrap_or(text));
            return Some(option);
        }
        if !is_named {
            self.choice(word);
            self.next += 1;
            return None;
        }
        let option = match found {
            Some(option) => option,
            None => {
                self.unknown_option(word, name, has_value);
                return None;
            }
        };
        self.next += 1;
        if has_value {
            let role = option.values.first().copied().unwrap_or(Role::Value);
            self.attached(word, role, name);
        }
        if !option.is_attached {
            self.further_values(option, usize::from(has_value), name);
        }
        Some(option)
    }

    /// Reads a value that is in the same word as its option.
    fn attached(&mut self, word: &'a Word, role: Role, name: &str) {
        match word.constant().and_then(|text| text.get(name.len() + 1..)).filter(|_| role == Role::Command) {
            // The value is a program, and the next words are its arguments, as in `--coreutils-prog=timeout 5 id`.
            Some(program) => {
                let words = self.words.get(self.next..).unwrap_or_default();
                let words: Vec<Word> = std::iter::once(Word(program.to_owned())).chain(words.iter().cloned()).collect();
                command(&words, self.depth + 1, self.uses);
                self.next = self.words.len();
            }
            None => self.note(word, role, name.len() + 1, Some(name)),
        }
    }

    /// Reads an option without a description. The name of the option can suggest the role of its value.
    fn unknown_option(&mut self, word: &'a Word, name: &str, has_value: bool) {
        self.next += 1;
        if has_value {
            self.note(word, Role::Unknown, name.len() + 1, Some(name));
        } else if is_telling(name) {
            let is_value = |value: &&Word| value.is_free() && !value.before().starts_with('-');
            if let Some(value) = self.words.get(self.next).filter(is_value) {
                self.note(value, Role::Unknown, 0, Some(name));
                self.next += 1;
            }
        }
    }

    /// Reads options of one letter. `start` is the position of the first letter in the word, in bytes.
    fn cluster(&mut self, word: &'a Word, start: usize) -> Option<&'static ProgramOption> {
        let text = word.before();
        let mut last = None;
        for (at, letter) in text.char_indices().filter(|(at, _)| *at >= start) {
            let name = format!("-{letter}");
            let Some(option) = self.find_option(&name) else { continue };
            last = Some(option);
            let behind = at + letter.len_utf8();
            if option.values.is_empty() {
                if option.others.is_some() {
                    break;
                }
                continue;
            }
            let is_attached = behind < text.len() || word.is_free() || option.is_attached;
            if is_attached {
                let role = option.values.first().copied().unwrap_or(Role::Value);
                self.note(word, role, behind, Some(&name));
            }
            self.next += 1;
            self.further_values(option, usize::from(is_attached), &name);
            return last;
        }
        if word.is_free() {
            // The placeholder is one of the letters, or it is the value of an unknown letter. Both uses are recorded.
            self.choice(word);
            if text.len() > 1 {
                self.note(word, Role::Unknown, text.len(), Some(text));
            }
        } else if last.is_none() {
            self.unknown_option(word, text, false);
            return None;
        }
        self.next += 1;
        last
    }

    /// Reads the letters of options without a dash, as in `tar xIf {program} {archive}`. The values of these options
    /// follow in the order of the letters.
    fn old_style(&mut self, word: &'a Word) {
        let text = word.before();
        if text.starts_with('-') || text.is_empty() && !word.is_free() {
            return;
        }
        self.next += 1;
        if word.is_free() {
            self.choice(word);
        }
        for letter in text.chars() {
            let name = format!("-{letter}");
            if let Some(option) = self.find_option(&name).filter(|option| !option.is_attached) {
                self.further_values(option, 0, &name);
            }
        }
    }

    /// Reads the values of an option from the next words. The first `done` values were in the same word as the option.
    fn further_values(&mut self, option: &'static ProgramOption, done: usize, name: &str) {
        for role in option.values.iter().skip(done) {
            let Some(word) = self.words.get(self.next) else { return };
            match (role, word.constant()) {
                (Role::Command, Some(_)) => self.inner_command(),
                // The value is a subcommand with its own description, as in `python3 -m json.tool`.
                (Role::Subcommand, Some(text)) if find_subcommand(&format!("{} {text}", self.key)).is_some() => {
                    self.subcommand(text, &mut 0);
                    self.next += 1;
                }
                (Role::Subcommand, Some(module)) => {
                    self.script(module);
                    self.next = self.words.len();
                }
                (Role::Script, Some(path)) => {
                    self.script(path);
                    self.next = self.words.len();
                }
                _ => {
                    self.note(word, *role, 0, Some(name));
                    self.next += 1;
                }
            }
        }
    }

    /// Reads the command of `find -exec PROGRAM WORD... ;`.
    fn inner_command(&mut self) {
        let words = self.words.get(self.next..).unwrap_or_default();
        let length = words.iter().position(|word| matches!(word.constant(), Some(";" | "+"))).unwrap_or(words.len());
        command(words.get(..length).unwrap_or_default(), self.depth + 1, self.uses);
        self.next += length + 1;
    }

    /// Reads the words of a program without a description.
    fn unknown(&mut self) {
        while let Some(word) = self.words.get(self.next) {
            let text = word.before();
            if text.starts_with('-') {
                self.option(word);
                continue;
            }
            self.unknown_operand(word);
            self.note(word, Role::Unknown, 0, None);
            self.next += 1;
        }
    }

    /// Reads a word that is either an operand, or a program with the next words as its arguments.
    fn unknown_operand(&mut self, word: &'a Word) {
        if word.constant().is_some_and(|path| self.starts_another(path)) {
            let words = self.words.get(self.next..).unwrap_or_default();
            let mut uses = Vec::new();
            command(words, self.depth + 1, &mut uses);
            self.uses.extend(uses.into_iter().filter(|one| one.role.decides_what_runs() && one.choices.is_none()));
        }
    }

    /// Returns true if a word of an unknown program starts another program:
    ///
    /// - The word is the absolute path of a program that runs other programs.
    /// - The word is the name of an interpreter, and an option for code follows (`x sh -e -c {code}`).
    fn starts_another(&self, path: &str) -> bool {
        let Some((_, description)) = find(path).filter(|(_, description)| description.runs_other_programs()) else {
            return false;
        };
        if path.starts_with('/') {
            return true;
        }
        let behind = self.words.get(self.next + 1..).unwrap_or_default().iter().map(Word::before);
        let mut options = behind.take_while(|word| word.starts_with('-'));
        let has_code =
            |letter: char| description.options.get(&format!("-{letter}")).is_some_and(|o| o.others.is_some());
        options.any(|option| {
            matches!(option, "--command" | "--eval" | "--execute")
                || (!option.starts_with("--") && option.chars().any(has_code))
        })
    }

    /// Adds a use of a parameter with which the requester chooses the option itself.
    fn choice(&mut self, word: &Word) {
        let Some((parameter, before)) = word.placeholders().next() else { return };
        // Value with which the requester completes the option `name`, or chooses its letter in a cluster of letters.
        let chosen = |name: &String| {
            let letter = name.strip_prefix('-').filter(|rest| rest.len() == 1 && !before.starts_with("--"));
            name.strip_prefix(before.as_str()).or(letter).map(str::to_owned)
        };
        let options = self.levels.iter().flat_map(|level| &level.options);
        let choices = options.filter(|(_, option)| option.decides_what_runs()).filter_map(|(name, _)| chosen(name));
        let choices = Some(choices.collect());
        let program = self.program.to_owned();
        self.uses.push(Use { parameter, role: Role::Code, program, before, option: None, choices });
    }

    /// Adds the uses of the free parameters of a word. The first `skipped` bytes of the word are an option or a name.
    fn note(&mut self, word: &Word, role: Role, skipped: usize, option: Option<&str>) {
        for (parameter, before) in word.placeholders() {
            self.uses.push(Use {
                parameter,
                role,
                program: self.program.to_owned(),
                before: before.get(skipped..).unwrap_or_default().to_owned(),
                option: option.map(str::to_owned),
                choices: None,
            });
        }
    }
}
