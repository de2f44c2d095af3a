//! Reads `hostile.yaml`. The unit test and the cluster test both include this file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Rules of each Whitelist, by its name.
    pub whitelists: BTreeMap<String, Value>,
    pub cases: Vec<Request>,
    pub allowed: Vec<Request>,
}

/// Request and its expected result. `hostile.yaml` explains the fields.
#[derive(Deserialize)]
pub struct Request {
    /// Kind of trick. The unit test counts the requests of each kind.
    #[allow(dead_code, reason = "the cluster test does not count")]
    pub class: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "as", default = "kim")]
    asked_by: String,
    #[serde(default)]
    groups: Vec<String>,
    pub expect: Option<String>,
    pub argv_is: Option<Vec<String>>,
    #[serde(default)]
    pub run: bool,
    #[serde(flatten)]
    spec: BTreeMap<String, Value>,
}

/// Fields of a spec that the file may contain. Without this list, the tests would silently ignore any other field.
const FIELDS: &[&str] = &["command", "argv", "rule", "actionType", "environment", "timeoutSeconds"];

fn kim() -> String {
    "kim".to_owned()
}

pub fn read() -> File {
    serde_saphyr::from_str(include_str!("hostile.yaml")).expect("tests/policy/hostile.yaml")
}

impl Request {
    /// Returns the spec of the request for a Machine.
    pub fn spec(&self, machine: &str) -> Value {
        let unknown = self.spec.keys().find(|field| !FIELDS.contains(&field.as_str()));
        assert!(unknown.is_none(), "{unknown:?} is no field that a case may have");
        let mut spec = written_out(&json!(self.spec));
        spec["machineRef"] = json!({"name": machine});
        spec
    }

    /// Returns the requester and its groups, or `None` if the requester is not established.
    pub fn requester(&self, namespace: &str) -> Option<(String, Vec<String>)> {
        let named = |name: &String| name.replace("{namespace}", namespace);
        (self.asked_by != "nobody").then(|| (named(&self.asked_by), self.groups.iter().map(named).collect()))
    }

    /// Returns a short description for messages.
    pub fn shown(&self) -> String {
        let spec: String = json!(self.spec).to_string().chars().take(200).collect();
        let class = self.class.as_deref().unwrap_or("allowed");
        format!("{class}: {spec} as {} {:?} on {:?}", self.asked_by, self.groups, self.labels)
    }
}

/// Replaces each `repeat` with the repeated text.
fn written_out(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match fields.get("repeat") {
            Some(repeat) => {
                let text = |name: &str| repeat.get(name).and_then(Value::as_str).unwrap_or_default();
                let times = repeat.get("times").and_then(Value::as_u64).expect("how many times");
                let times = usize::try_from(times).expect("a number of times");
                json!(format!("{}{}{}", text("before"), text("text").repeat(times), text("after")))
            }
            None => fields.iter().map(|(name, value)| (name.clone(), written_out(value))).collect(),
        },
        Value::Array(items) => items.iter().map(written_out).collect(),
        other => other.clone(),
    }
}
