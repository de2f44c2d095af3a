//! Downloads: a URL with a ticket, which counts once, for its caller and its read.

use serde_json::{Value, json};

use super::{Answer, Gated, grant, make_key, rule};
use crate::operation;

const DOWNLOADS: &str = "/api/v1/downloads";

async fn gated() -> Gated {
    let mut gated = Gated::with(&["--listen-operations", "127.0.0.1:0"]).await;
    // Everything that writ logs at its own most detailed level, and the messages of its libraries.
    gated.case.log_level = "debug,writ=trace".to_owned();
    gated.restart().await;
    let rules = json!([rule("both", "echo out; echo one; echo two; echo err >&2; exit 3"), rule("empty", "true")]);
    gated.case.apply_whitelist("api", rules).await;
    gated
}

async fn finished(gated: &Gated) -> String {
    let answer = gated.execute("both").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text("command_id").to_owned()
}

fn output(id: &str, stream: &str) -> Value {
    json!({"what": {"kind": "output", "command_id": id, "stream": stream}})
}

/// Requests a URL as jane.
async fn link(gated: &Gated, body: Value) -> String {
    let answer = gated.post(DOWNLOADS, body).await;
    assert_eq!((answer.status, &answer.body["expires_in"]), (201, &json!(60)), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.text("url").to_owned()
}

/// Follows a URL as a browser: without a credential.
async fn follow(gated: &Gated, method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    gated.send(method, format!("http://{}{url}", gated.address), "", headers, None).await
}

#[tokio::test]
async fn a_url_gives_the_file_once_and_no_other_credential_is_needed() {
    let gated = gated().await;
    let id = finished(&gated).await;
    let url = link(&gated, output(&id, "stdout")).await;
    let ticket = url.strip_prefix("/api/v1/downloads/").expect("the path");
    assert!(ticket.len() == 43 && ticket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    let head = follow(&gated, "HEAD", &url, &[]).await;
    assert_eq!((head.status, head.header("allow")), (405, "GET"));
    let file = follow(&gated, "GET", &url, &[]).await;
    assert_eq!((file.status, file.body.as_str()), (200, Some("out\none\ntwo\n")), "{file:?}");
    let name = id.split_once(':').expect("an id").1;
    assert_eq!(file.header("content-disposition"), format!("attachment; filename=\"{name}.stdout\""));
    assert_eq!((file.header("cache-control"), file.header("referrer-policy")), ("no-store", "no-referrer"));
    assert_eq!(
        (file.header("content-type"), file.header("x-content-type-options")),
        ("application/octet-stream", "nosniff",)
    );
    let again = follow(&gated, "GET", &url, &[]).await;
    let invented = follow(&gated, "GET", &format!("{DOWNLOADS}/{}", "A".repeat(43)), &[]).await;
    assert_eq!((again.status, again.text("reason")), (404, "NoSuchDownload"), "{again:?}");
    assert_eq!(again.body, invented.body);
    for garbage in ["x", "%ff", "%00", "..%2f..", &"A".repeat(4000)] {
        let answer = follow(&gated, "GET", &format!("{DOWNLOADS}/{garbage}"), &[]).await;
        assert_eq!((answer.status, &answer.body), (404, &invented.body), "{garbage}");
    }
    for body in [&again.body, &invented.body] {
        assert!(!body.to_string().contains(ticket), "{body}");
    }
    let log = gated.case.whole_log();
    assert!(log.contains("/api/v1/downloads/{ticket}"), "the log has the route");
    assert!(!log.contains(ticket), "the ticket is in the log");
    let (_, metrics) = operation::get(operation::port(&gated.case), "/metrics").await;
    assert!(!metrics.contains(ticket) && metrics.contains("/api/v1/downloads/{ticket}"), "{metrics}");
}

#[tokio::test]
async fn a_url_is_bound_to_its_query_and_a_range_uses_it_up() {
    let gated = gated().await;
    let id = finished(&gated).await;
    let url = link(&gated, output(&id, "stderr")).await;
    let error = follow(&gated, "GET", &format!("{url}?grep=x&stream=stdout"), &[]).await;
    assert_eq!((error.status, error.body.as_str()), (200, Some("err\n")), "{error:?}");
    let url = link(&gated, output(&id, "stdout")).await;
    let part = follow(&gated, "GET", &url, &[("Range", "bytes=4-6")]).await;
    assert_eq!((part.status, part.body.as_str()), (206, Some("one")), "{part:?}");
    assert_eq!(part.header("content-range"), "bytes 4-6/12");
    assert_eq!(follow(&gated, "GET", &url, &[("Range", "bytes=7-")]).await.status, 404);
    let mut search = output(&id, "stdout");
    search["what"]["grep"] = json!("^o");
    search["what"]["limit"] = json!(1);
    let found = follow(&gated, "GET", &link(&gated, search).await, &[]).await;
    assert_eq!((found.status, &found.body["matches"][0]["line"]), (200, &json!("out")), "{found:?}");
    assert!(found.header("content-disposition").ends_with(".stdout.json\""), "{:?}", found.headers);
    // The same ticket at the same time: one read.
    let url = link(&gated, output(&id, "stdout")).await;
    let reads = (0..10).map(|_| follow(&gated, "GET", &url, &[]));
    let statuses: Vec<u16> = futures::future::join_all(reads).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 404).count(), 9, "{statuses:?}");
}

#[tokio::test]
async fn rights_are_checked_for_the_url_and_again_for_the_file() {
    let gated = gated().await;
    let id = finished(&gated).await;
    let joe = make_key(&gated.case, "joe", &[]);
    let url = format!("http://{}{DOWNLOADS}", gated.address);
    let body = Some(output(&id, "stdout").to_string());
    assert_eq!(gated.send("POST", url.clone(), "", &[], body.clone()).await.status, 401);
    let refused = gated.send("POST", url.clone(), &joe, &[], body.clone()).await;
    assert_eq!((refused.status, refused.text("reason")), (403, "Forbidden"), "{refused:?}");
    let none = gated.post(DOWNLOADS, output(&format!("{}:none", gated.case.namespace), "stdout")).await;
    assert_eq!((none.status, none.text("reason")), (404, "CommandNotFound"), "{none:?}");
    for (body, field) in [
        (json!({}), "what"),
        (json!({"what": {"command_id": id, "stream": "stdout"}}), "kind"),
        (json!({"what": {"kind": "secret", "command_id": id}}), "secret"),
        (json!({"what": {"kind": "output", "command_id": "x", "stream": "stdout"}}), "command_id"),
        (json!({"what": {"kind": "output", "command_id": id, "stream": "stdin"}}), "stdin"),
        (json!({"what": {"kind": "output", "command_id": id, "stream": "stdout", "grep": "("}}), "grep"),
        (json!({"what": {"kind": "output", "command_id": id, "stream": "stdout", "path": "/etc"}}), "path"),
    ] {
        let malformed = gated.post(DOWNLOADS, body.clone()).await;
        assert!(malformed.status == 422 && malformed.text("message").contains(field), "{body}: {malformed:?}");
    }
    grant(&gated.case, "joe", &["get"]);
    let issue = async || gated.send("POST", url.clone(), &joe, &[], body.clone()).await;
    let (first, second) = (issue().await, issue().await);
    assert_eq!((first.status, second.status), (201, 201), "{first:?}");
    let (world, namespace) = (&gated.case.world, gated.case.namespace.as_str());
    world.kubectl_succeeds(&["-n", namespace, "delete", "rolebinding", "joe-runs"]);
    // Granted rights count for up to 5 s, and those of the API server for up to 10 s more.
    tokio::time::sleep(std::time::Duration::from_secs(17)).await;
    let lost = follow(&gated, "GET", first.text("url"), &[]).await;
    assert_eq!((lost.status, lost.text("reason")), (403, "Forbidden"), "{lost:?}");
    let key = format!("joe-{namespace}");
    let mut revoke = std::process::Command::new(env!("CARGO_BIN_EXE_writ"));
    revoke.args(["api-key", "revoke", &key, "--namespace", crate::world::HOME, "--kubeconfig"]);
    revoke.arg(world.control_plane.kubeconfig(crate::lab::User::Admin));
    assert!(revoke.status().expect("writ runs").success());
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let revoked = follow(&gated, "GET", second.text("url"), &[]).await;
    assert_eq!((revoked.status, revoked.text("reason")), (404, "NoSuchDownload"), "{revoked:?}");
}

#[tokio::test]
async fn a_caller_with_many_unused_urls_waits_and_a_restart_forgets_them() {
    let mut gated = gated().await;
    let id = finished(&gated).await;
    let mut urls = Vec::new();
    for _ in 0..32 {
        urls.push(link(&gated, output(&id, "stdout")).await);
    }
    urls.sort_unstable();
    urls.dedup();
    assert_eq!(urls.len(), 32);
    let refused = gated.post(DOWNLOADS, output(&id, "stdout")).await;
    assert_eq!((refused.status, refused.text("reason")), (429, "TooManyDownloads"), "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    grant(&gated.case, "joe", &["get"]);
    let joe = make_key(&gated.case, "joe", &[]);
    let url = format!("http://{}{DOWNLOADS}", gated.address);
    let other = gated.send("POST", url, &joe, &[], Some(output(&id, "stdout").to_string())).await;
    assert_eq!(other.status, 201, "{other:?}");
    assert_eq!(follow(&gated, "GET", &urls[0], &[]).await.status, 200);
    assert_eq!(gated.post(DOWNLOADS, output(&id, "stdout")).await.status, 201);
    gated.restart().await;
    assert_eq!(follow(&gated, "GET", &urls[1], &[]).await.status, 404);
}
