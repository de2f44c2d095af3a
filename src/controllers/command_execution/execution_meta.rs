//! The watched form of an execution: its metadata.

use crate::api::CommandExecution;
use crate::cluster::Slim;

/// Metadata of an execution. The watch decodes no more of the object.
pub(super) type ExecutionMeta = Slim<CommandExecution>;
