//! Downloads for browsers, which cannot send a credential when they follow a link.
//!
//! The caller requests a URL with a ticket. The ticket counts once, for 60 s, for this caller and this read. No log
//! line, trace, metric and error contains a ticket: the layers record the route and never the path.

use std::convert::Infallible;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, HeaderValue, REFERRER_POLICY};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::attachment::attachment;
use crate::gateway::body::JsonBody;
use crate::gateway::caller::Caller;
use crate::gateway::download_target::{DownloadTarget, OutputDownload};
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::state::Gateway;
use crate::gateway::tickets::{Grant, LIFETIME, RANDOM_BYTES};

use super::existing_commands::read;
use super::raw_output::serve;
use super::read_errors::ReadErrors;

/// Path of the downloads, before the ticket.
const PATH: &str = "/api/v1/downloads/";

/// Request for a download.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DownloadRequest {
    /// Content of the download.
    what: DownloadTarget,
}

/// URL of a download.
#[derive(Serialize, ToSchema)]
struct DownloadLink {
    /// Path of the download on this server. It counts once. Anyone who has it can read the content, so do not store it.
    #[schema(examples("/api/v1/downloads/q0Zr..."))]
    url: String,
    /// Time in seconds for which the URL counts.
    #[schema(examples(60))]
    expires_in: u64,
}

/// Text in the place of a ticket. `None` if the path is no text.
struct TicketText(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for TicketText {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(path.ok().map(|Path(text)| text)))
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create_download)).routes(routes!(read_download))
}

/// Returns a URL with which a browser can save a file, without another credential.
///
/// The URL counts once, within 60 s. The read happens as the caller of this call. The rights of the caller are checked
/// now, and again at the download.
#[utoipa::path(
    post,
    path = "/api/v1/downloads",
    tag = "output",
    request_body = DownloadRequest,
    responses(
        (status = 201, description = "The URL", body = DownloadLink),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
async fn create_download(
    State(gateway): State<Gateway>,
    caller: Caller,
    JsonBody(request): JsonBody<DownloadRequest>,
) -> Result<Response, ApiError> {
    let target = request.what;
    target.check()?;
    // The download has no credential, so its read counts here.
    gateway.count_reads(&caller, 1)?;
    let uid = match &target {
        DownloadTarget::Output(output) => read(&gateway, &caller, &output.command_id).await?.uid(),
    };
    let random = random()?;
    let ticket = gateway.tickets().issue(&random, Grant { caller, target, uid }, Instant::now())?;
    let link = DownloadLink { url: format!("{PATH}{}", ticket.as_str()), expires_in: LIFETIME.as_secs() };
    Ok((StatusCode::CREATED, Json(link)).into_response())
}

/// Sends the file of a download. Needs no credential.
///
/// A used, an expired and an invented URL have the same answer. A `Range` is possible and uses the URL up.
#[utoipa::path(
    get,
    path = "/api/v1/downloads/{ticket}",
    tag = "output",
    params(
        ("ticket" = String, Path, description = "Ticket, from `POST /api/v1/downloads`"),
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST"),
    ),
    responses(
        (status = 200, description = "The file", content(
            (Vec<u8> = "application/octet-stream"), (super::output::SearchResult = "application/json"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 403, description = "The caller lost the right", body = ErrorBody),
        (status = 404, description = "No such download, or what it names does not exist", body = ErrorBody),
        (status = 405, description = "HEAD does not use the URL up", body = ErrorBody),
        (status = 410, description = "Bytes of the range are not available", body = ErrorBody),
        (status = 416, description = "The stream has no byte in the range", body = ErrorBody),
        (status = 429, description = "The caller has too many downloads", body = ErrorBody),
        (status = 500, description = "The gateway failed", body = ErrorBody),
        (status = 503, description = "The API server did not answer", body = ErrorBody),
    ),
    security(())
)]
async fn read_download(
    State(gateway): State<Gateway>,
    method: Method,
    TicketText(text): TicketText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // Programs that preview links send HEAD. axum passes it to the route for GET.
    if method != Method::GET {
        return Ok(([(ALLOW, "GET")], ApiError::method_not_allowed()).into_response());
    }
    let grant = text.and_then(|text| gateway.tickets().redeem(&text, Instant::now())).ok_or_else(no_such_download)?;
    if !gateway.has_valid_credential(&grant.caller).await? {
        return Err(no_such_download());
    }
    let mut response = match &grant.target {
        DownloadTarget::Output(output) => output_file(&gateway, &grant, output, &headers).await?,
    };
    set_headers(response.headers_mut());
    Ok(response)
}

/// Returns the stream of a command, or the result of a search in it, as a file.
async fn output_file(
    gateway: &Gateway,
    grant: &Grant,
    output: &OutputDownload,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let execution = read(gateway, &grant.caller, &output.command_id).await?;
    if execution.uid() != grant.uid {
        return Err(ApiError::command_not_found(&output.command_id));
    }
    let mut response = serve(gateway, &grant.caller, &execution, output.kind(), &output.query(), headers).await?;
    if output.grep.is_some() {
        let name = format!("{}.{}", execution.name_any(), output.kind().as_str());
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment(&name, "json"));
    }
    Ok(response)
}

fn set_headers(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // A browser must never show the content as a page of this origin.
    headers.entry(CONTENT_DISPOSITION).or_insert(HeaderValue::from_static("attachment"));
}

fn no_such_download() -> ApiError {
    let message = format!(
        "there is no such download: a URL counts once, within {} s; request another one with POST /api/v1/downloads",
        LIFETIME.as_secs()
    );
    ApiError::new(StatusCode::NOT_FOUND, "Not found", "NoSuchDownload", message)
}

/// Returns random bytes from the generator of the TLS library.
fn random() -> Result<zeroize::Zeroizing<[u8; RANDOM_BYTES]>, ApiError> {
    let mut random = zeroize::Zeroizing::new([0; RANDOM_BYTES]);
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(random.as_mut_slice());
    match filled {
        Ok(()) => Ok(random),
        Err(_) => {
            tracing::error!("download refused, because the system gave no random numbers");
            Err(ApiError::internal())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_a_file_that_no_cache_keeps() {
        let mut headers = HeaderMap::new();
        set_headers(&mut headers);
        assert_eq!(headers[CONTENT_DISPOSITION], "attachment");
        assert_eq!(
            (&headers[CACHE_CONTROL], &headers[REFERRER_POLICY]),
            (&HeaderValue::from_static("no-store"), &HeaderValue::from_static("no-referrer"),)
        );
        headers.insert(CONTENT_DISPOSITION, attachment("run-1", "stdout"));
        set_headers(&mut headers);
        assert_eq!(headers[CONTENT_DISPOSITION], "attachment; filename=\"run-1.stdout\"");
    }

    #[test]
    fn random_bytes_do_not_repeat() {
        assert_ne!(*random().unwrap(), *random().unwrap());
    }
}
