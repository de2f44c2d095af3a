//! The OpenAPI document, and a page that shows it. Both need no credential, because they contain no data of the
//! cluster.
//!
//! The page is Swagger UI. Its files are compiled in, so it works without other servers. Its security policy permits no
//! inline scripts and no other origins.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_swagger_ui::Config;

use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::state::Gateway;

/// Path of the OpenAPI document.
const DOCUMENT: &str = "/api/openapi.json";
/// The document relative to the page, so that both also work behind a proxy with a prefix.
const DOCUMENT_OF_PAGE: &str = "../openapi.json";
/// Files of Swagger UI that the page uses.
const FILES: [&str; 8] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "index.html",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];
/// Security policy of the page. `data:` is for the icons in the style sheet.
const SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                               connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Returns the document without routes.
pub fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Writ")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Audited remote commands. Each call that runs something creates a CommandExecution as the caller, so the \
             rights, Whitelists and audit of the cluster apply.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let key = ApiKeyValue::with_description("X-API-Key", "API key (`writ_...`).");
    let session = ApiKeyValue::with_description("X-Writ-Session", "Session of a person: `namespace/name/key`.");
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("API key, or ServiceAccount token for the audience `writ-gateway`."))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)))
        .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Header(session)))
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .schema_from::<ErrorBody>()
        .build();
    let one_of = ["api_key", "bearer", "session"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    let compatibility = TagBuilder::new()
        .name("compatibility")
        .description(Some(
            "Paths and field names of earlier systems, for their clients. `writ serve --compat-routes` (chart: \
             `gateway.compatRoutes`) switches them on. Without the flag they answer 404.",
        ))
        .build();
    let document = OpenApiBuilder::new().info(info).components(Some(components)).security(Some(one_of));
    document.tags(Some([compatibility])).build()
}

/// Returns the routes of the document and of its page.
pub fn router(document: &OpenApi) -> Router<Gateway> {
    // A document that cannot be serialized is a fault of the handlers. A test serializes the same document.
    let text = Bytes::from(document.to_json().unwrap_or_default());
    Router::new()
        .route(DOCUMENT, get(move || std::future::ready(answer("application/json", text.clone()))))
        .route("/api/docs", get(|| std::future::ready((headers(), Redirect::temporary("docs/")))))
        .route("/api/docs/", get(|| std::future::ready(file("index.html"))))
        .route("/api/docs/{file}", get(|Path(name): Path<String>| std::future::ready(file(&name))))
}

/// Returns a file of the page.
fn file(name: &str) -> Response {
    if !FILES.contains(&name) {
        return ApiError::route_not_found().into_response();
    }
    // Without this value the page would send the address of the document to a validator of the vendor.
    let config = Config::new([DOCUMENT_OF_PAGE]).validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => answer(&file.content_type, Bytes::from(file.bytes.into_owned())),
        Ok(None) => ApiError::route_not_found().into_response(),
        Err(error) => {
            tracing::error!(%error, name, "file of the API page not readable");
            ApiError::internal().into_response()
        }
    }
}

fn answer(content_type: &str, body: Bytes) -> Response {
    let mut headers = headers();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    (headers, body).into_response()
}

/// Returns the headers of all answers of this file. The layers add the others.
fn headers() -> HeaderMap {
    // The files change with the version of Writ, so browsers must check for newer ones.
    let pairs = [(CONTENT_SECURITY_POLICY, SECURITY_POLICY), (CACHE_CONTROL, "no-cache")];
    pairs.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_page_loads_only_files_that_exist_and_has_no_inline_script() {
        let text = |name: &str| {
            let file = utoipa_swagger_ui::serve(name, Arc::new(Config::new([DOCUMENT_OF_PAGE]).validator_url("none")));
            String::from_utf8(file.unwrap().unwrap_or_else(|| panic!("{name}")).bytes.into_owned()).unwrap()
        };
        let page = text("index.html");
        let attributes = page.split(['"']).skip(1).step_by(2);
        let linked: Vec<&str> = attributes.filter(|value| value.contains('.')).collect();
        assert!(linked.len() >= 5, "{linked:?}");
        for name in linked {
            assert!(FILES.contains(&name.trim_start_matches("./")), "{name}");
        }
        assert!(page.split("<script").skip(1).all(|script| script.trim_start().starts_with("src=")), "{page}");
        assert!(!page.contains("style=") && !page.contains("<style"), "{page}");
        let configuration = text("swagger-initializer.js");
        assert!(configuration.contains(r#""url": "../openapi.json""#), "{configuration}");
        assert!(configuration.contains(r#""validatorUrl": "none""#) && !configuration.contains("petstore"));
    }

    #[test]
    fn only_files_of_the_page_are_served_each_with_the_security_policy() {
        for name in FILES {
            let response = file(name);
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], SECURITY_POLICY);
            assert_ne!(response.headers()[CONTENT_TYPE], "application/octet-stream", "{name}");
        }
        for name in ["", "/", "..", "../Cargo.toml", "oauth2-redirect.html", "swagger-ui.js"] {
            assert_eq!(file(name).status(), StatusCode::NOT_FOUND, "{name}");
        }
    }
}
