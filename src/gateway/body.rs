//! Reads JSON bodies and query strings. Errors name the field, and unknown fields are errors.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Body in JSON.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = request.headers().get(CONTENT_TYPE).is_none_or(|value| {
            let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case("application/json")
        });
        if !is_json {
            return Err(ApiError::malformed("Content-Type must be application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Request too large",
                "TooLarge",
                "the body must have at most 65536 bytes",
            ),
            _ => ApiError::malformed("the body could not be read to its end"),
        })?;
        parse(&bytes).map(Self)
    }
}

/// Parses JSON. The error names the path of the field.
///
/// # Errors
/// The text is no JSON, lacks a field, or has a field too many or of the wrong type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!("{path}: ") };
        ApiError::malformed(format!("{field}{}", error.inner()))
    })?;
    reader.end().map_err(|_| ApiError::malformed("the body must be one JSON object"))?;
    Ok(value)
}

/// Parameters of the query string.
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let axum::extract::Query(value) =
            query.map_err(|rejection| ApiError::malformed(format!("query string: {}", rejection.body_text())))?;
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors matter")]
    struct Sample {
        command: String,
        machines: Vec<String>,
    }

    #[test]
    fn an_error_names_the_field() {
        for (text, expected) in [
            (r#"{"command": 5, "machines": []}"#, "command: invalid type"),
            (r#"{"command": "x", "machines": ["a", 1]}"#, "machines[1]: invalid type"),
            (r#"{"command": "x"}"#, "missing field `machines`"),
            (r#"{"command": "x", "machines": [], "comand": 1}"#, "unknown field `comand`"),
            ("", "EOF"),
            (r#"{"command": "x", "machines": []} {}"#, "one JSON object"),
        ] {
            let error = parse::<Sample>(text.as_bytes()).unwrap_err();
            assert_eq!(error.status.as_u16(), 422);
            assert!(error.body.message.contains(expected), "{text}: {}", error.body.message);
        }
    }
}
