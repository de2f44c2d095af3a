//! What a rule may never do: one variant each, told when the Whitelist is read (by the controller in its conditions,
//! by `writ lint` before it is applied).

use super::{MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, RedactionError};

/// Why a rule is out of force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RuleProblem {
    /// It has a field that this version does not know, and that may narrow it.
    #[error("{field} is not known to this version of writ; is it misspelt? else upgrade writ, or remove it")]
    UnknownField {
        /// The field.
        field: String,
    },
    /// Nothing to execute.
    #[error("run must have 1 to {MAXIMUM_WORDS} words")]
    RunLength,
    /// A program that is found by a search path, or whose path can be read in two ways.
    #[error(
        "run[0] must be a constant absolute path without `..`, `.`, `//` and `=`, and must not end in `/`: write out where the program is, for example /usr/bin/systemctl"
    )]
    ProgramNotAbsolute,
    /// A parameter where the program is said, or in what an interpreter reads as its program.
    #[error("run must not have the parameter {{{name}}} there: {program} takes it as {what}; {remedy}")]
    ParameterAsProgram {
        /// The parameter.
        name: String,
        /// The program that would run it.
        program: String,
        /// Description of what the value would be to that program.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A byte that is not printable ASCII.
    #[error(
        "{field} must be printable ASCII, but has byte 0x{byte:02x} at {position}: not every login shell passes it on; \
         put text that needs it into a file or a script on the machine"
    )]
    ForbiddenByte {
        /// The field.
        field: &'static str,
        /// Where, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// More than the bound, or nothing.
    #[error("{field} must have 1 to {MAXIMUM_TEXT_BYTES} bytes")]
    TextLength {
        /// The field.
        field: &'static str,
    },
    /// A brace that is neither a place nor doubled.
    #[error("{field} has a single brace: write {{name}} for a parameter, {{{{ and }}}} for braces themselves")]
    StrayBrace {
        /// The field.
        field: &'static str,
    },
    /// A place for a parameter that is not there.
    #[error("{field} has {{{name}}}, which parameters does not declare; declare it, or write {{{{ and }}}} for braces")]
    UndeclaredParameter {
        /// The field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A parameter without a place.
    #[error("the parameter {name} is not used in {field}; use it there or remove it")]
    UnusedParameter {
        /// Where it should be used.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A parameter for which a text gives no value.
    #[error("the parameter {name} is in run but not in match: put it there, or give it a default")]
    NoValueFromMatch {
        /// The name.
        name: String,
    },
    /// A parameter or variable whose name is none.
    #[error(
        "{field} has the name {name:?}: a name must have 1 to 63 letters, digits and `_`, and not begin with a digit"
    )]
    Name {
        /// The field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A text that can be read in two ways.
    #[error(
        "{field} can be read in two ways: behind {{{name}}} there must be text whose first character it does not admit, \
         and in match it must not admit a space unless it is at the end; narrow it, or {remedy}"
    )]
    AmbiguousTemplate {
        /// The field.
        field: &'static str,
        /// The parameter.
        name: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A parameter that says how its values look in no way, or in several.
    #[error("{field} must have exactly one of enum (with at least one value), integer and pattern")]
    NotExactlyOneKind {
        /// Its path.
        field: String,
    },
    /// A range with nothing in it.
    #[error("{field}.integer must have a minimum of at least 0 and a maximum that is not less")]
    IntegerRange {
        /// Its path.
        field: String,
    },
    /// A pattern that is none.
    #[error("{field}.pattern is no regular expression: {message}")]
    PatternSyntax {
        /// Its path.
        field: String,
        /// The parser's words.
        message: String,
    },
    /// A pattern with `^`, `$`, `\b` or the like.
    #[error(
        "{field}.pattern must not have ^, $, \\A, \\z or \\b: it is always held against the whole value; remove them"
    )]
    PatternAnchor {
        /// Its path.
        field: String,
    },
    /// A pattern that is too long, or that compiles into too much.
    #[error("{field} is too large: write it shorter, and use maxLength instead of large counts in {{..}}")]
    PatternTooLarge {
        /// Its path.
        field: String,
    },
    /// A pattern that no value matches.
    #[error(
        "{field}.pattern matches no value at all; `&&`, `--` and `~~` inside of [ ] are operators on sets, write \\&, \\- and \\~ for \
         the characters"
    )]
    PatternNeverMatches {
        /// Its path.
        field: String,
    },
    /// Patterns that are small alone and too much together.
    #[error("the patterns of this Whitelist are too large together; put some rules into another one, or narrow them")]
    PatternsTooLarge,
    /// A redaction that could not be applied.
    #[error(transparent)]
    Redaction(#[from] RedactionError),
    /// A value that would leave a word or a variable empty.
    #[error("{field} must not admit an empty value")]
    AdmitsEmpty {
        /// Its path.
        field: String,
    },
    /// A value with a byte that is not printable ASCII, or a pattern that admits a quote, a backslash or `!`.
    #[error(
        "{field} must not admit byte 0x{byte:02x}: say which characters it admits, for example [A-Za-z0-9_][A-Za-z0-9._-]* \
         (printable ASCII without `'`, `!` and `\\`, which only an enum may list; `.` and [^...] admit more than that)"
    )]
    AdmitsByte {
        /// Its path.
        field: String,
        /// The byte.
        byte: u8,
    },
    /// A value that a program would take for an option.
    #[error(
        "the parameter {name} admits {value:?} at the beginning of a word of run, which the program would take for an option: \
         {remedy}"
    )]
    OptionAsOperand {
        /// The parameter.
        name: String,
        /// A value that it admits.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// The same behind a `--` that may be the value of an option.
    #[error(
        "the parameter {name} admits {value:?} at the beginning of a word of run, which the program would take for an option: \
         the -- before it may be the value of {option}; begin the pattern with a letter, a digit or _, for example \
         [A-Za-z0-9_][A-Za-z0-9._-]*, or, if {option} takes a value, write that value between {option} and --"
    )]
    DashesOfAnOption {
        /// The parameter.
        name: String,
        /// A value that it admits.
        value: String,
        /// The option before the `--`.
        option: String,
    },
    /// A pattern with which a path can leave its folder.
    #[error(
        "{field} admits values with which {place} is {word:?}, and `..` leads to a parent directory: begin its pattern, and what \
         it has behind each /, with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]* for a name and \
         [A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)* for a path below a folder; or write allowParentDirectory: \
         true beside the pattern, if that is meant"
    )]
    ParentDirectory {
        /// Path of the parameter or the variable.
        field: String,
        /// The word of run, or the variable.
        place: String,
        /// A word that it makes possible.
        word: String,
    },
    /// A field about patterns beside an enum or an integer.
    #[error(
        "{field}.allowParentDirectory means nothing beside enum and integer, whose values the author has chosen; remove it"
    )]
    OnlyForPatterns {
        /// Path of the parameter.
        field: String,
    },
    /// A default that the parameter itself does not admit.
    #[error("{field}.default is none of its values")]
    DefaultNotAdmitted {
        /// Its path.
        field: String,
    },
    /// A field of what runs, on a rule that runs nothing.
    #[error("{field} means nothing on a rule with effect Deny; remove it")]
    MeansNothingOnDeny {
        /// The field.
        field: String,
    },
    /// A variable by which a caller would steer what runs.
    #[error("environment must not have {name}: it steers a shell, a loader or an interpreter")]
    SteeringVariable {
        /// The variable.
        name: String,
    },
    /// A variable of which programs take a program, code or configuration, with values that the author did not list.
    #[error(
        "environment.{name} must have enum: programs take a program, an option, code or a configuration from that variable, so the \
         rule has to list the values that are meant"
    )]
    LoadingVariable {
        /// The variable.
        name: String,
    },
    /// A user that is no user name.
    #[error(
        "runAs must be a user name: at most 32 printable ASCII characters (64 with a domain) without blanks, quotes and \
         `: / ; & < > | ( ) {{ }}`, with `$` only at the end, not beginning with `-`, `#`, `%`, `+` or `\\`, and no number"
    )]
    RunAs,
    /// A folder that is found relative to another, or whose path can be read in two ways.
    #[error("workingDirectory must be an absolute path without `..`, `.` and `//`, and must not end in `/`")]
    WorkingDirectory,
    /// Subjects that are none.
    #[error("subjects must have at least one entry; leave the field out to allow everybody")]
    NoSubjects,
    /// A subject that cannot be anybody.
    #[error("subjects: {name:?} must have a name, and a namespace only with kind ServiceAccount")]
    Subject {
        /// Its name.
        name: String,
    },
    /// A selector that Kubernetes would not take either.
    #[error("machineSelector: {key}: In and NotIn must have values, Exists and DoesNotExist none")]
    Selector {
        /// The label.
        key: String,
    },
    /// A default over the maximum, or a time that is none.
    #[error("timeoutSeconds must be 1 to 86400, and its default not more than its maximum")]
    Timeout,
    /// Bounds on output that are none.
    #[error(
        "output.inlineBytes must be 0 to 16384, output.maximumBytes 1024 to 1099511627776, output.drainSeconds 0 to 60"
    )]
    Output,
    /// A retention that is none.
    #[error("minimumRetentionSeconds must be 0 to 31536000")]
    MinimumRetention,
}
