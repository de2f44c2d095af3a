//! Parameters of lists: limit, position, times and words. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::names::is_name;
use super::outcome::StatusWord;

/// Number of items of a page if the request sets no `limit`.
const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of items of a page. Each item costs a read of one object.
pub const MAX_LIMIT: u32 = 500;
/// Maximum length of `continue`, in bytes. A position has a name of at most 253 characters, a UID and a time.
const MAX_TOKEN: usize = 1024;
/// Length of a date without a time: `2026-11-30`.
const DATE_LENGTH: usize = 10;

/// Position of an execution in a list that is sorted by the time of creation, then by name. Names that the gateway
/// generates sort by time.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Time of the creation.
    #[serde(rename = "t")]
    pub created: Timestamp,
    /// Name.
    #[serde(rename = "n")]
    pub name: String,
    /// UID.
    #[serde(rename = "u")]
    pub uid: String,
}

/// Times of creation, both included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TimeRange {
    /// Earliest time.
    pub start: Option<Timestamp>,
    /// Latest time.
    pub end: Option<Timestamp>,
}

impl TimeRange {
    /// Parses `start_date` and `end_date`: times as in RFC 3339, or dates. A date means the whole day in UTC.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn parse(start: Option<&str>, end: Option<&str>) -> Result<Self, ApiError> {
        let start = start.map(|text| instant("start_date", text, false)).transpose()?;
        let end = end.map(|text| instant("end_date", text, true)).transpose()?;
        Ok(Self { start, end })
    }

    /// Returns true if the time is in the range.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start.is_none_or(|start| time >= start) && self.end.is_none_or(|end| time <= end)
    }
}

fn instant(field: &str, text: &str, is_end: bool) -> Result<Timestamp, ApiError> {
    let of_day = |date: Date| {
        let time = if is_end { date.at(23, 59, 59, 999_999_999) } else { date.at(0, 0, 0, 0) };
        time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp())
    };
    let parsed = if text.len() == DATE_LENGTH { text.parse::<Date>().and_then(of_day) } else { text.parse() };
    parsed.map_err(|_| {
        ApiError::malformed(format!(
            "{field} must be a date (2026-11-30) or a time (2026-11-30T10:00:00Z); write a + as %2B"
        ))
    })
}

/// Checks the parameter `limit`.
///
/// # Errors
/// 422 if the limit is not 1 to [`MAX_LIMIT`].
pub fn page_limit(limit: Option<u32>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::malformed(format!("limit must be 1 to {MAX_LIMIT}")));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Checks the parameter `status`.
///
/// # Errors
/// 422 that lists the words.
pub fn status_word(text: &str) -> Result<StatusWord, ApiError> {
    StatusWord::ALL.into_iter().find(|word| word.as_str() == text).ok_or_else(|| {
        let words: Vec<&str> = StatusWord::ALL.iter().map(|word| word.as_str()).collect();
        ApiError::malformed(format!("status must be one of: {}", words.join(", ")))
    })
}

/// Checks the parameter `field` with the name of a Machine. The name becomes a part of a field selector, so other
/// characters are refused.
///
/// # Errors
/// 422 if the text is no name of a Machine.
pub fn machine_name(field: &str, text: &str) -> Result<String, ApiError> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err(ApiError::malformed(format!("{field} must be the name of a Machine: lower case letters, digits, `-` and `.`")))
}

/// Returns the value for `continue` in an answer. Clients must not interpret it.
pub fn encode_token(position: &impl Serialize) -> String {
    // The serialization of positions cannot fail. An empty text is refused as `continue`.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// Parses the parameter `continue`. A client can change it, but it only names a position.
///
/// # Errors
/// 422 if no answer had this value.
pub fn decode_token<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let bytes = (text.len() <= MAX_TOKEN).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
    let position = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    position.ok_or_else(|| ApiError::malformed("continue must be the value of `continue` in the page before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_date_means_the_whole_day_in_utc() {
        let day = TimeRange::parse(Some("2026-11-30"), Some("2026-11-30")).unwrap();
        for (at, is_inside) in [
            ("2026-11-29T23:59:59Z", false),
            ("2026-11-30T00:00:00Z", true),
            ("2026-11-30T23:59:59Z", true),
            ("2026-12-01T00:00:00Z", false),
        ] {
            assert_eq!(day.contains(time(at)), is_inside, "{at}");
        }
        let hour = TimeRange::parse(Some("2026-11-30T10:00:00+02:00"), Some("2026-11-30T09:00:00Z")).unwrap();
        assert!(hour.contains(time("2026-11-30T08:00:00Z")) && hour.contains(time("2026-11-30T09:00:00Z")));
        assert!(!hour.contains(time("2026-11-30T09:00:01Z")));
        assert!(TimeRange::default().contains(time("2026-11-30T09:00:01Z")));
    }

    #[test]
    fn a_time_of_another_form_is_refused_with_the_name_of_its_parameter() {
        for text in ["", "today", "2026-13-01", "2026-11-30T10:00:00", "2026-11-30T10:00:00 02:00", "30.11.2026"] {
            let error = TimeRange::parse(None, Some(text)).unwrap_err();
            assert!(error.status.as_u16() == 422 && error.body.message.starts_with("end_date "), "{text}");
        }
    }

    #[test]
    fn limits_and_words_out_of_bounds_are_refused() {
        assert_eq!(page_limit(None).unwrap(), 50);
        assert_eq!((page_limit(Some(1)).unwrap(), page_limit(Some(500)).unwrap()), (1, 500));
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(501)).is_err());
        assert_eq!(status_word("timeout").unwrap(), StatusWord::Timeout);
        assert!(status_word("Timeout").is_err() && status_word("").is_err());
        assert!(machine_name("machine", "web-1.example").is_ok());
        for name in ["", "web-1,status.phase=Running", "web 1", "a=b", "WEB"] {
            let error = machine_name("device_id", name).unwrap_err();
            assert!(error.body.message.starts_with("device_id "), "{name}: {}", error.body.message);
        }
    }

    #[test]
    fn a_position_survives_its_token_and_other_texts_are_refused() {
        let (created, uid) = (time("2026-11-30T10:00:00Z"), "0a1b2c3d-0000-4000-8000-0123456789ab".to_owned());
        let position = Position { created, name: "x".repeat(253), uid };
        let token = encode_token(&position);
        assert!(token.len() <= MAX_TOKEN);
        assert_eq!(decode_token::<Position>(&token).unwrap(), position);
        let other = URL_SAFE_NO_PAD.encode(r#"{"t":"2026-11-30T10:00:00Z","n":"a","u":"b","x":1}"#);
        for text in ["", "%%%", &token[..40], &other, &"A".repeat(5000), &URL_SAFE_NO_PAD.encode("null")] {
            assert!(decode_token::<Position>(text).is_err(), "{text}");
        }
    }
}
