//! Renaming by kustomize. With `deploy/kustomize/writ-references.yaml`, kustomize also renames the references in Writ's
//! kinds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::toolbox;

const SHIPPED: &str = "deploy/kustomize/writ-references.yaml";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// Returns the output of `kubectl kustomize` for a kustomization with Writ's kinds and these further lines.
fn built(lines: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let machine = |name: &str, hops: Value| {
        let spec =
            json!({"address": "192.0.2.1", "user": "deploy", "credentialsRef": {"name": "web-ssh"}, "jumpHosts": hops});
        json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Machine", "metadata": {"name": name}, "spec": spec})
    };
    let execution = |name: &str, machine: &str| {
        let spec = json!({"machineRef": {"name": machine}, "command": "say hello"});
        json!({"apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution", "metadata": {"name": name}, "spec": spec})
    };
    let all = [
        machine("bastion-1", json!([])),
        machine("bastion-2", json!([{"name": "bastion-1"}])),
        machine("web-1", json!([{"name": "bastion-1"}, {"name": "bastion-2"}, {"name": "of-others"}])),
        execution("reload", "web-1"),
        execution("elsewhere", "of-others"),
        // A Secret with the name of a Machine is a different object.
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-1"}}),
    ];
    let documents: Vec<String> = all.iter().map(Value::to_string).collect();
    write("all.yaml", &documents.join("\n---\n"));
    write("id", "not a key");
    let shipped = std::fs::read_to_string(in_repository(SHIPPED)).expect(SHIPPED);
    write("writ-references.yaml", &shipped);
    let generator = "secretGenerator: [{name: web-ssh, type: kubernetes.io/ssh-auth, files: [ssh-privatekey=id], \
                     options: {labels: {writ.dev/credentials: 'true'}}}]";
    write("kustomization.yaml", &format!("resources: [all.yaml]\n{generator}\n{lines}\n"));
    let kubectl = toolbox::find_or_build_kubectl().expect("kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(folder.path()).output().expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.split("\n---\n").map(yaml).collect()
}

/// Returns the only object of a kind whose name contains `part`.
fn one<'a>(objects: &'a [Value], kind: &str, part: &str) -> &'a Value {
    let is_it = |object: &&Value| {
        object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|name| name.contains(part))
    };
    let found: Vec<&Value> = objects.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{kind} {part} in {objects:?}");
    found[0]
}

#[test]
fn references_follow_prefixes_suffixes_and_the_hashes_of_generated_secrets() {
    let objects = built("namePrefix: prod-\nnameSuffix: -eu\nconfigurations: [writ-references.yaml]");
    let web = &one(&objects, "Machine", "web-1")["spec"];
    let secret = one(&objects, "Secret", "web-ssh");
    let name = secret["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("prod-web-ssh-eu-"), "{name}");
    assert_eq!(web["credentialsRef"]["name"], *name);
    let hops = json!([{"name": "prod-bastion-1-eu"}, {"name": "prod-bastion-2-eu"}, {"name": "of-others"}]);
    assert_eq!(web["jumpHosts"], hops);
    let second = &one(&objects, "Machine", "bastion-2")["spec"];
    assert_eq!(
        (&second["jumpHosts"], &second["credentialsRef"]["name"]),
        (&json!([{"name": "prod-bastion-1-eu"}]), &json!(name))
    );
    assert_eq!(one(&objects, "CommandExecution", "reload")["spec"]["machineRef"]["name"], "prod-web-1-eu");
    // A name of an object outside the kustomization stays unchanged.
    assert_eq!(one(&objects, "CommandExecution", "elsewhere")["spec"]["machineRef"]["name"], "of-others");
}

#[test]
fn without_the_shipped_file_references_keep_the_old_names() {
    let objects = built("namePrefix: prod-");
    assert_eq!(one(&objects, "CommandExecution", "reload")["spec"]["machineRef"]["name"], "web-1");
    assert_eq!(one(&objects, "Machine", "web-1")["spec"]["credentialsRef"]["name"], "web-ssh");
}

/// Collects the paths of the fields below a schema that name one other object. Such a field ends with `Ref` or `Refs`,
/// or has `name` as its only field.
fn references(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        return references(items, path, found);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        references(values, path, found);
    }
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_only_a_name = fields.len() == 1 && fields.contains_key("name");
    let last = path.rsplit('/').next().unwrap_or_default();
    if is_only_a_name || (["Ref", "Refs"].iter().any(|end| last.ends_with(end)) && fields.contains_key("name")) {
        found.insert(format!("{path}/name"));
        return;
    }
    for (name, field) in fields {
        let below = format!("{path}/{name}");
        // A text field that names another object.
        if field["type"] == "string" && ["Ref", "Name"].iter().any(|end| name.ends_with(end)) {
            found.insert(below.clone());
        }
        references(field, &below, found);
    }
}

#[test]
fn every_reference_of_the_crds_is_in_the_shipped_file_and_nothing_else() {
    let mut in_crds = BTreeSet::new();
    for file in std::fs::read_dir(in_repository("crds")).expect("crds/").flatten() {
        let crd = yaml(&std::fs::read_to_string(file.path()).expect("a CRD"));
        let kind = crd["spec"]["names"]["kind"].as_str().expect("a kind");
        for version in crd["spec"]["versions"].as_array().expect("versions") {
            let mut found = BTreeSet::new();
            references(&version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut found);
            in_crds.extend(found.into_iter().map(|path| format!("{kind} {path}")));
        }
    }
    // Only Writ creates receipts, so no kustomization contains them.
    in_crds.retain(|reference| !reference.starts_with("ExecutionReceipt "));
    let shipped = yaml(&std::fs::read_to_string(in_repository(SHIPPED)).expect(SHIPPED));
    let targets = shipped["nameReference"].as_array().expect("a list");
    let fields = targets.iter().flat_map(|target| target["fieldSpecs"].as_array().expect("fields"));
    let in_file: BTreeSet<String> = fields
        .map(|field| {
            assert_eq!(field["group"], "writ.dev", "{field}");
            format!("{} {}", field["kind"].as_str().expect("a kind"), field["path"].as_str().expect("a path"))
        })
        .collect();
    assert_eq!(in_crds, in_file, "a field that names another object belongs into {SHIPPED}");
}
