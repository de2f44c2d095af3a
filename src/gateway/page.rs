//! Lists of executions in the form of the API.

use serde::Serialize;
use utoipa::ToSchema;

use super::list_query::encode_token;
use super::reader::Page;
use super::view::CommandView;

/// Part of a list of executions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandPage {
    /// Executions. A page can have fewer executions than the limit, also none.
    pub items: Vec<CommandView>,
    /// Value for `continue` in the next call. Absent at the end of the list.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// False if the list perhaps lacks executions: there are more than the gateway reads (50000, or 10 s of reading),
    /// or one of them cannot be read.
    pub is_complete: bool,
}

impl CommandPage {
    /// Returns the view of a page.
    pub fn of(page: &Page) -> Self {
        Self {
            items: page.items.iter().map(CommandView::of).collect(),
            next: page.next.as_ref().map(encode_token),
            is_complete: page.is_complete,
        }
    }
}
