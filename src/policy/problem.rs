//! Problems of rules. Each variant is one kind of mistake in a rule. The controller reports problems in the conditions
//! of a Whitelist. `writ lint` reports them before the Whitelist is applied.

use super::{MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, RedactionError};

/// Reason why a rule is out of force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// Field that this version of Writ does not know. The rule is out of force, because the field could limit the rule.
    #[error("{field} is not known to this version of writ; is it misspelt? else upgrade writ, or remove it")]
    UnknownField {
        /// Name of the field.
        field: String,
    },
    /// `run` has no words, or more words than the maximum.
    #[error("run must have 1 to {MAXIMUM_WORDS} words")]
    RunLength,
    /// Program that is not a constant absolute path, or that contains `..`, `.`, `//` or `=`, or ends in `/`.
    #[error(
        "run[0] must be a constant absolute path without `..`, `.`, `//` and `=`, and must not end in `/`: write out where the program is, for example /usr/bin/systemctl"
    )]
    ProgramNotAbsolute,
    /// Parameter in the name of a program or in the code of an interpreter.
    #[error("run must not have the parameter {{{name}}} there: {program} takes it as {what}; {remedy}")]
    ParameterAsProgram {
        /// Name of the parameter.
        name: String,
        /// Program that would execute the value.
        program: String,
        /// Role of the value for that program.
        what: &'static str,
        /// Remedy.
        remedy: &'static str,
    },
    /// Byte that is not printable ASCII.
    #[error(
        "{field} must be printable ASCII, but has byte 0x{byte:02x} at {position}: not every login shell passes it on; \
         put text that needs it into a file or a script on the machine"
    )]
    ForbiddenByte {
        /// Name of the field.
        field: &'static str,
        /// Position of the byte, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// Text that is empty or too long.
    #[error("{field} must have 1 to {MAXIMUM_TEXT_BYTES} bytes")]
    TextLength {
        /// Name of the field.
        field: &'static str,
    },
    /// Brace that is not doubled and not part of a placeholder.
    #[error("{field} has a single brace: write {{name}} for a parameter, {{{{ and }}}} for braces themselves")]
    UnescapedBrace {
        /// Name of the field.
        field: &'static str,
    },
    /// Placeholder whose parameter is not declared.
    #[error("{field} has {{{name}}}, which parameters does not declare; declare it, or write {{{{ and }}}} for braces")]
    UndeclaredParameter {
        /// Name of the field.
        field: &'static str,
        /// Name of the parameter.
        name: String,
    },
    /// Parameter that no placeholder uses.
    #[error("the parameter {name} is not used in {field}; use it there or remove it")]
    UnusedParameter {
        /// Name of the field in which the parameter must be used.
        field: &'static str,
        /// Name of the parameter.
        name: String,
    },
    /// Parameter that is not in `match` and has no default, so that a request by text gives it no value.
    #[error("the parameter {name} is in run but not in match: put it there, or give it a default")]
    MissingFromMatch {
        /// Name of the parameter.
        name: String,
    },
    /// Invalid name of a parameter or of a variable.
    #[error(
        "{field} has the name {name:?}: a name must have 1 to 63 letters, digits and `_`, and not begin with a digit"
    )]
    Name {
        /// Name of the field.
        field: &'static str,
        /// Name of the parameter or the variable.
        name: String,
    },
    /// Text from which the values of its parameters can be read in two ways.
    #[error(
        "{field} can be read in two ways: behind {{{name}}} there must be text whose first character it does not admit, \
         and in match it must not admit a space unless it is at the end; narrow it, or {remedy}"
    )]
    AmbiguousTemplate {
        /// Name of the field.
        field: &'static str,
        /// Name of the parameter.
        name: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// Parameter or variable that does not have exactly one of `enum`, `integer` and `pattern`, or has an empty `enum`.
    #[error("{field} must have exactly one of enum (with at least one value), integer and pattern")]
    NotExactlyOneKind {
        /// Path of the field.
        field: String,
    },
    /// Integer range that contains no value, or has a negative minimum.
    #[error("{field}.integer must have a minimum of at least 0 and a maximum that is not less")]
    IntegerRange {
        /// Path of the field.
        field: String,
    },
    /// Invalid regular expression.
    #[error("{field}.pattern is no regular expression: {message}")]
    PatternSyntax {
        /// Path of the field.
        field: String,
        /// Message of the parser.
        message: String,
    },
    /// Pattern with an anchor, for example `^`, `$` or `\b`.
    #[error(
        "{field}.pattern must not have ^, $, \\A, \\z or \\b: a pattern always matches the whole value; remove them"
    )]
    PatternAnchor {
        /// Path of the field.
        field: String,
    },
    /// Pattern that is too long, or whose automaton is too large.
    #[error("{field} is too large: write it shorter, and use maxLength instead of large counts in {{..}}")]
    PatternTooLarge {
        /// Path of the field.
        field: String,
    },
    /// Pattern that no value matches.
    #[error(
        "{field}.pattern matches no value at all; `&&`, `--` and `~~` inside of [ ] are operators on sets, write \\&, \\- and \\~ for \
         the characters"
    )]
    PatternNeverMatches {
        /// Path of the field.
        field: String,
    },
    /// The patterns of a Whitelist are too large in total.
    #[error("the patterns of this Whitelist are too large together; put some rules into another one, or narrow them")]
    PatternsTooLarge,
    /// Invalid redaction.
    #[error(transparent)]
    Redaction(#[from] RedactionError),
    /// Parameter or variable that admits an empty value.
    #[error("{field} must not admit an empty value")]
    MatchesEmpty {
        /// Path of the field.
        field: String,
    },
    /// Parameter with a value that is not printable ASCII, or with a pattern that admits a single quote, a backslash or
    /// `!`.
    #[error(
        "{field} must not admit byte 0x{byte:02x}: say which characters it admits, for example [A-Za-z0-9_][A-Za-z0-9._-]* \
         (printable ASCII without `'`, `!` and `\\`, which only an enum may list; `.` and [^...] admit more than that)"
    )]
    AdmitsByte {
        /// Path of the field.
        field: String,
        /// The byte.
        byte: u8,
    },
    /// Parameter that admits a value that a program would read as an option.
    #[error(
        "the parameter {name} admits {value:?} at the beginning of a word of run, which the program would take for an option: \
         {remedy}"
    )]
    OptionAsOperand {
        /// Name of the parameter.
        name: String,
        /// Value that the parameter admits.
        value: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// Parameter that admits a value that a program would read as an option. The `--` before the parameter does not
    /// prevent this, because the `--` can be the value of an option.
    #[error(
        "the parameter {name} admits {value:?} at the beginning of a word of run, which the program would take for an option: \
         the -- before it may be the value of {option}; begin the pattern with a letter, a digit or _, for example \
         [A-Za-z0-9_][A-Za-z0-9._-]*, or, if {option} takes a value, write that value between {option} and --"
    )]
    DashesOfAnOption {
        /// Name of the parameter.
        name: String,
        /// Value that the parameter admits.
        value: String,
        /// Option before the `--`.
        option: String,
    },
    /// Pattern that admits `..` as a path segment, so that a value can name a parent directory.
    #[error(
        "{field} admits values with which {place} is {word:?}, and `..` leads to a parent directory: begin its pattern, and what \
         it has behind each /, with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]* for a name and \
         [A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)* for a path below a directory; or write allowParentDirectory: \
         true next to the pattern, if that is meant"
    )]
    ParentDirectory {
        /// Path of the parameter or the variable.
        field: String,
        /// Position of the word (`run[INDEX]`), or name of the variable.
        place: String,
        /// Example of the word or the variable, with a value that the pattern admits.
        word: String,
    },
    /// Field that applies only to patterns, but is set on an enum or an integer.
    #[error(
        "{field}.allowParentDirectory has no effect with enum and integer, whose values the author has chosen; remove it"
    )]
    OnlyForPatterns {
        /// Path of the parameter.
        field: String,
    },
    /// Default that the parameter does not admit.
    #[error("{field}.default must be one of its values")]
    InvalidDefault {
        /// Path of the field.
        field: String,
    },
    /// Field that has no effect on a Deny, for example because a Deny runs no command.
    #[error("{field} has no effect on a rule with effect Deny; remove it")]
    NotAllowedOnDeny {
        /// Name of the field.
        field: String,
    },
    /// Field about interactive sessions, on a rule that permits none.
    #[error("{field} has no effect without interactive: true; add interactive: true to the rule, or remove {field}")]
    OnlyForInteractive {
        /// Name of the field.
        field: String,
    },
    /// Variable with which a requester could choose the code that runs.
    #[error("environment must not have {name}: it decides what a shell, a loader or an interpreter runs")]
    DangerousVariable {
        /// Name of the variable.
        name: String,
    },
    /// Variable that needs an enum, because programs read a program, code or a configuration from the variable.
    #[error(
        "environment.{name} must have enum: programs take a program, an option, code or a configuration from that variable, so the \
         rule has to list the values that are meant"
    )]
    LoadingVariable {
        /// Name of the variable.
        name: String,
    },
    /// Invalid user name.
    #[error(
        "runAs must be a user name: at most 32 printable ASCII characters (64 with a domain) without blanks, quotes and \
         `: / ; & < > | ( ) {{ }}`, with `$` only at the end, not beginning with `-`, `#`, `%`, `+` or `\\`, and no number"
    )]
    RunAs,
    /// Working directory that is relative, contains `..`, `.` or `//`, or ends in `/`.
    #[error("workingDirectory must be an absolute path without `..`, `.` and `//`, and must not end in `/`")]
    WorkingDirectory,
    /// Empty list of subjects.
    #[error("subjects must have at least one entry; leave the field out to allow everybody")]
    NoSubjects,
    /// Invalid subject.
    #[error("subjects: {name:?} must have a name, and a namespace only with kind ServiceAccount")]
    Subject {
        /// Name of the subject.
        name: String,
    },
    /// Selector with an operator that does not fit its values, for example `In` without values.
    #[error("machineSelector: {key}: In and NotIn must have values, Exists and DoesNotExist none")]
    Selector {
        /// Name of the label.
        key: String,
    },
    /// Default timeout that is greater than the maximum, or a timeout that is out of range.
    #[error("timeoutSeconds must be 1 to 86400, and its default not more than its maximum")]
    Timeout,
    /// Bound for output that is out of range.
    #[error(
        "output.inlineBytes must be 0 to 16384, output.maximumBytes 1024 to 1099511627776, output.drainSeconds 0 to 60"
    )]
    Output,
    /// Minimum retention that is out of range.
    #[error("minimumRetentionSeconds must be 0 to 31536000")]
    MinimumRetention,
}
