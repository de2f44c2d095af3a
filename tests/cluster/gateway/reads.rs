//! Reads: Machines, their history and statistics, rules, explained decisions, the caller, and the documentation.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use super::{Answer, Gated, PATIENCE, grant, make_key, rule};

const EXPLAIN: &str = "/api/v1/commands/explain";

/// Grants a user rights on Machines or Whitelists.
fn grant_on(gated: &Gated, user: &str, verbs: &str, resource: &str) {
    let (world, namespace) = (&gated.case.world, gated.case.namespace.as_str());
    let (role, verbs) = (format!("{user}-{resource}"), format!("--verb={verbs}"));
    let resource = format!("--resource={resource}.writ.dev");
    world.kubectl_succeeds(&["-n", namespace, "create", "role", &role, &verbs, &resource]);
    let (bound, user) = (format!("--role={role}"), format!("--user={user}"));
    world.kubectl_succeeds(&["-n", namespace, "create", "rolebinding", &role, &bound, &user]);
}

async fn gated() -> Gated {
    let gated = Gated::new().await;
    gated.case.apply_whitelist("api", json!([rule("empty", "true"), rule("fails", "exit 3")])).await;
    grant_on(&gated, "jane", "get,list", "machines");
    grant_on(&gated, "jane", "get", "whitelists");
    gated
}

async fn read(gated: &Gated, key: &str, path: &str) -> Answer {
    gated.send("GET", gated.url(path), key, &[], None).await
}

/// Reads as jane, and repeats a read that is over the limit.
async fn jane_reads(gated: &Gated, path: &str) -> Value {
    loop {
        let answer = read(gated, &gated.jane, path).await;
        if answer.status == 429 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        return answer.body;
    }
}

fn names(page: &Value, field: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap_or_else(|| panic!("items in {page}"));
    items.iter().map(|item| item[field].as_str().expect("text").to_owned()).collect()
}

/// Returns the field of all items of a list, page by page.
async fn all_pages(gated: &Gated, path: &str, field: &str) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), String::new());
    for _ in 0..20 {
        let page = jane_reads(gated, &format!("{path}{next}")).await;
        all.extend(names(&page, field));
        match page["continue"].as_str() {
            Some(token) => next = format!("&continue={token}"),
            None => return all,
        }
    }
    panic!("the list does not end: {all:?}");
}

#[tokio::test]
async fn machines_are_listed_in_pages_and_found_by_name_and_uid() {
    let gated = gated().await;
    for name in ["web-3", "web-2"] {
        gated.case.apply_machine_with_labels(name, json!({"role": "web"}), json!({})).await;
    }
    let (started, path) = (Instant::now(), "/api/v1/machines?limit=2");
    while all_pages(&gated, path, "name").await != ["web-1", "web-2", "web-3"] {
        assert!(started.elapsed() < PATIENCE, "{}", jane_reads(&gated, path).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gated.execute("empty").await.status, 200);
    let machine = jane_reads(&gated, "/api/v1/machines/web-1").await;
    assert_eq!((&machine["address"], &machine["total_commands"]), (&json!("127.0.0.1"), &json!(1)), "{machine}");
    assert!(["online", "unknown"].contains(&machine["status"].as_str().expect("a status")), "{machine}");
    let other = jane_reads(&gated, "/api/v1/machines/web-2").await;
    assert_eq!((&other["metadata"]["labels"]["role"], &other["total_commands"]), (&json!("web"), &json!(0)));
    let by_uid = gated.get(&format!("/api/v1/machines/{}", machine["uid"].as_str().expect("a UID"))).await;
    assert_eq!((by_uid.status, by_uid.text("name")), (200, "web-1"), "{by_uid:?}");
    for (path, status, text) in [
        ("/api/v1/machines/web-9", 404, "web-9"),
        ("/api/v1/machines/..%2fweb-1", 404, "web-1"),
        ("/api/v1/machines?limit=0", 422, "limit"),
        ("/api/v1/machines?continue=x", 422, "continue"),
        ("/api/v1/machines?order=name", 422, "order"),
    ] {
        let answer = read(&gated, &gated.jane, path).await;
        assert!(answer.status == status && answer.text("message").contains(text), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn history_and_lists_show_the_newest_first_and_statistics_count_each_word() {
    let gated = gated().await;
    let mut created = Vec::new();
    for command in ["empty", "fails", "unlisted", "empty"] {
        let answer = gated.execute(command).await;
        created.insert(0, answer.header("writ-execution").replace('/', ":"));
    }
    assert_eq!(all_pages(&gated, "/api/v1/machines/web-1/history?limit=3", "command_id").await, created);
    assert_eq!(all_pages(&gated, "/api/v1/commands?limit=1", "command_id").await, created);
    for (filter, expected) in [
        ("status=failed", vec![1]),
        ("status=completed", vec![0, 2, 3]),
        ("status=pending", vec![]),
        ("requester=jane&machine=web-1", vec![0, 1, 2, 3]),
        ("requester=joe", vec![]),
        ("machine=web-2", vec![]),
        ("start_date=2100-01-01", vec![]),
        ("end_date=2100-01-01&start_date=2020-01-01", vec![0, 1, 2, 3]),
    ] {
        let expected: Vec<&String> = expected.into_iter().map(|index: usize| &created[index]).collect();
        let found = all_pages(&gated, &format!("/api/v1/commands?{filter}"), "command_id").await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    let statistics = jane_reads(&gated, "/api/v1/machines/web-1/statistics").await;
    for (field, expected) in [("total_commands", 4), ("completed", 3), ("failed", 1), ("pending", 0), ("timeout", 0)] {
        assert_eq!(statistics[field], expected, "{field} in {statistics}");
    }
    assert!(statistics["is_complete"] == true && statistics["avg_execution_time"].is_f64(), "{statistics}");
}

#[tokio::test]
async fn each_read_needs_the_right_that_kubectl_needs() {
    let gated = gated().await;
    let joe = make_key(&gated.case, "joe", &[]);
    let status = async |path: &str| read(&gated, &joe, path).await.status;
    let explain = async || {
        let body = json!({"machine": "web-1", "command": "empty"}).to_string();
        gated.send("POST", gated.url(EXPLAIN), &joe, &[], Some(body)).await
    };
    let all = ["", "/web-1", "/web-9", "/web-1/history", "/web-1/statistics", "/web-1/rules"];
    for path in all {
        assert_eq!(status(&format!("/api/v1/machines{path}")).await, 403, "{path}");
    }
    assert_eq!((status("/api/v1/commands").await, explain().await.status), (403, 403));
    assert_eq!(gated.send("GET", gated.url("/api/v1/machines"), "", &[], None).await.status, 401);
    grant_on(&gated, "joe", "get", "machines");
    let machine = read(&gated, &joe, "/api/v1/machines/web-1").await;
    assert_eq!((machine.status, &machine.body["total_commands"]), (200, &Value::Null), "{machine:?}");
    assert_eq!((status("/api/v1/machines").await, status("/api/v1/machines/web-1/history").await), (403, 403));
    grant(&gated.case, "joe", &["create"]);
    let allowed = explain().await;
    assert_eq!((allowed.status, &allowed.body["allowed"]), (200, &json!(true)), "{allowed:?}");
    assert!(allowed.body.get("decision").is_none(), "only readers of the policy see the decision: {allowed:?}");
    assert_eq!(status("/api/v1/machines/web-1/rules").await, 403);
}

#[tokio::test]
async fn rules_and_explained_decisions_are_those_of_the_caller() {
    let gated = gated().await;
    let mut of_jane = rule("of-jane", "true");
    of_jane["subjects"] = json!([{"kind": "User", "name": "jane"}]);
    let mut of_joe = rule("of-joe", "true");
    of_joe["subjects"] = json!([{"kind": "User", "name": "joe"}]);
    let mut of_others = rule("of-others", "true");
    of_others["machineSelector"] = json!({"matchLabels": {"role": "other"}});
    gated.case.apply_whitelist("api", json!([of_jane, of_joe, of_others])).await;
    let rules = jane_reads(&gated, "/api/v1/machines/web-1/rules").await;
    let listed = names(&rules, "rule");
    assert!(listed.contains(&"of-jane".to_owned()), "{rules}");
    assert!(!listed.contains(&"of-joe".to_owned()) && !listed.contains(&"of-others".to_owned()), "{rules}");
    let before = (gated.case.ledger().len(), gated.case.executions().list(&Default::default()).await.expect("a list"));
    for (command, allowed, reason) in [
        ("of-jane", true, Value::Null),
        ("of-joe", false, json!("NotPermitted")),
        ("of-others", false, json!("NotPermitted")),
        ("of-nobody", false, json!("NoMatchingRule")),
    ] {
        let answer = gated.post(EXPLAIN, json!({"machine": "web-1", "command": command})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((&answer.body["allowed"], &answer.body["reason"]), (&json!(allowed), &reason), "{answer:?}");
        assert_eq!(answer.body["decision"]["rule"].as_str(), allowed.then_some(command), "{answer:?}");
    }
    let missing = gated.post(EXPLAIN, json!({"machine": "web-9", "command": "of-jane"})).await;
    let malformed = gated.post(EXPLAIN, json!({"machine": "web-9", "command": "a\nb"})).await;
    assert_eq!((missing.status, malformed.status), (404, 422), "{missing:?} {malformed:?}");
    let after = gated.case.executions().list(&Default::default()).await.expect("a list");
    assert_eq!((gated.case.ledger().len(), after.items.len()), (before.0, before.1.items.len()), "nothing is run");
    // A Deny that cannot be read closes the namespace.
    gated.case.apply_whitelist("zz", json!([{"name": "no", "effect": "Deny", "run": ["{x}"]}])).await;
    let closed = jane_reads(&gated, "/api/v1/machines/web-1/rules").await;
    assert!(names(&closed, "rule").is_empty(), "{closed}");
    assert!(closed["message"].as_str().expect("a message").contains("Whitelist zz"), "{closed}");
}

#[tokio::test]
async fn the_caller_learns_name_rights_and_rate() {
    let gated = gated().await;
    assert_eq!(gated.execute("empty").await.status, 200);
    let me = gated.get("/api/v1/me").await;
    assert_eq!((me.status, me.text("user"), me.text("credential")), (200, "jane", "api_key"), "{me:?}");
    let namespaces = me.body["namespaces"].as_array().expect("namespaces");
    assert!(namespaces.contains(&json!(gated.case.namespace)), "{me:?}");
    assert_eq!((&me.body["rate"]["limit"], &me.body["rate"]["remaining"]), (&json!(1000), &json!(999)), "{me:?}");
}

#[tokio::test]
async fn the_documentation_needs_no_credential_and_runs_only_own_scripts() {
    let gated = gated().await;
    let open = async |path: &str| gated.send("GET", format!("http://{}{path}", gated.address), "", &[], None).await;
    let document = open("/api/openapi.json").await;
    assert_eq!((document.status, document.text("openapi")), (200, "3.1.0"));
    for (path, content_type) in [
        ("/api/docs", "text/html"),
        ("/api/docs/", "text/html"),
        ("/api/docs/swagger-ui-bundle.js", "text/javascript"),
        ("/api/docs/swagger-ui.css", "text/css"),
    ] {
        let answer = open(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").starts_with(content_type), "{path}: {:?}", answer.headers);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    assert_eq!(open("/api/docs/other.js").await.status, 404);
}

#[tokio::test]
async fn a_caller_who_reads_too_often_changes_nothing_for_others() {
    let gated = gated().await;
    grant(&gated.case, "joe", &["get", "list"]);
    let joe = make_key(&gated.case, "joe", &[]);
    // The gateway knows both keys, so the limit for unknown keys does not matter.
    jane_reads(&gated, "/api/v1/machines/web-1").await;
    assert_eq!(read(&gated, &joe, "/api/v1/machines/web-1/statistics").await.status, 200);
    let reads = (0..200).map(|_| read(&gated, &joe, "/api/v1/machines/web-1/statistics"));
    let (answers, machine) = tokio::join!(join_all(reads), jane_reads(&gated, "/api/v1/machines/web-1"));
    assert_eq!(machine["name"], "web-1");
    let limited: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(answers.iter().any(|answer| answer.status == 200) && limited.len() > 20, "{}", limited.len());
    for answer in limited {
        assert_eq!((answer.header("retry-after"), answer.text("reason")), ("1", "ReadsLimited"), "{answer:?}");
    }
}
