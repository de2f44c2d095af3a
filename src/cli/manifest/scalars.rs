//! Reads plain scalars as kubectl does, by YAML 1.1: `n` and `off` are booleans, and `0777` is an octal number. kubectl
//! uses go-yaml v2 through sigs.k8s.io/yaml. This module follows resolve.go of go-yaml v2.

use serde_json::{Number, Value};

/// Meaning of a scalar.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    /// A JSON value: null, a boolean, a number or a string.
    Value(Value),
    /// JSON has no such value, or the text does not match its tag. Holds the reason.
    Unusable(String),
}

const TRUE: &[&str] = &["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"];
const FALSE: &[&str] = &["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"];
const NULL: &[&str] = &["", "~", "null", "Null", "NULL"];
const NOT_FINITE: &[&str] =
    &[".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF"];

/// Returns the meaning of `text`. `tag` is a standard YAML tag (`str`, `int`, ...), or `None`.
pub(super) fn resolve(text: &str, tag: Option<&str>) -> Scalar {
    let (kind, value) = match tag {
        Some("str") => return Scalar::Value(Value::from(text)),
        _ if NOT_FINITE.contains(&text) => {
            return Scalar::Unusable(format!("{text} is a number that JSON does not have"));
        }
        _ => untagged(text),
    };
    match tag {
        None => Scalar::Value(value),
        Some("float") if matches!(kind, "int" | "float") => Scalar::Value(value),
        Some(tag) if tag == kind => Scalar::Value(value),
        Some(tag) => Scalar::Unusable(format!("{text:?} is no !!{tag}")),
    }
}

fn untagged(text: &str) -> (&'static str, Value) {
    if TRUE.contains(&text) {
        return ("bool", Value::Bool(true));
    }
    if FALSE.contains(&text) {
        return ("bool", Value::Bool(false));
    }
    if NULL.contains(&text) {
        return ("null", Value::Null);
    }
    let number = match text.bytes().next() {
        Some(b'.') => is_decimal(text).then(|| float(text)).flatten(),
        Some(b'0'..=b'9' | b'+' | b'-') if !is_timestamp(text) => number(text),
        _ => None,
    };
    match number {
        Some((kind, number)) => (kind, Value::Number(number)),
        // Any other scalar is text, also a date.
        None => ("str", Value::from(text)),
    }
}

fn number(text: &str) -> Option<(&'static str, Number)> {
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| is_decimal(&plain).then(|| float(&plain)).flatten())
}

/// Returns true if a number is written as an integer. Other numbers cannot be keys, because kubectl would write a key
/// like `1e15` in another notation.
pub(super) fn is_integer(text: &str) -> bool {
    integer(&text.replace('_', "")).is_some()
}

/// Parses an integer like Go's strconv.ParseInt with base 0. If ParseInt would fail, parses the integer like ParseUint.
fn integer(text: &str) -> Option<(&'static str, Number)> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2).unwrap_or_default() {
        "0x" | "0X" => (16, digits.get(2..).unwrap_or_default()),
        "0b" | "0B" => (2, digits.get(2..).unwrap_or_default()),
        "0o" | "0O" => (8, digits.get(2..).unwrap_or_default()),
        start if start.starts_with('0') => (8, digits.get(1..).unwrap_or_default()),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    let number = match is_negative {
        true => Number::from(i64::try_from(-i128::from(size)).ok()?),
        // ParseUint does not accept a sign, so a number with `+` must fit into an i64.
        false if text.starts_with('+') => Number::from(i64::try_from(size).ok()?),
        false => Number::from(size),
    };
    Some(("int", number))
}

/// Returns true if the text matches `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits(whole)
        && are_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && are_digits(exponent))
}

fn float(text: &str) -> Option<(&'static str, Number)> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(("float", whole_or_not(value)?))
}

/// Returns a JSON number. A whole number becomes an integer, because kubectl sends it as an integer.
pub(super) fn whole_or_not(value: f64) -> Option<Number> {
    #[allow(clippy::cast_possible_truncation, reason = "it is compared with what it was")]
    let whole = value as i64;
    #[allow(clippy::cast_precision_loss, reason = "it is compared with what it was")]
    let is_whole = whole as f64 == value && whole != i64::MAX;
    if is_whole { Some(Number::from(whole)) } else { Number::from_f64(value) }
}

/// Returns true if go-yaml reads the text as a timestamp. A timestamp is a date, or a date with a time of day, in a
/// format of Go's time.Parse.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = split_date(text) else { return false };
    let mut parts = date.split('-');
    let (Some(year), Some(month), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let number = |text: &str, most: usize| -> Option<i8> {
        let is_number = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let (Some(month), Some(day)) = (number(month, 2), number(day, 2)) else { return false };
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let is_date = is_year && year.parse().is_ok_and(|year| jiff::civil::Date::new(year, month, day).is_ok());
    is_date && time.is_none_or(|(separator, time)| is_time(separator, time, &number))
}

fn split_date(text: &str) -> Option<(&str, Option<(char, &str)>)> {
    match text.find(['T', 't', ' ']) {
        None => Some((text, None)),
        Some(end) => {
            let (date, rest) = text.split_at(end);
            Some((date, Some((rest.chars().next()?, rest.get(1..)?))))
        }
    }
}

fn is_time(separator: char, time: &str, number: &dyn Fn(&str, usize) -> Option<i8>) -> bool {
    let time = match separator {
        ' ' => time,
        // A time zone must follow: `Z`, or a sign with hours and minutes.
        _ => match time.strip_suffix('Z') {
            Some(time) => time,
            None => {
                let Some((time, zone)) = time.rfind(['+', '-']).map(|sign| time.split_at(sign)) else { return false };
                let is_zone = zone.get(1..).and_then(|zone| zone.split_once(':')).is_some_and(|(hours, minutes)| {
                    hours.len() == 2
                        && minutes.len() == 2
                        && number(hours, 2).is_some_and(|hours| hours <= 24)
                        && number(minutes, 2).is_some_and(|minutes| minutes < 60)
                });
                if !is_zone {
                    return false;
                }
                time
            }
        },
    };
    let mut parts = time.splitn(3, ':');
    let (Some(hours), Some(minutes), Some(seconds)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let (seconds, fraction) = seconds.split_once(['.', ',']).unwrap_or((seconds, "0"));
    number(hours, 2).is_some_and(|hours| hours < 24)
        && number(minutes, 2).is_some_and(|minutes| minutes < 60)
        && number(seconds, 2).is_some_and(|seconds| seconds < 60)
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}
