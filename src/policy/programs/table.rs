//! What is known of programs: which of their words are code, programs, configurations, files or plain values.
//!
//! The knowledge is in `tables/*.txt`, a line per program; `tables/README.md` describes the form.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::base_name;
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

/// What a program does with a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// A value and no more.
    Value,
    /// Code, or a file that says what to run.
    Code,
    /// A program that it runs.
    Program,
    /// The program that it runs, and all words behind that one are the words of that program.
    Command,
    /// A file of code; all words behind it are words of that code.
    Script,
    /// A file that can say what to run or to load.
    Configuration,
    /// A library, module or plugin that it loads.
    Library,
    /// A folder whose files can say what to run.
    Project,
    /// A package that it installs, by name or by file.
    Package,
    /// The account with whose rights it runs a program, or that it changes.
    Account,
    /// An account, a group, a container or the like that it acts on.
    Identity,
    /// A name, or the address of a server.
    Address,
    /// A subcommand, which decides what the other words are.
    Subcommand,
    /// A target that it builds, or a setting of the build.
    Goal,
    /// A file that it reads or writes.
    File,
    /// A host or an address that it connects to.
    Remote,
    /// NAME=VALUE, where the name decides what it is.
    Setting,
    /// Something that nobody has described.
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

    /// Returns true if a caller who chooses such a word chooses what runs.
    pub fn decides_what_runs(self) -> bool {
        match self {
            Self::Code | Self::Program | Self::Command | Self::Script | Self::Configuration | Self::Library => true,
            Self::Project | Self::Account | Self::Subcommand | Self::Goal => true,
            Self::Value | Self::File | Self::Remote | Self::Setting | Self::Unknown | Self::Package => false,
            Self::Identity | Self::Address => false,
        }
    }
}

/// An option of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct ProgramOption {
    /// What its values are, in order; none for a flag.
    pub values: Vec<Role>,
    /// The value stands in the same word only (`sed -i.bak`).
    pub is_attached: bool,
    /// With this option, every other word has this role (`sh -c`).
    pub others: Option<Role>,
    /// The option stands in for the first operand (`awk -f`).
    pub replaces_operand: bool,
}

/// What is known of a program, or of one of its subcommands.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    pub options: HashMap<String, ProgramOption>,
    pub operands: Vec<Role>,
    /// What the operands behind those are.
    pub rest: Option<Role>,
    /// Long options begin with a single dash (`find -exec`, `java -jar`).
    pub has_one_dash: bool,
    /// The first word may be options without a dash (`tar xf`).
    pub has_old_style: bool,
    /// NAME=VALUE before the operands sets a variable (`env`, `sudo`).
    pub has_assignments: bool,
    /// A subcommand that only groups others (`docker container`).
    pub is_group: bool,
}

#[derive(Debug, Default)]
struct Programs {
    by_name: HashMap<String, Description>,
    /// Lines that cannot be read; a test holds that there are none.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test"))]
    wrong: Vec<String>,
}

/// Returns the known name of a program and its description.
pub(super) fn find(path: &str) -> Option<(&str, &'static Description)> {
    let programs = &PROGRAMS.by_name;
    if let Some(name) = known_name(path, &|name| programs.contains_key(name)) {
        return Some((name, programs.get(name)?));
    }
    // `/usr/lib/git-core/git-submodule` is `git submodule`.
    let subcommand = base_name(path).strip_prefix("git-")?;
    let (name, description) = programs.get_key_value(&format!("git {subcommand}"))?;
    Some((name, description))
}

/// Returns the description of a subcommand; `name` is the name of the program and of the subcommands before it.
pub(super) fn find_subcommand(name: &str) -> Option<&'static Description> {
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
                _ => match clause.split_once(':') {
                    Some(("like", other)) => {
                        description = self.by_name.get(&other.replace('/', " "))?.clone();
                    }
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
    /// `-x,--long=role`, `1=role`, `*=role`.
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
        for name in names.split(',') {
            self.options.insert(name.to_owned(), option.clone());
        }
        Some(())
    }

    pub fn operand(&self, number: usize) -> Role {
        self.operands.get(number).copied().or(self.rest).unwrap_or(Role::Unknown)
    }

    /// Returns true if it runs what stands among its words.
    pub fn runs_others(&self) -> bool {
        let is_runner = |role: &Role| matches!(role, Role::Command | Role::Script | Role::Code | Role::Program);
        self.operands.iter().chain(&self.rest).any(is_runner)
            || self.options.values().any(|option| option.others.is_some_and(|role| is_runner(&role)))
    }

    /// Looks up a long option by an abbreviation of its name.
    pub fn abbreviated(&self, name: &str) -> Option<&ProgramOption> {
        let is_meant = |known: &&String| name.len() > 3 && known.starts_with("--") && known.starts_with(name);
        let mut meant: Vec<_> = self.options.keys().filter(is_meant).collect();
        // Among several the one that matters, in an order that does not change.
        meant.sort();
        let options = || meant.iter().filter_map(|name| self.options.get(*name));
        options().find(|option| option.decides_what_runs()).or_else(|| options().next())
    }

    /// Returns the longest option with one dash that `text` begins with, and the text behind it.
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
