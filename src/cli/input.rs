//! Manifests and requests as they come from files and from standard input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::{CommandExecutionSpec, Whitelist};

/// The largest file that is read: etcd takes objects of 1.5 MiB, and a file may have a few.
const MAXIMUM_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The Whitelists in some files; `-` is standard input.
pub(super) fn whitelists(files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Whitelist)>> {
    let mut found = Vec::new();
    for file in files {
        let before = found.len();
        for object in objects(file)? {
            let name =
                object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("(without a name)").to_owned();
            let whitelist = serde_json::from_value(object)
                .with_context(|| format!("{}: the Whitelist {name} cannot be read", file.display()))?;
            found.push((file.clone(), whitelist));
        }
        if found.len() == before {
            bail!("{}: there is no Whitelist in it (apiVersion writ.dev/v1alpha1)", file.display());
        }
    }
    Ok(found)
}

/// The objects of kind Whitelist in a file of one or more YAML or JSON documents, in Lists too.
fn objects(file: &Path) -> anyhow::Result<Vec<Value>> {
    let shown = file.display();
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
    } else {
        let length = std::fs::metadata(file).with_context(|| format!("{shown} cannot be read"))?.len();
        if length > MAXIMUM_FILE_BYTES {
            bail!("{shown} has {length} bytes; at most {MAXIMUM_FILE_BYTES} are read");
        }
        std::fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| anyhow::anyhow!("{shown} is neither YAML nor JSON: {error}"))?;
    let mut found = Vec::new();
    for document in documents {
        let items = match document.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        };
        found.extend(items.into_iter().filter(is_whitelist));
    }
    Ok(found)
}

fn is_whitelist(object: &Value) -> bool {
    let is = |field: &str, value: &str| object.get(field).and_then(Value::as_str) == Some(value);
    is("kind", "Whitelist") && is("apiVersion", &format!("{}/{}", crate::api::GROUP, crate::api::VERSION))
}

/// `NAME=VALUE`, for flags that may be given again and again.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must be NAME=VALUE".to_owned()),
    }
}

/// One request, as a line of JSON or from flags. The fields are those of a CommandExecution's spec, and those that say
/// of which Machine and by whom.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question {
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub argv: Option<Vec<String>>,
    #[serde(default)]
    pub rule: Option<RuleRequest>,
    #[serde(default)]
    pub action_type: Option<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// The labels of the Machine.
    #[serde(default)]
    pub machine_labels: Option<BTreeMap<String, String>>,
    /// Who asks; absent: as the flags say.
    #[serde(default)]
    pub requested_by: Option<Requester>,
}

impl Question {
    /// The spec that would be applied.
    pub fn spec(&self) -> CommandExecutionSpec {
        CommandExecutionSpec {
            command: self.command.clone(),
            argv: self.argv.clone(),
            rule: self.rule.clone(),
            action_type: self.action_type.clone(),
            environment: self.environment.clone(),
            timeout_seconds: self.timeout_seconds,
            ..CommandExecutionSpec::on_machine("explained")
        }
    }

    /// The question that an execution is.
    pub fn of(spec: &CommandExecutionSpec) -> Self {
        Self {
            command: spec.command.clone(),
            argv: spec.argv.clone(),
            rule: spec.rule.clone(),
            action_type: spec.action_type.clone(),
            environment: spec.environment.clone(),
            timeout_seconds: spec.timeout_seconds,
            machine_labels: None,
            requested_by: spec.requested_by.clone(),
        }
    }
}
