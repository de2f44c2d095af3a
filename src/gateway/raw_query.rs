//! Parameters of a search in one stream of an execution. Pure.

use std::ops::RangeInclusive;

use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use super::grep::{Bounds, MAX_CONTEXT, MAX_MATCHES};

/// Search in a stream.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RawQuery {
    /// Pattern (syntax of the Rust crate regex), 1 to 1024 bytes. The answer then has the lines that match it.
    #[param(min_length = 1, max_length = 1024)]
    pub grep: Option<String>,
    /// Number of lines before each match, 0 to 50. Default 0.
    #[param(maximum = 50)]
    pub before: Option<usize>,
    /// Number of lines after each match, 0 to 50. Default 0.
    #[param(maximum = 50)]
    pub after: Option<usize>,
    /// Maximum number of matches, 1 to 1000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Offset at which the search begins. Default 0.
    pub offset: Option<u64>,
}

impl RawQuery {
    /// Returns the bounds of the search.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn bounds(&self) -> Result<Bounds, ApiError> {
        let has_bounds = self.before.is_some() || self.after.is_some() || self.limit.is_some() || self.offset.is_some();
        if self.grep.is_none() && has_bounds {
            return Err(ApiError::malformed(
                "before, after, limit and offset need grep; for a part use the header Range",
            ));
        }
        Ok(Bounds {
            before: within("before", self.before, 0..=MAX_CONTEXT, 0)?,
            after: within("after", self.after, 0..=MAX_CONTEXT, 0)?,
            limit: within("limit", self.limit, 1..=MAX_MATCHES, 100)?,
        })
    }
}

/// Returns a parameter, or its default.
fn within(
    field: &str,
    value: Option<usize>,
    allowed: RangeInclusive<usize>,
    default: usize,
) -> Result<usize, ApiError> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            Err(ApiError::malformed(format!("{field} must be {} to {}", allowed.start(), allowed.end())))
        }
        value => Ok(value.unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_a_search_are_checked_and_named() {
        let query = |text: &str| serde_json::from_str::<RawQuery>(text).unwrap();
        let bounds = query(r#"{"grep": "x", "before": 2}"#).bounds().unwrap();
        assert_eq!((bounds.before, bounds.after, bounds.limit), (2, 0, 100));
        for (text, field) in [
            (r#"{"grep": "x", "before": 51}"#, "before "),
            (r#"{"grep": "x", "after": 51}"#, "after "),
            (r#"{"grep": "x", "limit": 0}"#, "limit "),
            (r#"{"grep": "x", "limit": 1001}"#, "limit "),
            (r#"{"offset": 1}"#, "before, after, limit and offset need grep"),
        ] {
            let error = query(text).bounds().unwrap_err();
            assert!(error.body.message.starts_with(field), "{text}: {}", error.body.message);
        }
    }
}
