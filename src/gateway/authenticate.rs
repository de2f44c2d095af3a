//! Authenticates the caller of each request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::Method;
use http::request::Parts;

use super::caller::Caller;
use super::credential::Credential;
use super::error::ApiError;
use super::state::Gateway;

/// Reads the credential of each request first, before its body and its names. So an outsider learns nothing from other
/// errors. Counts each request.
impl FromRequestParts<Gateway> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        let credential = Credential::from_headers(&parts.headers).ok_or_else(ApiError::unauthorized)?;
        let caller = gateway.callers().authenticate(&credential).await?;
        let caller = Caller { credential: Some(Arc::new(credential)), ..caller };
        match parts.method {
            Method::GET | Method::HEAD => gateway.count_reads(&caller, 1)?,
            _ => gateway.count_write(&caller)?,
        }
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}
