//! The hostile requests of `tests/policy/hostile.yaml` on a real API server. Either the schema refuses a request, or
//! Writ rejects it for the listed reason. None reaches sshd. Then some allowed requests run, to prove that the test
//! would notice a command.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use serde_json::json;
use writ::api::{CommandExecution, Phase};

use self::file::{File, Request};
use crate::case::Case;
use crate::lab::User;

#[path = "../policy/file.rs"]
mod file;

type Requester = (String, Vec<String>);

/// Clients of all requesters of the file.
struct Askers<'a> {
    case: &'a Case,
    clients: HashMap<Requester, Client>,
}

impl Askers<'_> {
    /// Returns a client of the administrator that impersonates a requester. The API server stamps that requester.
    async fn client(&mut self, requester: Requester) -> Client {
        if let Some(client) = self.clients.get(&requester) {
            return client.clone();
        }
        let kubeconfig = self.case.world.control_plane.kubeconfig(User::Admin);
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
        let (username, groups) = requester.clone();
        config.auth_info.impersonate = Some(username);
        // Without groups, the API server adds the groups that go with the name. With groups, it uses only these groups
        // and its own ones.
        config.auth_info.impersonate_groups = Some(groups).filter(|groups| !groups.is_empty());
        let client = Client::try_from(config).expect("a client");
        self.clients.insert(requester, client.clone());
        client
    }

    async fn create(&mut self, name: &str, request: &Request) -> Result<(), kube::Error> {
        let requester = request.requester(&self.case.namespace).expect("somebody");
        let resource = ApiResource::erase::<CommandExecution>(&());
        let client = self.client(requester).await;
        let api: Api<DynamicObject> = Api::namespaced_with(client, &self.case.namespace, &resource);
        let spec = request.spec(&machine(&request.labels));
        let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
        api.create(&PostParams::default(), &object).await.map(drop)
    }
}

/// Returns the name of the Machine with these labels.
fn machine(labels: &BTreeMap<String, String>) -> String {
    let words = labels.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
    // Names of objects must be lower-case. Labels may contain capitals.
    let words =
        words.map(|word| if word.to_lowercase() == word { word } else { format!("{}-upper", word.to_lowercase()) });
    std::iter::once("web-1".to_owned()).chain(words).collect::<Vec<_>>().join("-")
}

/// Returns the reason why a request cannot be sent to a cluster unchanged. `None` if it can.
fn cannot_be_asked(request: &Request) -> Option<&'static str> {
    let Some((username, groups)) = request.requester("x") else {
        return Some("who asks is always established while the admission policy is there");
    };
    let has_outer_blank = |name: &String| name.trim() != name;
    (has_outer_blank(&username) || groups.iter().any(has_outer_blank)).then_some("HTTP takes blanks off a header")
}

/// Returns a case with the policy, the Machines and the rights for the requests of the file.
async fn prepared(file: &File) -> Case {
    let case = Case::new().await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writ-requester"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:authenticated"}],
    });
    case.apply("rbac.authorization.k8s.io/v1", "RoleBinding", "writ-user", binding).await;
    for (name, rules) in &file.whitelists {
        case.apply_whitelist(name, rules.clone()).await;
    }
    for request in file.cases.iter().chain(&file.allowed) {
        case.apply_machine_with_labels(&machine(&request.labels), json!(request.labels), json!({})).await;
    }
    case
}

/// Retries a request until the API server applies the new rights, which takes a moment.
async fn wait_for_the_right_to_ask(askers: &mut Askers<'_>, request: &Request) {
    for turn in 0..100 {
        match askers.create(&format!("may-{turn}"), request).await {
            Err(kube::Error::Api(status)) if status.code == 403 => tokio::time::sleep(Duration::from_millis(100)).await,
            result => return result.expect("a request that is taken"),
        }
    }
    panic!("nobody may ask");
}

#[tokio::test]
async fn no_hostile_request_reaches_sshd_and_those_that_are_listed_do() {
    let file = file::read();
    let case = prepared(&file).await;
    let mut askers = Askers { case: &case, clients: HashMap::new() };
    let first = file.cases.iter().find(|request| request.expect.as_deref() == Some("NoMatchingRule")).expect("one");
    wait_for_the_right_to_ask(&mut askers, first).await;
    let (mut refused, mut passed_over, mut created) = (0, Vec::new(), Vec::new());
    for (index, request) in file.cases.iter().enumerate() {
        if let Some(why) = cannot_be_asked(request) {
            passed_over.push(format!("{}: {why}", request.shown()));
            continue;
        }
        let name = format!("x{index}");
        match askers.create(&name, request).await {
            Ok(()) => created.push((name, request)),
            Err(kube::Error::Api(status)) if status.code == 422 => refused += 1,
            Err(error) => panic!("{}: {error}", request.shown()),
        }
    }
    let mut wrong = Vec::new();
    for (name, request) in &created {
        let status = case.finished(name).await;
        let reason = format!("{:?}", status.reason.expect("a reason"));
        let is_right = status.phase == Phase::Rejected && Some(&reason) == request.expect.as_ref();
        if !is_right || status.claim.is_some() || status.decision.is_some() {
            wrong.push(format!("{}: {:?} {reason}, not {:?}", request.shown(), status.phase, request.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(case.ledger(), Vec::<String>::new());
    assert_eq!(case.sshd_logged("Connection from"), 0, "{}", case.sshd.log().unwrap_or_default());
    assert!(passed_over.len() <= 4, "{}", passed_over.join("\n"));
    // The policy must refuse most of the requests. The schema refuses malformed ones.
    assert!(created.len() >= 200 && refused >= 40, "{} created, {refused} refused", created.len());
    for (index, request) in file.allowed.iter().filter(|request| request.run).enumerate() {
        let name = format!("good{index}");
        askers.create(&name, request).await.unwrap_or_else(|error| panic!("{}: {error}", request.shown()));
        let status = case.finished(&name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{}: {:?}", request.shown(), status.message);
        let words = request.argv_is.as_ref().expect("what runs");
        let output = status.stdout.expect("what echo wrote");
        assert_eq!(output, format!("{}\n", words[1..].join(" ")), "{}", request.shown());
        assert_eq!(case.ledger().len(), index + 1, "{}", request.shown());
    }
}
