//! Executions in the form of RemoteShell: as in this API, and `device_id` names the Machine. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::CommandExecution;
use crate::gateway::page::CommandPage;
use crate::gateway::reader::Page;
use crate::gateway::view::CommandView;

/// One execution.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RemoteCommand {
    /// Name of the Machine.
    device_id: String,
    #[serde(flatten)]
    command: CommandView,
}

/// Part of a list of executions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemoteCommandPage {
    /// Executions. A page can have fewer executions than the limit, also none.
    items: Vec<RemoteCommand>,
    /// Value for `continue` in the next call. Absent at the end of the list.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// False if the list perhaps lacks executions.
    is_complete: bool,
}

impl RemoteCommand {
    /// Returns the view of an execution.
    pub fn of(execution: &CommandExecution) -> Self {
        Self::from_view(CommandView::of(execution))
    }

    fn from_view(command: CommandView) -> Self {
        Self { device_id: command.machine.clone(), command }
    }
}

impl RemoteCommandPage {
    /// Returns the view of a page.
    pub fn of(page: &Page) -> Self {
        let CommandPage { items, next, is_complete } = CommandPage::of(page);
        Self { items: items.into_iter().map(RemoteCommand::from_view).collect(), next, is_complete }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_has_the_fields_of_remote_shell() {
        let execution: CommandExecution = serde_json::from_value(json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": "run-1", "namespace": "ops", "creationTimestamp": "2026-11-30T10:00:00Z"},
            "spec": {"machineRef": {"name": "web-1"}, "command": "uptime"},
            "status": {"phase": "Succeeded", "exitCode": 0, "durationMs": 1500, "stdout": "up\n", "stderr": "",
                "completionTime": "2026-11-30T10:00:02.000000Z"},
        }))
        .unwrap();
        let view = serde_json::to_value(RemoteCommand::of(&execution)).unwrap();
        for (field, expected) in [
            ("command_id", json!("ops:run-1")),
            ("device_id", json!("web-1")),
            ("command", json!("uptime")),
            ("status", json!("completed")),
            ("created_at", json!("2026-11-30T10:00:00.000Z")),
            ("sent_at", json!(null)),
            ("completed_at", json!("2026-11-30T10:00:02.000Z")),
            ("stdout", json!("up\n")),
            ("stderr", json!("")),
            ("exit_code", json!(0)),
            ("execution_time", json!(1.5)),
        ] {
            assert_eq!(view[field], expected, "{field}");
        }
        let page = Page { items: vec![execution], next: None, is_complete: true };
        let page = serde_json::to_value(RemoteCommandPage::of(&page)).unwrap();
        assert_eq!((&page["items"][0], &page["is_complete"]), (&view, &json!(true)));
        assert!(page.get("continue").is_none());
    }
}
