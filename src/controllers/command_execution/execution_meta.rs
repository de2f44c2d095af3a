//! Metadata of an execution, as the watch delivers it.

use crate::api::CommandExecution;
use crate::cluster::Slim;

/// Metadata of an execution. The watch decodes nothing else.
pub(super) type ExecutionMeta = Slim<CommandExecution>;
