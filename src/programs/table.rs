//! Describes the words of programs: the role of each word (for example code, file or plain value), and the way in which
//! a program finds a command among its words.
//!
//! `tables/*.txt` has one line for each program. `tables/README.md` describes the format.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::base_name;
use super::names::known_name;

const TEXTS: &[&str] = &[
    include_str!("tables/launchers.txt"),
    include_str!("tables/interpreters.txt"),
    include_str!("tables/builds.txt"),
    include_str!("tables/files.txt"),
    include_str!("tables/system.txt"),
    include_str!("tables/containers.txt"),
    include_str!("tables/services.txt"),
    include_str!("tables/network.txt"),
    include_str!("tables/harmless.txt"),
];

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| Programs::parse(TEXTS));

/// Role of a word for its program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Plain value.
    Value,
    /// Code, or a file that defines what to run.
    Code,
    /// Other program that the program runs.
    Program,
    /// Other program that the program runs. All later words belong to the other program.
    Command,
    /// File with code. All later words are arguments of this code.
    Script,
    /// File that can define what to run or what to load.
    Configuration,
    /// Library, module or plugin that the program loads.
    Library,
    /// Directory with files that can define what to run.
    Project,
    /// Package that the program installs, as a name or a file.
    Package,
    /// Text that the program splits into words itself (`env -S`).
    Text,
    /// Account that executes the inner command (`sudo -u`).
    User,
    /// Account that the program changes, or that it uses to run another program.
    Account,
    /// Account, group, container or similar object on which the program acts.
    Identity,
    /// Plain name, or the address of a server.
    Address,
    /// Subcommand. It decides the roles of the other words.
    Subcommand,
    /// Target that the program builds, or a setting of the build.
    Goal,
    /// File that the program reads or writes.
    File,
    /// Host or address to which the program connects.
    Remote,
    /// NAME=VALUE. The name decides the meaning of the value.
    Setting,
    /// Word without a description.
    Unknown,
}

impl Role {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "value" => Self::Value,
            "code" => Self::Code,
            "program" => Self::Program,
            "command" => Self::Command,
            "script" => Self::Script,
            "config" => Self::Configuration,
            "library" => Self::Library,
            "project" => Self::Project,
            "package" => Self::Package,
            "text" => Self::Text,
            "user" => Self::User,
            "account" => Self::Account,
            "sub" => Self::Subcommand,
            "goal" => Self::Goal,
            "identity" => Self::Identity,
            "address" => Self::Address,
            "file" => Self::File,
            "remote" => Self::Remote,
            "setting" => Self::Setting,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// Returns true if a word with this role decides which program or code runs. A requester must not choose such a
    /// word.
    pub fn decides_what_runs(self) -> bool {
        match self {
            Self::Code | Self::Program | Self::Command | Self::Script | Self::Configuration | Self::Library => true,
            Self::Text | Self::Project | Self::User | Self::Account | Self::Subcommand | Self::Goal => true,
            Self::Value | Self::File | Self::Remote | Self::Setting | Self::Unknown | Self::Package => false,
            Self::Identity | Self::Address => false,
        }
    }
}

/// Option of a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgramOption {
    /// Roles of the option's values, in order. Empty for an option without a value.
    pub values: Vec<Role>,
    /// True if the value must be in the same word as the option (`sed -i.bak`).
    pub is_attached: bool,
    /// Role that this option gives to all words after the option (`sh -c`).
    pub others: Option<Role>,
    /// True if implementations of the program differ in this option. Only the checks of roles use such an option.
    /// [`Description::takes`] returns [`Takes::Unknown`] for such an option.
    pub is_uncertain: bool,
    /// True if the option replaces the first operand (`awk -f`).
    pub replaces_operand: bool,
}

/// Description of a program, or of one of its subcommands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub options: HashMap<String, ProgramOption>,
    pub operands: Vec<Role>,
    /// Role of all operands that `operands` does not describe.
    pub rest: Option<Role>,
    /// True if options with long names begin with a single dash (`find -exec`, `java -jar`).
    pub has_one_dash: bool,
    /// True if the first word can be options without a dash (`tar xf`).
    pub has_old_style: bool,
    /// True if NAME=VALUE before the operands sets a variable (`env`, `sudo`).
    pub has_assignments: bool,
    /// True for a subcommand that only groups other subcommands (`docker container`).
    pub is_group: bool,
    /// True if the table lists all options of the manual, with and without a value. The position of the inner command
    /// is then certain.
    pub is_exact: bool,
    /// True if any word after the program can be the beginning of a command.
    pub starts_any_word: bool,
    /// True if the inner command can run as any user, even if no word names an account.
    pub is_for_any_user: bool,
    /// True if an option must name the user (`runuser`). Without this option, the words have another meaning.
    pub needs_user: bool,
    /// User that executes the inner command if no option names a user.
    pub default_user: Option<String>,
    /// True if the program adds words to the inner command: words from its input (`xargs`), or names of files (`find`).
    pub adds_words: bool,
}

/// Value that an option takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    Nothing,
    /// A value in the same word or in the next word.
    Value,
    /// The table does not list the option, or implementations of the program differ in this option.
    Unknown,
}

/// Way in which a program finds a command among its words and starts it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The program starts none of its words.
    Nothing,
    /// The command follows the options and operands. The tables list all options and operands, so the position of the
    /// command is certain.
    Exact,
    /// The first operand is a script.
    Script,
    /// Any word after the program can be the beginning of the command.
    AnyWord,
}

#[derive(Debug, Default)]
struct Programs {
    by_name: HashMap<String, Description>,
    /// Invalid lines of the tables. A test checks that this list is empty.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test"))]
    wrong: Vec<String>,
}

/// Returns the known name of a program, and the description of the program.
pub(crate) fn find(path: &str) -> Option<(&str, &'static Description)> {
    let programs = &PROGRAMS.by_name;
    if let Some(name) = known_name(path, &|name| programs.contains_key(name)) {
        return Some((name, programs.get(name)?));
    }
    // A program `git-NAME` is the subcommand NAME of git, for example `/usr/lib/git-core/git-submodule`.
    let subcommand = base_name(path).strip_prefix("git-")?;
    let (name, description) = programs.get_key_value(&format!("git {subcommand}"))?;
    Some((name, description))
}

/// Returns the description of a subcommand by its full name, for example `docker run`.
pub(crate) fn find_subcommand(name: &str) -> Option<&'static Description> {
    PROGRAMS.by_name.get(name)
}

impl Programs {
    fn parse(texts: &[&str]) -> Self {
        let mut programs = Self::default();
        for line in texts.iter().flat_map(|text| text.lines()) {
            let line = line.split_once(" #").map_or(line, |(line, _)| line).trim_end();
            if !line.is_empty() && !line.starts_with('#') && programs.add(line).is_none() {
                programs.wrong.push(line.to_owned());
            }
        }
        programs
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let (names, clauses) = line.split_once(':')?;
        let mut description = Description::default();
        for clause in clauses.split_whitespace() {
            match clause {
                "one-dash" => description.has_one_dash = true,
                "old-style" => description.has_old_style = true,
                "assignments" => description.has_assignments = true,
                "group" => description.is_group = true,
                "exact" => description.is_exact = true,
                "starts" => description.starts_any_word = true,
                "any-user" => description.is_for_any_user = true,
                "needs-user" => description.needs_user = true,
                "reads-words" => description.adds_words = true,
                _ => match clause.split_once(':') {
                    Some(("like", other)) => {
                        description = self.by_name.get(&other.replace('/', " "))?.clone();
                    }
                    Some(("as", user)) => description.default_user = Some(user.to_owned()),
                    _ => description.add(clause)?,
                },
            }
        }
        let mut all = vec![String::new()];
        for part in names.split_whitespace() {
            let longer = |name: &String| {
                let parts = part.split(',').filter(|part| !part.is_empty());
                let begin = if name.is_empty() { String::new() } else { format!("{name} ") };
                parts.map(|part| format!("{begin}{part}")).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        for name in all {
            if self.by_name.insert(name.clone(), description.clone()).is_some() {
                self.wrong.push(format!("{name} is there twice"));
            }
        }
        Some(())
    }
}

impl Description {
    /// Adds a clause such as `-x,--long=role`, `1=role` or `*=role`.
    fn add(&mut self, clause: &str) -> Option<()> {
        if !clause.starts_with('-') {
            let (place, role) = clause.split_once('=')?;
            let role = Role::parse(role)?;
            match place {
                "*" => self.rest = Some(role),
                _ => {
                    let index = place.parse::<usize>().ok()?.checked_sub(1)?;
                    self.operands.truncate(index);
                    (index == self.operands.len()).then(|| self.operands.push(role))?;
                }
            }
            return Some(());
        }
        let sign = clause.find(['=', '~', '!']).unwrap_or(clause.len());
        let (names, role) = clause.split_at_checked(sign)?;
        let replaces_operand = role.ends_with('^');
        let role = role.trim_end_matches('^');
        let mut option = ProgramOption { replaces_operand, is_attached: role.starts_with('~'), ..Default::default() };
        if let Some(role) = role.strip_prefix('!') {
            option.others = Some(Role::parse(role)?);
        } else if let Some(roles) = role.strip_prefix(['=', '~']) {
            option.values = roles.split(',').map(Role::parse).collect::<Option<_>>()?;
        }
        option.is_uncertain = names.ends_with('?');
        for name in names.trim_end_matches('?').split(',') {
            self.options.insert(name.to_owned(), option.clone());
        }
        Some(())
    }

    pub fn operand(&self, number: usize) -> Role {
        self.operands.get(number).copied().or(self.rest).unwrap_or(Role::Unknown)
    }

    /// Determines if the option with this complete name (`-n`, `--user`) takes a value. Returns [`Takes::Nothing`] if
    /// the value must be in the same word (`sed -i.bak`).
    pub fn takes(&self, name: &str) -> Takes {
        match self.options.get(name) {
            None => Takes::Unknown,
            Some(option) if option.is_uncertain => Takes::Unknown,
            Some(option) if option.values.is_empty() && option.others.is_none() || option.is_attached => Takes::Nothing,
            Some(_) => Takes::Value,
        }
    }

    /// Returns the way in which the program starts a command among its words.
    pub fn start(&self) -> Start {
        let is_inner = |role: &Role| matches!(role, Role::Command | Role::Script);
        let mut options = self.options.values().flat_map(|option| &option.values);
        if self.is_exact {
            Start::Exact
        } else if self.starts_any_word {
            Start::AnyWord
        } else if self.operands.first() == Some(&Role::Script) {
            Start::Script
        } else if self.operands.iter().chain(&self.rest).any(is_inner) || options.any(is_inner) {
            Start::AnyWord
        } else {
            Start::Nothing
        }
    }

    /// Returns the number of operands between the options and the inner command.
    pub fn operands_before_command(&self) -> usize {
        self.operands.iter().take_while(|role| **role != Role::Command).count()
    }

    /// Returns true if an option or an operand can name the account of the inner command.
    pub fn changes_user(&self) -> bool {
        let is_account = |role: &Role| matches!(role, Role::Account | Role::User);
        let mut options = self.options.values().flat_map(|option| &option.values);
        self.is_for_any_user || options.any(is_account) || self.operands.iter().chain(&self.rest).any(is_account)
    }

    /// Returns true if the program runs an operand, or the words after an option, as a program or as code.
    pub fn runs_other_programs(&self) -> bool {
        let is_runner = |role: &Role| matches!(role, Role::Command | Role::Script | Role::Code | Role::Program);
        self.operands.iter().chain(&self.rest).any(is_runner)
            || self.options.values().any(|option| option.others.is_some_and(|role| is_runner(&role)))
    }

    /// Finds a long option by an abbreviation of its name.
    pub fn abbreviated(&self, name: &str) -> Option<&ProgramOption> {
        let is_meant = |known: &&String| name.len() > 3 && known.starts_with("--") && known.starts_with(name);
        let mut meant: Vec<_> = self.options.keys().filter(is_meant).collect();
        // If several options match, an option that decides which program runs is preferred. The sorted order makes the
        // result deterministic.
        meant.sort();
        let options = || meant.iter().filter_map(|name| self.options.get(*name));
        options().find(|option| option.decides_what_runs()).or_else(|| options().next())
    }

    /// Finds the longest option that takes a value and is a prefix of `text`. Returns the option and the text after it:
    /// `-n` and `5` for `-n5`. `text` begins with a single dash.
    pub fn prefix<'t>(&self, text: &'t str) -> Option<(&ProgramOption, &'t str)> {
        let fits = self.options.iter().filter_map(|(name, option)| {
            let rest = text.strip_prefix(name.as_str())?;
            (!option.values.is_empty() || option.others.is_some()).then_some((name.len(), option, rest))
        });
        fits.max_by_key(|(length, _, _)| *length).map(|(_, option, rest)| (option, rest))
    }
}

impl ProgramOption {
    pub fn decides_what_runs(&self) -> bool {
        self.others.is_some() || self.values.iter().any(|role| role.decides_what_runs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_can_be_read() {
        assert_eq!(PROGRAMS.wrong, Vec::<String>::new());
        assert!(PROGRAMS.by_name.len() > 800, "{}", PROGRAMS.by_name.len());
    }
}
