//! The objects people write and read: Machine, Whitelist, CommandExecution, and the ExecutionReceipt that only Writ writes
//! (`writ.dev/v1alpha1`).
//!
//! The promise kept here: what the API server admits is well-formed, and what it has stored as finished stays
//! (CEL rules in [`crds`]). Pure types: no I/O, no clock. The doc comment of a field is its manual; it
//! ends up in the CRD and so in `kubectl explain`.

pub mod command_execution;
pub mod conditions;
pub mod crds;
pub mod execution_receipt;
pub mod execution_status;
pub mod machine;
pub mod machine_status;
pub mod reference;
pub mod selector;
pub mod whitelist;

pub use command_execution::{CommandExecution, CommandExecutionSpec};
pub use execution_receipt::{ExecutionReceipt, ExecutionReceiptSpec, FirstExecution, ReceiptRequester};
pub use execution_status::{CommandExecutionStatus, Phase, Reason};
pub use machine::{ExecutionMode, HostKeyPolicy, Machine, MachineSpec};
pub use machine_status::{MachinePhase, MachineStatus};
pub use reference::NameReference;
pub use whitelist::{Whitelist, WhitelistRule, WhitelistSpec};

/// What names a user of a machine: what OpenSSH, sudo, useradd and directory services take. As OpenSSH does, it refuses
/// characters that a shell may take for something else.
pub const USER_NAME: &str = r"^[!*,.0-9=?-\[\]-_a-z~]([!#%*-.0-9=?-_a-z~]*[!#%*-.0-9=?-\[\]-_a-z~])?[$]?$";

/// Whether a text has the form of [`USER_NAME`].
pub fn is_user_name(text: &str) -> bool {
    let name = text.strip_suffix('$').unwrap_or(text).as_bytes();
    let is_fit = |byte: &u8| matches!(byte, b'!'..=b'~') && !b"\"'`:/$;&<>|(){}".contains(byte);
    // None of them may be taken for an option, a number or a group.
    let starts = name.first().is_some_and(|first| !b"-#%+\\".contains(first));
    starts && name.iter().all(is_fit) && !name.ends_with(b"\\")
}

/// The API group of all kinds.
pub const GROUP: &str = "writ.dev";
/// The version of the API that this build reads and writes.
pub const VERSION: &str = "v1alpha1";
/// A Secret is used as SSH credentials only where it carries this label with the value `true`, so that not every
/// key in a namespace can be tried on a host of somebody's choice.
pub const CREDENTIALS_LABEL: &str = "writ.dev/credentials";
/// An annotation of such a Secret: patterns (`*`, `?`), separated by commas, of the addresses that it may be used at.
pub const ADDRESSES_ANNOTATION: &str = "writ.dev/addresses";
/// An annotation of such a Secret: patterns (`*`, `?`), separated by commas, of the users that it may log in as.
pub const USERS_ANNOTATION: &str = "writ.dev/users";
/// The finalizer that holds an execution until it has finished and its stored output is removed. It is put on by the API
/// server at creation (`deploy/requester-1.36.yaml`), else by Writ before anything is claimed.
pub const AUDIT_FINALIZER: &str = "writ.dev/audit";
/// An annotation of a finished execution, `true` once its minimum retention is over: from then on it may be deleted by
/// others. Written by Writ alone, and only where that time is more than 0.
pub const RETENTION_OVER_ANNOTATION: &str = "writ.dev/retention-over";

/// The mark that the API server's admission (`writ-audit`) puts on an execution that was created with Writ's finalizer: a copy
/// of one that may have run already.
pub const RESTORED_ANNOTATION: &str = "writ.dev/restored";

/// By which who creates such a copy says, with the value `true`, that it is to run.
pub const RUN_AGAIN_ANNOTATION: &str = "writ.dev/run-again";
/// The Secret type that holds an SSH private key (Kubernetes' own, key `ssh-privatekey`).
pub const CREDENTIALS_TYPE: &str = "kubernetes.io/ssh-auth";
