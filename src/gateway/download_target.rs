//! Content of a download that a browser requests with a ticket. Pure.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::output::StreamKind;

use super::error::ApiError;
use super::grep::compile;
use super::raw_query::RawQuery;

/// Content of a download. Each kind names a read of this API, and needs the same right.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DownloadTarget {
    /// One stream of a command, as `GET /api/v1/commands/{id}/output/stdout` or `/stderr`.
    Output(OutputDownload),
}

/// Stream of a command.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputDownload {
    /// Id of the command: NAMESPACE:NAME, or the UID.
    pub command_id: String,
    /// Stream.
    pub stream: OutputStream,
    /// Pattern (syntax of the Rust crate regex), 1 to 1024 bytes. The file then has the lines that match it, as JSON.
    #[schema(min_length = 1, max_length = 1024)]
    pub grep: Option<String>,
    /// Number of lines before each match, 0 to 50. Default 0.
    #[schema(maximum = 50)]
    pub before: Option<usize>,
    /// Number of lines after each match, 0 to 50. Default 0.
    #[schema(maximum = 50)]
    pub after: Option<usize>,
    /// Maximum number of matches, 1 to 1000. Default 100.
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Offset at which the search begins. Default 0.
    pub offset: Option<u64>,
}

/// Stream of a command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl DownloadTarget {
    /// Checks the parameters of the read, so that no ticket is issued for a read that must fail.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub fn check(&self) -> Result<(), ApiError> {
        let Self::Output(output) = self;
        output.query().bounds()?;
        output.grep.as_deref().map_or(Ok(()), |pattern| compile(pattern).map(|_| ()))
    }
}

impl OutputDownload {
    /// Returns the parameters of the read.
    pub fn query(&self) -> RawQuery {
        let Self { grep, before, after, limit, offset, .. } = self.clone();
        RawQuery { grep, before, after, limit, offset }
    }

    /// Returns the stream.
    pub fn kind(&self) -> StreamKind {
        match self.stream {
            OutputStream::Stdout => StreamKind::Stdout,
            OutputStream::Stderr => StreamKind::Stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::body::parse;

    fn parsed(text: &str) -> Result<OutputDownload, ApiError> {
        let target: DownloadTarget = parse(text.as_bytes())?;
        target.check()?;
        let DownloadTarget::Output(output) = target;
        Ok(output)
    }

    #[test]
    fn a_target_is_a_read_of_one_stream_with_its_query() {
        let output = parsed(
            r#"{"kind": "output", "command_id": "o:r", "stream": "stderr", "grep": "x", "before": 1, "offset": 9}"#,
        )
        .unwrap();
        let query = output.query();
        assert_eq!((output.kind(), query.grep.as_deref(), query.before), (StreamKind::Stderr, Some("x"), Some(1)));
        assert_eq!((query.after, query.limit, query.offset), (None, None, Some(9)));
    }

    #[test]
    fn a_malformed_target_is_refused_before_a_ticket_exists() {
        for (text, expected) in [
            (r#"{"command_id": "ops:run-1", "stream": "stdout"}"#, "kind"),
            (r#"{"kind": "recording", "command_id": "ops:run-1"}"#, "recording"),
            (r#"{"kind": "output", "stream": "stdout"}"#, "command_id"),
            (r#"{"kind": "output", "command_id": "ops:run-1"}"#, "stream"),
            (r#"{"kind": "output", "command_id": "ops:run-1", "stream": "stdin"}"#, "stdin"),
            (r#"{"kind": "output", "command_id": "ops:run-1", "stream": "stdout", "path": "x"}"#, "path"),
            (r#"{"kind": "output", "command_id": "ops:run-1", "stream": "stdout", "limit": 5}"#, "need grep"),
            (r#"{"kind": "output", "command_id": "ops:run-1", "stream": "stdout", "grep": ""}"#, "grep"),
            (r#"{"kind": "output", "command_id": "ops:run-1", "stream": "stdout", "grep": "("}"#, "grep"),
            (r#"{"kind": "output", "command_id": "o:r", "stream": "stdout", "grep": "x", "after": 51}"#, "after"),
        ] {
            let error = parsed(text).unwrap_err();
            assert_eq!(error.status.as_u16(), 422, "{text}");
            assert!(error.body.message.contains(expected), "{text}: {}", error.body.message);
        }
    }
}
