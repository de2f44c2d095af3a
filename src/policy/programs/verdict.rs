//! Checks the use of a free parameter. An error results if the parameter chooses the program to run. A warning results,
//! for example, if the parameter can name any file.

use super::super::template::ParameterSpec;
use super::super::values::ValueSpec;
use super::telling_names::is_telling;
use super::walk::Use;
use crate::programs::table::Role;

const REMEDY_NAME_PROGRAM: &str = "put the constant absolute path of the program that it starts before the parameter, or name that program in run[0] \
     (for another user there is runAs), or list the programs that are meant with enum";
const REMEDY_NAME_SCRIPT: &str =
    "put what it runs into a script and name that by its absolute path in run[1]; behind it there may be parameters";
const REMEDY_NAME_SUBCOMMAND: &str = "make it constant, or list the subcommands that are meant with enum";
const REMEDY_CONSTANT_OR_ENUM: &str = "make it constant, or list the values that are meant with enum";
/// Paths that the author of a rule rarely intends. If a pattern admits one of these paths, it does not fix the
/// directory.
const PROBES: &[&str] =
    &["/etc/passwd", "/etc/hosts", "/tmp/x", "/tmp/x.y", "/tmp/x/", "/bin/sh", "/a", "tmp/x", "a/b", "x/y.z"];

/// Verdict on the use of a parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The use is an error, so the rule is out of force.
    Error {
        what: &'static str,
        remedy: &'static str,
    },
    Warning(String),
    Fine,
}

/// Returns true if a pattern describes the values, and the values can contain more than digits.
pub(in super::super) fn is_free(values: &ValueSpec) -> bool {
    values.enum_values().is_none()
        && (values.bytes.find(|byte| !byte.is_ascii_digit()).is_some() || values.example().is_none())
}

pub(super) fn of(one: &Use, parameter: &ParameterSpec) -> Verdict {
    let values = &parameter.values;
    if let Some(choices) = &one.choices {
        return if choices.iter().any(|choice| chooses(values, choice)) {
            Verdict::Error {
                what: "an option, among them options that name programs or code",
                remedy: REMEDY_CONSTANT_OR_ENUM,
            }
        } else {
            Verdict::Fine
        };
    }
    let place = Place { one, name: &parameter.name, values };
    match one.role {
        Role::Value => Verdict::Fine,
        Role::Code | Role::Text => {
            Verdict::Error { what: "code, or as a file that says what to run", remedy: code_remedy(one) }
        }
        Role::Program | Role::Command => Verdict::Error { what: "a program to run", remedy: REMEDY_NAME_PROGRAM },
        Role::Script => Verdict::Error { what: "a script to run", remedy: REMEDY_NAME_SCRIPT },
        Role::Account | Role::User => Verdict::Error {
            what: "an account or group that decides what a program may do",
            remedy: REMEDY_CONSTANT_OR_ENUM,
        },
        Role::Subcommand => {
            Verdict::Error { what: "the subcommand, which decides what runs", remedy: REMEDY_NAME_SUBCOMMAND }
        }
        Role::Goal => {
            Verdict::Error { what: "a target to build, or a setting of the build", remedy: REMEDY_CONSTANT_OR_ENUM }
        }
        Role::Configuration => place.unless_pinned("a configuration, which can name programs or modules"),
        Role::Library => place.unless_pinned("a library, module or plugin to load"),
        Role::Project => place.project(),
        Role::Package => place.package(),
        Role::Identity => place.identity(),
        Role::Address => place.address(),
        Role::Setting => place.setting(),
        Role::File => place.file("reads or writes the file that it names"),
        Role::Remote => place.remote(),
        Role::Unknown => place.unknown(),
    }
}

fn code_remedy(one: &Use) -> &'static str {
    if one.option.is_none() { REMEDY_NAME_SCRIPT } else { REMEDY_CONSTANT_OR_ENUM }
}

/// Returns true if the parameter can choose this option, alone or together with a value for the option.
fn chooses(values: &ValueSpec, choice: &str) -> bool {
    let longer = ["", "=x", "=/x", "x", "/x", "=a", "a"].map(|end| format!("{choice}{end}"));
    longer.iter().any(|value| values.check(value).is_ok())
        || (choice.len() == 1 && choice.bytes().all(|byte| values.bytes.contains(byte)))
}

struct Place<'a> {
    one: &'a Use,
    name: &'a str,
    values: &'a ValueSpec,
}

impl Place<'_> {
    /// Returns the program and, if there is one, its option: `tar (--x)` or `tar`.
    fn taker(&self) -> String {
        let program = &self.one.program;
        self.one.option.as_ref().map_or_else(|| program.clone(), |option| format!("{program} ({option})"))
    }

    fn admits_slash(&self) -> bool {
        self.values.bytes.contains(b'/')
    }

    /// Returns true if the directory or the host is fixed, by the text before the placeholder or by the pattern itself.
    fn is_pinned(&self) -> bool {
        let before = self.one.before.as_str();
        let path = before.rsplit(['=', ',']).next().unwrap_or(before);
        let path = path.split_once("://").map_or(path, |(_, path)| path);
        path.trim_start_matches('/').contains('/') || (self.one.before.is_empty() && is_pinned_itself(self.values))
    }

    /// Returns true if the value can name any file.
    fn is_wild(&self) -> bool {
        self.admits_slash() && !self.is_pinned()
    }

    fn warn(&self, what: &str) -> Verdict {
        Verdict::Warning(format!("{}: {} {what}", self.name, self.taker()))
    }

    /// Checks a value that decides the program or the code to run. Returns an error if the value can name a file in any
    /// directory. Returns a warning if the author fixed the directory.
    fn unless_pinned(&self, what: &'static str) -> Verdict {
        if !self.is_pinned() {
            return Verdict::Error { what, remedy: REMEDY_CONSTANT_OR_ENUM };
        }
        self.warn("takes it as a configuration or as something to load: make sure that only trusted people can write into that directory")
    }

    fn project(&self) -> Verdict {
        match (self.is_pinned(), self.admits_slash()) {
            (true, _) => Verdict::Fine,
            (false, true) => {
                Verdict::Error { what: "a directory or file that can say what to run", remedy: REMEDY_CONSTANT_OR_ENUM }
            }
            (false, false) => self.warn(
                "takes it as a directory or file that can say what to run: put a constant directory before it, or use enum",
            ),
        }
    }

    fn package(&self) -> Verdict {
        if self.values.bytes.find(|byte| matches!(byte, b'/' | b':')).is_some() && !self.is_pinned() {
            return Verdict::Error {
                what: "a package to install, also one that the caller has made",
                remedy: REMEDY_CONSTANT_OR_ENUM,
            };
        }
        self.warn(
            "takes it as a package, whose scripts run at the installation: list the packages that are meant with enum",
        )
    }

    fn setting(&self) -> Verdict {
        match self.one.before.split_once('=') {
            Some((key, _)) if is_telling(key) => {
                self.warn("takes it as the value of a setting that looks like a program, code or configuration: make it constant, or use enum")
            }
            Some(_) => self.unknown(),
            None if self.one.option.is_some() || self.values.bytes.contains(b'=') => {
                Verdict::Error { what: "a setting, with its name", remedy: "write the name of the setting and = before the parameter, or use enum" }
            }
            None => self.warn("takes it as a setting: write the name of the setting and = before the parameter, or use enum"),
        }
    }

    fn file(&self, does: &str) -> Verdict {
        if !self.is_wild() {
            return Verdict::Fine;
        }
        self.warn(&format!(
            "{does}, in whichever directory that is: put a constant directory before the parameter and leave / out of the pattern, or use enum"
        ))
    }

    fn identity(&self) -> Verdict {
        if !self.one.before.is_empty() || begins_with_constant(self.values) {
            return Verdict::Fine;
        }
        self.warn("acts on the account, group, container or machine that it names, and the caller chooses any: list those that are meant with enum")
    }

    fn address(&self) -> Verdict {
        let is_address = self.one.before.is_empty() && self.values.bytes.find(|byte| b":/=@".contains(&byte)).is_some();
        if is_address { self.remote() } else { Verdict::Fine }
    }

    fn remote(&self) -> Verdict {
        // True if the author fixed the host, for example with `backup.internal:/srv/{name}`.
        let has_host =
            self.one.before.split_once(':').is_some_and(|(host, rest)| !host.is_empty() && !rest.starts_with("//"));
        if has_host || self.is_pinned() {
            return Verdict::Fine;
        }
        self.warn("connects to the host or address that it names, and the caller chooses which: put the constant host before the parameter, or use enum")
    }

    fn unknown(&self) -> Verdict {
        let is_telling = self.one.option.as_deref().is_some_and(is_telling);
        if is_telling && !self.is_pinned() {
            return self.warn("seems to take it as a program, code or configuration, by the name of the option: make it constant, or use enum");
        }
        self.file("is not known to take this word as no more than a value: it may read, write, load or run the file that it names")
    }
}

/// Returns true if all values seem to begin with the same character. The check is not exact: it tries the example with
/// some other first characters.
fn begins_with_constant(values: &ValueSpec) -> bool {
    let Some(example) = values.example() else { return false };
    let Some(rest) = example.get(1..) else { return false };
    !["a", "q", "z", "0", "7"]
        .iter()
        .any(|first| !example.starts_with(first) && values.check(&format!("{first}{rest}")).is_ok())
}

/// Returns true if all values seem to begin with the same directory or host. The check is not exact: it tries
/// [`PROBES`], and the example with two other first segments.
fn is_pinned_itself(values: &ValueSpec) -> bool {
    let Some(example) = values.example() else { return false };
    if PROBES.iter().any(|probe| values.check(probe).is_ok()) {
        return false;
    }
    let start = example.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = example.split_at_checked(start).unwrap_or(("", &example));
    let slash = if rest.starts_with('/') { "/" } else { "" };
    let Some((first, tail)) = rest.trim_start_matches('/').split_once('/') else { return false };
    let changed = |letter: char| {
        let first: String = first.chars().map(|one| if one.is_ascii_lowercase() { letter } else { one }).collect();
        values.check(&format!("{scheme}{slash}{first}/{tail}")).is_ok()
    };
    let has_letters = first.bytes().any(|byte| byte.is_ascii_alphabetic());
    has_letters && !changed('q') && !changed('z')
}
