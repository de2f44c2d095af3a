//! The chart's ServiceAccount has exactly the rights in docs/guides/roles.md. The test asks the API server about every
//! resource and verb in each kind of namespace, like `kubectl auth can-i`.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client, Discovery};
use serde_json::Value;

use crate::case::Case;
use crate::world::{ACCOUNT, CHART, GATEWAY_ACCOUNT, HOME, World, world};

/// Verbs of resources (https://kubernetes.io/docs/reference/access-authn-authz/authorization/), and verbs that grant
/// more than their names suggest.
const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "approve",
];

/// Right: verb, group, resource (with its subresource), and kind of place.
type Right = (String, String, String, &'static str);

/// Place of a right: its name in the table, its namespace, and the name of an object in it.
struct Place {
    called: &'static str,
    namespace: String,
    name: &'static str,
}

/// Returns the rows of the table, one right each.
fn table() -> BTreeSet<Right> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/roles.md")).expect("the guide");
    let rows =
        text.lines().skip_while(|line| !line.starts_with("| verbs |")).skip(2).take_while(|line| line.starts_with('|'));
    let mut rights = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (qualified, place) = (cells[1], cells[2]);
        let (path, subresource) = qualified.split_once('/').map_or((qualified, None), |(path, sub)| (path, Some(sub)));
        let (resource, group) = path.split_once('.').unwrap_or((path, ""));
        let resource =
            subresource.map_or_else(|| resource.to_owned(), |subresource| format!("{resource}/{subresource}"));
        let places = ["served", "opted in", "home", "named", "gateway"];
        let place = places.into_iter().find(|known| *known == place).expect(row);
        rights.extend(cells[0].split(' ').map(|verb| (verb.to_owned(), group.to_owned(), resource.clone(), place)));
    }
    assert!(rights.len() > 20, "the table was not found");
    rights
}

/// Returns every resource of the API server, with its group. Subresources have their full name.
async fn resources(client: &Client) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let discovery = Discovery::new(client.clone()).run().await.expect("discovery");
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        all.insert((resource.group.clone(), resource.plural.clone()));
        for (subresource, _) in capabilities.subresources {
            let name = subresource.plural.rsplit('/').next().unwrap_or_default().to_owned();
            all.insert((resource.group.clone(), format!("{}/{name}", resource.plural)));
        }
    }
    for must in ["secrets", "pods", "pods/exec"] {
        assert!(all.iter().any(|(_, resource)| resource == must), "{must} is not known: {all:?}");
    }
    // A right may name resources that the API server does not list.
    all.extend([
        ("*".to_owned(), "*".to_owned()),
        (String::new(), "users".to_owned()),
        (String::new(), "groups".to_owned()),
    ]);
    all
}

async fn may(client: &Client, verb: &str, resource: &(String, String), place: &Place) -> bool {
    may_as(client, &format!("system:serviceaccount:{HOME}:{ACCOUNT}"), verb, resource, place).await
}

async fn may_as(client: &Client, user: &str, verb: &str, (group, resource): &(String, String), place: &Place) -> bool {
    let (resource, subresource) =
        resource.split_once('/').map_or((resource.as_str(), None), |(all, sub)| (all, Some(sub)));
    let asked = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.clone()),
        resource: Some(resource.to_owned()),
        subresource: subresource.map(str::to_owned),
        namespace: Some(place.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(place.name.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        groups: user
            .starts_with("system:serviceaccount:")
            .then(|| vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{HOME}")]),
        resource_attributes: Some(asked),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.expect("a review");
    answer.status.is_some_and(|status| status.allowed)
}

/// Asks the API server about every right in each place. A right of a wider place does not count again in a narrower
/// one.
async fn granted(client: &Client, places: &[Place]) -> BTreeSet<Right> {
    let resources = resources(client).await;
    let mut granted = BTreeSet::<Right>::new();
    for place in places {
        for resource in &resources {
            for verb in VERBS {
                let (group, name) = resource.clone();
                let wider: &[&str] = match place.called {
                    "named" => &[],
                    "gateway" => &["served", "opted in", "home"],
                    _ => &["served", "opted in"],
                };
                let mut wider = wider.iter().filter(|wider| **wider != place.called);
                let is_known =
                    wider.any(|wider| granted.contains(&(verb.to_owned(), group.clone(), name.clone(), *wider)));
                // If Writ serves all namespaces, home is one of them. The table lists home's rights in
                // coordination.k8s.io separately.
                if (place.called == "home" && group == "coordination.k8s.io" || !is_known)
                    && may(client, verb, resource, place).await
                {
                    granted.insert((verb.to_owned(), group, name, place.called));
                }
            }
        }
    }
    granted
}

fn place(called: &'static str, namespace: &str, name: &'static str) -> Place {
    Place { called, namespace: namespace.to_owned(), name }
}

#[tokio::test]
async fn the_rights_of_the_service_account_over_all_namespaces_are_those_of_the_table_and_no_others() {
    let world = world();
    let client = world.client().await;
    let (open, other) = (world.namespace_name(), world.namespace_name());
    for namespace in [&open, &other] {
        world.kubectl_succeeds(&["create", "namespace", namespace]);
    }
    let account = format!("--serviceaccount={HOME}:{ACCOUNT}");
    let role = "--clusterrole=writ-operator-credentials";
    world.kubectl_succeeds(&["-n", &open, "create", "rolebinding", "writ-credentials", role, &account]);
    let places = [
        place("served", &other, "any"),
        place("opted in", &open, "any"),
        place("home", HOME, "any"),
        place("gateway", HOME, GATEWAY_ACCOUNT),
        place("named", "", "writ-requester-create"),
    ];
    // Reviews belong to no namespace. So the right to create them applies in every place.
    let is_review = |right: &Right| right.2 == "subjectaccessreviews";
    let expected: BTreeSet<Right> = table()
        .into_iter()
        .map(|right| if is_review(&right) { (right.0, right.1, right.2, "served") } else { right })
        .collect();
    let granted: BTreeSet<Right> =
        granted(&client, &places).await.into_iter().filter(|right| !is_cluster_wide(right, &expected)).collect();
    assert_eq!(granted, expected);
    // The ServiceAccount has no rights on other policies, and none on other objects without a namespace.
    let elsewhere = place("named", "", "somebody-elses");
    for right in table().iter().filter(|right| right.3 == "named") {
        assert!(!may(&client, &right.0, &(right.1.clone(), right.2.clone()), &elsewhere).await, "{right:?}");
    }
}

/// Returns true if a right without a namespace repeats a right of the table. A right in every namespace is also a right
/// without a namespace.
fn is_cluster_wide(right: &Right, expected: &BTreeSet<Right>) -> bool {
    right.3 == "named" && expected.contains(&(right.0.clone(), right.1.clone(), right.2.clone(), "served"))
}

/// With `watchNamespaces`, Writ has the same rights in these namespaces, and none in any other namespace.
#[tokio::test]
async fn an_installation_for_some_namespaces_has_no_rights_in_others() {
    let world = world();
    let (served, open, other, home) =
        (world.namespace_name(), world.namespace_name(), world.namespace_name(), world.namespace_name());
    for namespace in [&served, &open, &other, &home] {
        world.kubectl_succeeds(&["create", "namespace", namespace]);
    }
    // A ClusterRole belongs to no namespace, so this release has its own ClusterRoles.
    let values = format!("watchNamespaces={{{served},{open}}},credentialsNamespaces={{{open}}}");
    let shared = "crds.install=false,admission.install=false,roles.install=false,replicaCount=0";
    world.helm_succeeds(&["install", "narrow", CHART, "-n", &home, "--set", &values, "--set", shared]);
    let account = format!("system:serviceaccount:{home}:narrow-writ");
    let can = |verb: &str, resource: &str, subresource: &str, namespace: &str| {
        let subresource = format!("--subresource={subresource}");
        let output = world.kubectl(&["auth", "can-i", verb, resource, &subresource, "-n", namespace, "--as", &account]);
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    let mut seen = Vec::new();
    for (namespace, is) in [(&served, "served"), (&open, "opted in"), (&other, "other"), (&home, "home")] {
        for (verb, group, resource, place) in
            table().into_iter().filter(|right| !["named", "gateway"].contains(&right.3))
        {
            let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
            let qualified = format!("{resource}.{group}").trim_end_matches('.').to_owned();
            let expected = match place {
                "served" => is == "served" || is == "opted in" || (is == "home" && group == "coordination.k8s.io"),
                other => other == is || (other == "home" && verb == "get" && (is == "served" || is == "opted in")),
            };
            seen.push(expected);
            assert_eq!(
                can(&verb, &qualified, subresource, namespace),
                expected,
                "{verb} {qualified} in the {is} namespace"
            );
        }
    }
    assert!(seen.contains(&true) && seen.contains(&false));
}

/// The table of docs/guides/roles.md, "What each role can see and do", as rights.
#[tokio::test]
async fn each_role_for_people_may_do_what_the_guide_says_and_nothing_else() {
    let case = Case::new().await;
    let read: Vec<(&str, &str)> =
        ["commandexecutions", "machines", "whitelists", "executionreceipts", "gatewaysessions"]
            .into_iter()
            .flat_map(|resource| ["get", "list", "watch"].map(|verb| (verb, resource)))
            .collect();
    let (ask, own) = (("create", "commandexecutions"), ("patch", "commandexecutions"));
    let replace = [("update", "commandexecutions"), ("delete", "commandexecutions")];
    let written = |resource| ["create", "update", "patch", "delete"].map(|verb| (verb, resource)).to_vec();
    let session = [("create", "gatewaysessions"), ("delete", "gatewaysessions")];
    let roles: [(&str, Vec<(&str, &str)>); 6] = [
        ("writ-viewer", vec![]),
        ("writ-requester", [&[ask, own][..], &session].concat()),
        ("writ-pipeline", vec![ask, own, replace[0], replace[1]]),
        ("writ-on-call", [&[own, ("update", "commandexecutions/cancellation")][..], &session].concat()),
        ("writ-policy-admin", [written("whitelists"), vec![("delete", "executionreceipts")]].concat()),
        ("writ-machine-admin", [written("machines"), vec![("patch", "machines/status")]].concat()),
    ];
    let mut resources = BTreeSet::from([("".to_owned(), "secrets".to_owned()), ("".to_owned(), "pods".to_owned())]);
    for kind in ["commandexecutions", "machines", "whitelists", "executionreceipts", "gatewaysessions"] {
        for suffix in ["", "/status", "/cancellation"] {
            resources.insert(("writ.dev".to_owned(), format!("{kind}{suffix}")));
        }
    }
    for (role, more) in roles {
        let user = format!("{role}-of-{}", case.namespace);
        let (role, named) = (format!("--clusterrole={role}"), format!("--user={user}"));
        case.world.kubectl_succeeds(&["create", "rolebinding", &user, &role, &named, "-n", &case.namespace]);
        let expected: BTreeSet<(&str, &str)> = read.iter().copied().chain(more).collect();
        let place = Place { called: "served", namespace: case.namespace.clone(), name: "any" };
        // Aggregated rights and bindings take effect a moment later.
        let started = std::time::Instant::now();
        while !may_as(&case.client, &user, "get", &("writ.dev".to_owned(), "machines".to_owned()), &place).await {
            assert!(started.elapsed().as_secs() < 30, "{role} gives nothing");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        for resource in &resources {
            for verb in VERBS {
                let is = may_as(&case.client, &user, verb, resource, &place).await;
                let should = resource.0 == "writ.dev" && expected.contains(&(verb, resource.1.as_str()));
                assert_eq!(is, should, "{role}: {verb} {}", resource.1);
            }
        }
    }
}

/// Roles of the gateway, and the place of their rights in the table of docs/guides/roles.md.
const GATEWAY_ROLES: [(&str, &str); 6] = [
    ("writ-gateway-identities", "cluster"),
    ("writ-gateway-actions", "opened"),
    ("writ-gateway-serviceaccounts", "callers"),
    ("writ-gateway-reader", "served"),
    ("writ-gateway-keys", "home"),
    ("system:auth-delegator", "cluster"),
];

/// Returns the rows of the table of the gateway, one right each: verb, group, resource, place.
fn gateway_table() -> BTreeSet<[String; 4]> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/roles.md")).expect("the guide");
    let rows = text.lines().skip_while(|line| !line.starts_with("| verbs | API group |")).skip(2);
    let mut rights = BTreeSet::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        for (verb, resource) in cells[0].split(' ').flat_map(|verb| cells[2].split(' ').map(move |each| (verb, each))) {
            rights.insert([verb, cells[1], resource, cells[3]].map(str::to_owned));
        }
    }
    assert!(rights.len() > 20, "the table was not found");
    rights
}

fn objects(world: &World, arguments: &[&str]) -> Vec<Value> {
    let text = world.kubectl_succeeds(&[&["get", "-o", "json"], arguments].concat());
    let object: Value = serde_json::from_str(&text).expect("JSON");
    object["items"].as_array().cloned().unwrap_or_else(|| vec![object])
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// A verb `impersonate` would give control of the cluster, so this test reads every role and every binding.
#[tokio::test]
async fn the_roles_of_the_gateway_are_those_of_its_table_and_bound_nowhere_else() {
    let world = world();
    let mut rights = BTreeSet::new();
    for (role, place) in GATEWAY_ROLES {
        let kind: &[&str] = if place == "home" { &["role", role, "-n", HOME] } else { &["clusterrole", role] };
        for rule in objects(&world, kind).iter().flat_map(|role| role["rules"].as_array().expect("rules").clone()) {
            let resources = texts(&rule["resources"]);
            for (verb, resource) in
                texts(&rule["verbs"]).iter().flat_map(|verb| resources.iter().map(move |it| (verb, it)))
            {
                let group = texts(&rule["apiGroups"]).join(" ");
                rights.insert([verb.clone(), group, resource.clone(), place.to_owned()]);
            }
        }
    }
    assert_eq!(rights, gateway_table());
    let account = |subject: &Value| subject["name"] == GATEWAY_ACCOUNT && subject["namespace"] == HOME;
    for binding in objects(&world, &["clusterrolebindings,rolebindings", "--all-namespaces"]) {
        if !binding["subjects"].as_array().is_some_and(|subjects| subjects.iter().any(account)) {
            continue;
        }
        let role = binding["roleRef"]["name"].as_str().expect("a role");
        let place = GATEWAY_ROLES.iter().find(|known| known.0 == role).unwrap_or_else(|| panic!("{binding}")).1;
        let is_namespaced = ["opened", "callers", "home"].contains(&place);
        let namespace = binding["metadata"]["namespace"].as_str();
        assert_eq!(namespace.is_some(), is_namespaced, "{binding}");
        assert!(place == "home" || ![Some(HOME), Some("kube-system")].contains(&namespace), "{binding}");
    }
    // The API server knows of no other way to these rights, for example by a group.
    let client = world.client().await;
    let gateway = format!("system:serviceaccount:{HOME}:{GATEWAY_ACCOUNT}");
    for resource in ["users", "groups", "serviceaccounts", "*"] {
        for (group, namespace) in [("", ""), ("", HOME), ("", "kube-system"), ("authentication.k8s.io", ""), ("*", "")]
        {
            for verb in ["impersonate", "*"] {
                let resource = (group.to_owned(), resource.to_owned());
                let is = may_as(&client, &gateway, verb, &resource, &place("any", namespace, "any")).await;
                assert!(!is, "{verb} {resource:?} in {namespace:?}");
            }
        }
    }
}
