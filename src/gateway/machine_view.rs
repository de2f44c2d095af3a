//! Machines in the form of the API. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Machine;
use crate::api::machine_status::{MachinePhase, SystemInfo};

use super::view::time;

/// One Machine. Contains no keys, no names of Secrets and no annotations.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MachineView {
    /// Name.
    #[schema(examples("web-1"))]
    pub name: String,
    /// Namespace.
    #[schema(examples("ops"))]
    pub namespace: String,
    /// UID.
    pub uid: String,
    /// `online`, `offline`, `misconfigured`, `suspended` or `unknown`.
    #[schema(examples("online"))]
    pub status: String,
    /// Phase in the status of the Machine.
    #[schema(examples("Online"))]
    pub phase: String,
    /// Cause of the phase, and the remedy.
    pub message: Option<String>,
    /// Address of sshd. Absent if this version of Writ cannot read the Machine.
    #[schema(examples("web-1.example.com"))]
    pub address: Option<String>,
    /// TCP port of sshd.
    pub port: Option<u16>,
    /// Login user.
    #[schema(examples("deploy"))]
    pub user: Option<String>,
    /// Time of the first successful login (RFC 3339).
    pub first_seen: Option<String>,
    /// Time of the last successful login that Writ recorded.
    pub last_connected: Option<String>,
    /// Number of queued executions.
    pub queue_size: i64,
    /// Number of running commands.
    pub running: i64,
    /// Number of executions of this Machine that still exist. Only in the answer about one Machine. `null` if the
    /// caller may not list executions, if there are more than 50000, or if they could not be counted in time.
    pub total_commands: Option<u64>,
    /// Labels, and facts that the machine reports about itself.
    pub metadata: MachineMetadata,
}

/// Labels of a Machine, and facts that the machine reports about itself. A machine can report false facts.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct MachineMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Login shell of the login user.
    pub shell: Option<String>,
    /// Boot ID, which changes at each boot.
    pub boot_id: Option<String>,
}

impl MachineView {
    /// Returns the view of a Machine, without `total_commands`.
    pub fn of(machine: &Machine) -> Self {
        let (spec, status) = (&machine.spec, machine.status.clone().unwrap_or_default());
        let phase = status.phase.unwrap_or_default();
        let system = status.system.unwrap_or_default();
        Self {
            uid: machine.uid().unwrap_or_default(),
            message: status.message,
            address: Some(spec.address.clone()),
            port: Some(spec.port),
            user: Some(spec.user.clone()),
            first_seen: status.first_seen_time.as_ref().map(text),
            last_connected: status.last_seen_time.as_ref().map(text),
            queue_size: status.queued.unwrap_or_default(),
            running: status.running.unwrap_or_default(),
            metadata: metadata(machine.metadata.labels.clone().unwrap_or_default(), system),
            ..Self::unknown(&machine.namespace().unwrap_or_default(), &machine.name_any(), phase)
        }
    }

    /// Returns the view of a Machine that this version of Writ cannot read.
    pub fn unreadable(namespace: &str, name: &str) -> Self {
        let message = "this version of Writ cannot read the Machine; kubectl describe machine shows it";
        Self { message: Some(message.to_owned()), ..Self::unknown(namespace, name, MachinePhase::Unknown) }
    }

    fn unknown(namespace: &str, name: &str, phase: MachinePhase) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: String::new(),
            status: phase.as_str().to_ascii_lowercase(),
            phase: phase.as_str().to_owned(),
            message: None,
            address: None,
            port: None,
            user: None,
            first_seen: None,
            last_connected: None,
            queue_size: 0,
            running: 0,
            total_commands: None,
            metadata: MachineMetadata::default(),
        }
    }
}

impl MachineMetadata {
    /// Returns the size of the labels in bytes.
    pub fn label_bytes(&self) -> usize {
        self.labels.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

fn metadata(labels: BTreeMap<String, String>, system: SystemInfo) -> MachineMetadata {
    let SystemInfo { hostname, os, architecture, kernel, shell, boot_id } = system;
    MachineMetadata { labels, hostname, os, architecture, kernel, shell, boot_id }
}

fn text(time_: &Time) -> String {
    time(time_.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_has_the_words_of_the_api_and_no_secrets() {
        let machine: Machine = serde_json::from_value(json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "Machine",
            "metadata": {"name": "web-1", "namespace": "ops", "uid": "u", "labels": {"role": "web"},
                "annotations": {"note": "hidden-1"}},
            "spec": {"address": "web-1.example", "user": "deploy", "credentialsRef": {"name": "hidden-2"},
                "hostKeys": ["ssh-ed25519 hidden-3"]},
            "status": {"phase": "Misconfigured", "message": "fix it", "queued": 3, "running": 1,
                "firstSeenTime": "2026-11-30T10:00:00Z", "system": {"os": "Debian 13"}},
        }))
        .unwrap();
        let view = serde_json::to_value(MachineView::of(&machine)).unwrap();
        assert_eq!((&view["status"], &view["phase"]), (&json!("misconfigured"), &json!("Misconfigured")));
        assert_eq!((&view["queue_size"], &view["running"], &view["port"]), (&json!(3), &json!(1), &json!(22)));
        assert_eq!(view["first_seen"], "2026-11-30T10:00:00.000Z");
        assert_eq!((&view["last_connected"], &view["total_commands"]), (&json!(null), &json!(null)));
        let metadata = &view["metadata"];
        assert_eq!((&metadata["labels"]["role"], &metadata["os"]), (&json!("web"), &json!("Debian 13")));
        assert!(!view.to_string().contains("hidden"), "{view}");
    }

    #[test]
    fn a_machine_without_a_status_is_unknown() {
        let spec = crate::api::MachineSpec::new("web-1.example", "deploy", "web-ssh");
        let view = MachineView::of(&Machine::new("web-1", spec));
        assert_eq!((view.status.as_str(), view.queue_size), ("unknown", 0));
        assert_eq!(MachineView::unreadable("ops", "web-1").status, "unknown");
    }
}
