//! Lifetime of an API key on the command line: `90d`, `12h` or `30m`. Pure.

use jiff::SignedDuration;

const MINUTES_PER_HOUR: i64 = 60;
const MINUTES_PER_DAY: i64 = 24 * MINUTES_PER_HOUR;
/// Maximum lifetime in days. The admission policy accepts one day more.
const MAX_DAYS: i64 = 365;

/// Parses a lifetime.
///
/// # Errors
/// The text has another form, or the lifetime is out of bounds.
pub(super) fn parse(text: &str) -> Result<SignedDuration, String> {
    let form = || "must be a number with d (days), h (hours) or m (minutes), for example 90d".to_owned();
    let unit = match text.bytes().next_back() {
        Some(b'd') => MINUTES_PER_DAY,
        Some(b'h') => MINUTES_PER_HOUR,
        Some(b'm') => 1,
        _ => return Err(form()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    // `parse` alone would accept a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let minutes = digits.parse().ok().and_then(|number: i64| number.checked_mul(unit));
    match minutes.filter(|minutes| (1..=MAX_DAYS * MINUTES_PER_DAY).contains(minutes)) {
        Some(minutes) => Ok(SignedDuration::from_mins(minutes)),
        None => Err(format!("must be 1m to {MAX_DAYS}d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_with_one_unit() {
        for (text, hours) in [("90d", 2160), ("365d", 8760), ("8760h", 8760), ("1h", 1), ("120m", 2), ("007d", 168)] {
            assert_eq!(parse(text), Ok(SignedDuration::from_hours(hours)), "{text}");
        }
        assert_eq!(parse("1m"), Ok(SignedDuration::from_mins(1)));
    }

    #[test]
    fn another_form_is_refused_with_an_example() {
        let texts =
            ["", "d", "90", "90s", "90D", "1w", "+1d", "-1d", " 1d", "1 d", "1d12h", "1.5h", "\u{664}d", "never"];
        for text in texts {
            assert!(parse(text).unwrap_err().contains("for example 90d"), "{text}");
        }
    }

    #[test]
    fn a_lifetime_out_of_bounds_is_refused_with_the_bounds() {
        for text in ["0d", "0m", "366d", "8761h", "525601m", "9223372036854775807d", "99999999999999999999h"] {
            assert_eq!(parse(text), Err("must be 1m to 365d".to_owned()), "{text}");
        }
    }
}
