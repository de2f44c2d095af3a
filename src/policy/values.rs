//! The values that a parameter or an environment variable may have.

use std::fmt::{self, Display, Formatter};

use crate::api::whitelist::{IntegerRange, Parameter};

use super::pattern::{ByteSet, Pattern};
use super::{MAXIMUM_TEXT_BYTES, RuleProblem, is_unsafe_in_a_pattern};

/// The longest value where a parameter does not say (`maxLength`), in bytes.
const DEFAULT_MAXIMUM_BYTES: u32 = 256;

/// How many values of an enum a message shows.
const SHOWN_VALUES: usize = 20;

/// The values of one parameter, checked.
#[derive(Clone, Debug)]
pub(super) struct Values {
    kind: Kind,
    /// The longest value, in bytes; None: as long as the text lets it be.
    maximum_bytes: Option<usize>,
    /// True if a pattern may have a path segment `..` in it.
    allows_parent_directory: bool,
    /// The value where the caller gives none.
    pub default: Option<String>,
    /// Every byte that may stand in a value.
    pub bytes: ByteSet,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Sorted.
    OneOf(Vec<String>),
    Integer {
        minimum: u64,
        maximum: u64,
        /// Whether a sign and zeros in front are passed over: a Deny of 7 holds against +007, which a pattern may allow.
        any_zeros: bool,
    },
    Pattern(Box<Pattern>),
}

/// How the values of a parameter are described.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    OneOf(&'a [String]),
    Integer(u64, u64),
    Pattern(&'a str),
}

/// Why a value is none of a parameter's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Misfit {
    NotListed,
    NotAnInteger,
    OutOfRange,
    TooLong,
    NoMatch,
}

/// What a value is for, which decides what it may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    /// It becomes a word, or a part of one, of what is executed.
    Argument,
    /// It becomes the value of an environment variable.
    Environment,
    /// It is only compared, to forbid.
    Denial,
}

impl Values {
    /// Checks a parameter; `field` is its path, for messages.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn compile(field: &str, parameter: &Parameter, usage: Use) -> Result<Self, RuleProblem> {
        let unknown = parameter.unknown_fields.keys();
        if let Some(name) = unknown.chain(parameter.integer.iter().flat_map(|range| range.unknown_fields.keys())).next()
        {
            return Err(RuleProblem::UnknownField { field: format!("{field}.{name}") });
        }
        let (kind, bytes) = match (&parameter.one_of, &parameter.integer, &parameter.pattern) {
            (Some(values), None, None) => one_of(field, values, usage)?,
            (None, Some(range), None) => integer(field, range, usage)?,
            (None, None, Some(pattern)) => of_pattern(field, pattern, usage)?,
            _ => return Err(RuleProblem::NotExactlyOneKind { field: field.to_owned() }),
        };
        if usage == Use::Denial && (parameter.max_length.is_some() || parameter.default.is_some()) {
            // A longer value, or one that was left out, would walk around the Deny.
            return Err(RuleProblem::MeansNothingOnDeny { field: format!("{field}.maxLength and default") });
        }
        let allows_parent_directory = parameter.allow_parent_directory;
        if allows_parent_directory && usage == Use::Denial {
            return Err(RuleProblem::MeansNothingOnDeny { field: format!("{field}.allowParentDirectory") });
        }
        if allows_parent_directory && parameter.pattern.is_none() {
            return Err(RuleProblem::OnlyForPatterns { field: field.to_owned() });
        }
        let maximum = parameter.max_length.unwrap_or(DEFAULT_MAXIMUM_BYTES);
        let maximum_bytes = (usage != Use::Denial).then(|| usize::try_from(maximum).unwrap_or(usize::MAX));
        let values = Self { kind, maximum_bytes, allows_parent_directory, default: parameter.default.clone(), bytes };
        if values.default.as_ref().is_some_and(|default| values.check(default).is_err()) {
            return Err(RuleProblem::DefaultNotAdmitted { field: field.to_owned() });
        }
        Ok(values)
    }

    /// Whether a value is one of them.
    pub fn check(&self, value: &str) -> Result<(), Misfit> {
        if self.maximum_bytes.is_some_and(|maximum| value.len() > maximum) {
            return Err(Misfit::TooLong);
        }
        match &self.kind {
            Kind::OneOf(values) => {
                values.binary_search_by(|listed| listed.as_str().cmp(value)).map(drop).map_err(|_| Misfit::NotListed)
            }
            Kind::Integer { minimum, maximum, any_zeros } => {
                let value = value.strip_prefix('+').filter(|_| *any_zeros).unwrap_or(value);
                let bare = if *any_zeros { value.trim_start_matches('0') } else { value };
                let number = canonical_integer(if bare.is_empty() && !value.is_empty() { "0" } else { bare })
                    .ok_or(Misfit::NotAnInteger)?;
                if (minimum..=maximum).contains(&&number) { Ok(()) } else { Err(Misfit::OutOfRange) }
            }
            Kind::Pattern(pattern) => pattern.admits(value).then_some(()).ok_or(Misfit::NoMatch),
        }
    }

    /// All of them, where they are listed.
    pub fn listed(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::OneOf(values) => Some(values),
            Kind::Integer { .. } | Kind::Pattern(_) => None,
        }
    }

    /// How they are described.
    pub fn shape(&self) -> Shape<'_> {
        match &self.kind {
            Kind::OneOf(values) => Shape::OneOf(values),
            Kind::Integer { minimum, maximum, .. } => Shape::Integer(*minimum, *maximum),
            Kind::Pattern(pattern) => Shape::Pattern(&pattern.text),
        }
    }

    /// The pattern, if they are of that kind.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.kind {
            Kind::Pattern(pattern) => Some(pattern),
            Kind::OneOf(_) | Kind::Integer { .. } => None,
        }
    }

    /// The longest value, in bytes; `None` if only the text around it bounds it.
    pub fn maximum_bytes(&self) -> Option<usize> {
        self.maximum_bytes
    }

    /// True if a requester chooses freely within a pattern. The author of an enum or a range knows each value.
    pub fn is_pattern(&self) -> bool {
        self.pattern().is_some()
    }

    /// True if no path segment `..` may come from these values.
    pub fn keeps_out_parent_directory(&self) -> bool {
        self.is_pattern() && !self.allows_parent_directory
    }

    /// Values that stand for all of them, if there is no pattern: each of an enum, the ends of a range.
    pub fn samples(&self) -> Vec<String> {
        let mut values = match &self.kind {
            Kind::OneOf(values) => values.clone(),
            Kind::Integer { minimum, maximum, .. } => vec![minimum.to_string(), maximum.to_string()],
            Kind::Pattern(_) => Vec::new(),
        };
        values.retain(|value| self.check(value).is_ok());
        values
    }

    /// One of them, for examples.
    pub fn example(&self) -> Option<String> {
        match &self.kind {
            Kind::OneOf(values) => values.first().cloned(),
            Kind::Integer { minimum, .. } => Some(minimum.to_string()),
            Kind::Pattern(pattern) => pattern.example.clone(),
        }
        .filter(|value| self.check(value).is_ok())
    }

    /// What a pattern among them costs: its size as compiled, in bytes, times how many times 256 bytes a value may have. The
    /// slowest search takes about 0.1 us for each of these (measured with `([ac]*a[ac]*){120}z`).
    pub fn cost(&self) -> usize {
        let longest = self.maximum_bytes.unwrap_or(MAXIMUM_TEXT_BYTES).min(MAXIMUM_TEXT_BYTES);
        match &self.kind {
            Kind::Pattern(pattern) => pattern.memory().saturating_mul(longest.div_ceil(256)),
            Kind::OneOf(_) | Kind::Integer { .. } => 0,
        }
    }
}

impl Display for Values {
    /// What a value must be, for those who may read the policy.
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

fn one_of(field: &str, listed: &[String], usage: Use) -> Result<(Kind, ByteSet), RuleProblem> {
    let mut bytes = ByteSet::default();
    for value in listed {
        if value.is_empty() && usage != Use::Denial {
            return Err(RuleProblem::AdmitsEmpty { field: field.to_owned() });
        }
        value.bytes().for_each(|byte| bytes.add(byte));
    }
    if listed.is_empty() {
        return Err(RuleProblem::NotExactlyOneKind { field: field.to_owned() });
    }
    refuse(field, &bytes, usage, |byte| !matches!(byte, 0x20..=0x7e))?;
    let mut values = listed.to_vec();
    values.sort();
    Ok((Kind::OneOf(values), bytes))
}

fn integer(field: &str, range: &IntegerRange, usage: Use) -> Result<(Kind, ByteSet), RuleProblem> {
    let (minimum, maximum) = match (u64::try_from(range.minimum), u64::try_from(range.maximum)) {
        (Ok(minimum), Ok(maximum)) if minimum <= maximum => (minimum, maximum),
        _ => return Err(RuleProblem::IntegerRange { field: field.to_owned() }),
    };
    let mut bytes = ByteSet::default();
    (b'0'..=b'9').chain((usage == Use::Denial).then_some(b'+')).for_each(|byte| bytes.add(byte));
    Ok((Kind::Integer { minimum, maximum, any_zeros: usage == Use::Denial }, bytes))
}

fn of_pattern(field: &str, text: &str, usage: Use) -> Result<(Kind, ByteSet), RuleProblem> {
    let pattern = Pattern::compile(field, text)?;
    if pattern.empty && usage != Use::Denial {
        return Err(RuleProblem::AdmitsEmpty { field: field.to_owned() });
    }
    refuse(field, &pattern.bytes, usage, is_unsafe_in_a_pattern)?;
    let bytes = pattern.bytes.clone();
    Ok((Kind::Pattern(Box::new(pattern)), bytes))
}

fn refuse(field: &str, bytes: &ByteSet, usage: Use, is_refused: impl Fn(u8) -> bool) -> Result<(), RuleProblem> {
    match bytes.find(is_refused) {
        Some(byte) if usage != Use::Denial => Err(RuleProblem::AdmitsByte { field: field.to_owned(), byte }),
        _ => Ok(()),
    }
}

/// The number that a text is the one decimal form of.
fn canonical_integer(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    // `parse` would take a sign; the check before does not let one through.
    if is_canonical { text.parse().ok() } else { None }
}
