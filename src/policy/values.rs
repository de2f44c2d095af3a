//! Values that a parameter or an environment variable may have.

use std::fmt::{self, Display, Formatter};

use crate::api::whitelist::{IntegerRange, Parameter};

use super::pattern::{ByteSet, Pattern};
use super::{MAXIMUM_TEXT_BYTES, RuleError, is_unsafe_in_a_pattern};

/// Default of `maxLength`, in bytes.
const DEFAULT_MAX_LENGTH: u32 = 256;

/// Maximum number of values of an enum that a message shows.
const SHOWN_VALUES: usize = 20;

/// Checked description of the values that a parameter or a variable may have.
#[derive(Clone, Debug)]
pub(super) struct ValueSpec {
    kind: Kind,
    /// Maximum length of a value, in bytes. `None` in a Deny, because a longer value would evade a Deny with a maximum.
    maximum_bytes: Option<usize>,
    /// True if values that match a pattern may contain a path segment `..`.
    allows_parent_directory: bool,
    /// Value to use if the request has no value.
    pub default: Option<String>,
    /// Meaning of the value, for people.
    pub description: Option<String>,
    /// Every byte that a value can contain.
    pub bytes: ByteSet,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Sorted values of an enum.
    OneOf(Vec<String>),
    Integer {
        minimum: u64,
        maximum: u64,
        /// True in a Deny: a plus sign and leading zeros are ignored. The pattern of an Allow can admit +007, so a Deny
        /// of 7 must also match +007.
        ignores_leading_zeros: bool,
    },
    Pattern(Box<Pattern>),
}

/// Form in which a rule describes the values of a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    OneOf(&'a [String]),
    Integer(u64, u64),
    Pattern(&'a str),
}

/// Reason why a parameter does not admit a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ValueError {
    NotListed,
    NotAnInteger,
    OutOfRange,
    TooLong,
    NoMatch,
}

/// Use of a value. The bounds of the value depend on its use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ValueUse {
    /// Word, or part of a word, of the command.
    Argument,
    /// Value of an environment variable.
    Environment,
    /// Value in a Deny. Writ only compares it with requests.
    Deny,
}

impl ValueSpec {
    /// Checks and compiles a parameter. `field` is the path of the parameter, for error messages.
    ///
    /// # Errors
    /// The first problem of the parameter.
    pub fn compile(field: &str, parameter: &Parameter, usage: ValueUse) -> Result<Self, RuleError> {
        let unknown = parameter.unknown_fields.keys();
        if let Some(name) = unknown.chain(parameter.integer.iter().flat_map(|range| range.unknown_fields.keys())).next()
        {
            return Err(RuleError::UnknownField { field: format!("{field}.{name}") });
        }
        let (kind, bytes) = match (&parameter.one_of, &parameter.integer, &parameter.pattern) {
            (Some(values), None, None) => one_of(field, values, usage)?,
            (None, Some(range), None) => integer(field, range, usage)?,
            (None, None, Some(pattern)) => from_pattern(field, pattern, usage)?,
            _ => return Err(RuleError::NotExactlyOneKind { field: field.to_owned() }),
        };
        if usage == ValueUse::Deny && (parameter.max_length.is_some() || parameter.default.is_some()) {
            // Without this check, a requester could evade the Deny with a longer value or with the default.
            return Err(RuleError::NotAllowedOnDeny { field: format!("{field}.maxLength and default") });
        }
        let allows_parent_directory = parameter.allow_parent_directory;
        if allows_parent_directory && usage == ValueUse::Deny {
            return Err(RuleError::NotAllowedOnDeny { field: format!("{field}.allowParentDirectory") });
        }
        if allows_parent_directory && parameter.pattern.is_none() {
            return Err(RuleError::OnlyForPatterns { field: field.to_owned() });
        }
        let maximum = parameter.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
        let maximum_bytes = (usage != ValueUse::Deny).then(|| usize::try_from(maximum).unwrap_or(usize::MAX));
        let (default, description) = (parameter.default.clone(), parameter.description.clone());
        let values = Self { kind, maximum_bytes, allows_parent_directory, default, description, bytes };
        if values.default.as_ref().is_some_and(|default| values.check(default).is_err()) {
            return Err(RuleError::InvalidDefault { field: field.to_owned() });
        }
        Ok(values)
    }

    /// Checks that a value is admitted.
    pub fn check(&self, value: &str) -> Result<(), ValueError> {
        if self.maximum_bytes.is_some_and(|maximum| value.len() > maximum) {
            return Err(ValueError::TooLong);
        }
        match &self.kind {
            Kind::OneOf(values) => values
                .binary_search_by(|listed| listed.as_str().cmp(value))
                .map(drop)
                .map_err(|_| ValueError::NotListed),
            Kind::Integer { minimum, maximum, ignores_leading_zeros } => {
                let value = value.strip_prefix('+').filter(|_| *ignores_leading_zeros).unwrap_or(value);
                let bare = if *ignores_leading_zeros { value.trim_start_matches('0') } else { value };
                let number = canonical_integer(if bare.is_empty() && !value.is_empty() { "0" } else { bare })
                    .ok_or(ValueError::NotAnInteger)?;
                if (minimum..=maximum).contains(&&number) { Ok(()) } else { Err(ValueError::OutOfRange) }
            }
            Kind::Pattern(pattern) => pattern.matches_whole(value).then_some(()).ok_or(ValueError::NoMatch),
        }
    }

    /// Returns all values of an enum. Returns `None` for an integer or a pattern.
    pub fn enum_values(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::OneOf(values) => Some(values),
            Kind::Integer { .. } | Kind::Pattern(_) => None,
        }
    }

    /// Returns the form in which the rule describes the values.
    pub fn shape(&self) -> Shape<'_> {
        match &self.kind {
            Kind::OneOf(values) => Shape::OneOf(values),
            Kind::Integer { minimum, maximum, .. } => Shape::Integer(*minimum, *maximum),
            Kind::Pattern(pattern) => Shape::Pattern(&pattern.text),
        }
    }

    /// Returns the pattern, if a pattern describes the values.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.kind {
            Kind::Pattern(pattern) => Some(pattern),
            Kind::OneOf(_) | Kind::Integer { .. } => None,
        }
    }

    /// Returns the maximum length of a value, in bytes. Returns `None` in a Deny, which has no such maximum.
    pub fn maximum_bytes(&self) -> Option<usize> {
        self.maximum_bytes
    }

    /// Returns true if a pattern describes the values. Otherwise, the author of the rule knows each value.
    pub fn is_pattern(&self) -> bool {
        self.pattern().is_some()
    }

    /// Returns true if the values come from a pattern and must not contain the path segment `..`.
    pub fn keeps_out_parent_directory(&self) -> bool {
        self.is_pattern() && !self.allows_parent_directory
    }

    /// Returns representative values: each value of an enum, or the minimum and maximum of a range. Returns no value
    /// for a pattern.
    pub fn samples(&self) -> Vec<String> {
        let mut values = match &self.kind {
            Kind::OneOf(values) => values.clone(),
            Kind::Integer { minimum, maximum, .. } => vec![minimum.to_string(), maximum.to_string()],
            Kind::Pattern(_) => Vec::new(),
        };
        values.retain(|value| self.check(value).is_ok());
        values
    }

    /// Returns one admitted value, for examples in messages.
    pub fn example(&self) -> Option<String> {
        match &self.kind {
            Kind::OneOf(values) => values.first().cloned(),
            Kind::Integer { minimum, .. } => Some(minimum.to_string()),
            Kind::Pattern(pattern) => pattern.example.clone(),
        }
        .filter(|value| self.check(value).is_ok())
    }

    /// Returns the cost of a pattern: its compiled size in bytes, multiplied by the maximum length of a value in units
    /// of 256 bytes. The slowest search takes about 0.1 us for each unit of cost (measured with `([ac]*a[ac]*){120}z`).
    pub fn cost(&self) -> usize {
        let longest = self.maximum_bytes.unwrap_or(MAXIMUM_TEXT_BYTES).min(MAXIMUM_TEXT_BYTES);
        match &self.kind {
            Kind::Pattern(pattern) => pattern.memory().saturating_mul(longest.div_ceil(256)),
            Kind::OneOf(_) | Kind::Integer { .. } => 0,
        }
    }
}

impl Display for ValueSpec {
    /// Writes the description of the values, for readers of the policy.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::OneOf(values) => {
                let shown: Vec<_> = values.iter().take(SHOWN_VALUES).map(String::as_str).collect();
                let more = if values.len() > SHOWN_VALUES { " ..." } else { "" };
                write!(formatter, "one of {}{more}", shown.join(", "))?;
            }
            Kind::Integer { minimum, maximum, .. } => {
                write!(formatter, "a whole number from {minimum} to {maximum}, without sign and leading zero")?;
            }
            Kind::Pattern(pattern) => write!(formatter, "as the pattern {} says", pattern.text)?,
        }
        match self.maximum_bytes {
            Some(maximum) => write!(formatter, ", at most {maximum} bytes"),
            None => Ok(()),
        }
    }
}

fn one_of(field: &str, listed: &[String], usage: ValueUse) -> Result<(Kind, ByteSet), RuleError> {
    let mut bytes = ByteSet::default();
    for value in listed {
        if value.is_empty() && usage != ValueUse::Deny {
            return Err(RuleError::MatchesEmpty { field: field.to_owned() });
        }
        value.bytes().for_each(|byte| bytes.add(byte));
    }
    if listed.is_empty() {
        return Err(RuleError::NotExactlyOneKind { field: field.to_owned() });
    }
    refuse(field, &bytes, usage, |byte| !matches!(byte, 0x20..=0x7e))?;
    let mut values = listed.to_vec();
    values.sort();
    Ok((Kind::OneOf(values), bytes))
}

fn integer(field: &str, range: &IntegerRange, usage: ValueUse) -> Result<(Kind, ByteSet), RuleError> {
    let (minimum, maximum) = match (u64::try_from(range.minimum), u64::try_from(range.maximum)) {
        (Ok(minimum), Ok(maximum)) if minimum <= maximum => (minimum, maximum),
        _ => return Err(RuleError::IntegerRange { field: field.to_owned() }),
    };
    let mut bytes = ByteSet::default();
    (b'0'..=b'9').chain((usage == ValueUse::Deny).then_some(b'+')).for_each(|byte| bytes.add(byte));
    Ok((Kind::Integer { minimum, maximum, ignores_leading_zeros: usage == ValueUse::Deny }, bytes))
}

fn from_pattern(field: &str, text: &str, usage: ValueUse) -> Result<(Kind, ByteSet), RuleError> {
    let pattern = Pattern::compile(field, text)?;
    if pattern.empty && usage != ValueUse::Deny {
        return Err(RuleError::MatchesEmpty { field: field.to_owned() });
    }
    refuse(field, &pattern.bytes, usage, is_unsafe_in_a_pattern)?;
    let bytes = pattern.bytes.clone();
    Ok((Kind::Pattern(Box::new(pattern)), bytes))
}

fn refuse(field: &str, bytes: &ByteSet, usage: ValueUse, is_refused: impl Fn(u8) -> bool) -> Result<(), RuleError> {
    match bytes.find(is_refused) {
        Some(byte) if usage != ValueUse::Deny => Err(RuleError::AdmitsByte { field: field.to_owned(), byte }),
        _ => Ok(()),
    }
}

/// Parses an integer in its canonical decimal form. Returns `None` for any other text, for example `+7` or `007`.
fn canonical_integer(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    // `parse` alone would accept a sign. The check above excludes the sign.
    if is_canonical { text.parse().ok() } else { None }
}
