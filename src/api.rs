//! The API objects (`writ.dev/v1alpha1`): Machine, Whitelist, CommandExecution, GatewaySession, and ExecutionReceipt,
//! which only Writ writes. Also the API keys of the gateway, whose digests are in Secrets.
//!
//! # Guarantees
//!
//! The API server admits only well-formed objects and refuses changes of a finished status (CEL rules in [`crds`]).
//!
//! The types are pure: they use no I/O and no clock. The doc comment of a field is the manual for users, because the
//! CRD contains the comment.

pub mod api_key;
pub mod command_execution;
pub mod conditions;
pub mod crds;
pub mod execution_receipt;
pub mod execution_status;
pub mod gateway_session;
pub mod machine;
pub mod machine_status;
pub mod metadata;
pub mod reference;
pub mod selector;
pub mod unknown_fields;
pub mod whitelist;

pub use api_key::{ApiKey, ApiKeyError};
pub use command_execution::{CommandExecution, CommandExecutionSpec, SessionRequest, WhenOffline};
pub use execution_receipt::{ExecutionReceipt, ExecutionReceiptSpec, FirstExecution, ReceiptRequester};
pub use execution_status::{CommandExecutionStatus, Phase, Reason};
pub use gateway_session::{GatewaySession, GatewaySessionSpec};
pub use machine::{ExecutionMode, HostKeyPolicy, Machine, MachineSpec};
pub use machine_status::{MachinePhase, MachineStatus};
pub use reference::NameReference;
pub use whitelist::{Whitelist, WhitelistRule, WhitelistSpec};

/// Pattern of a user name on a machine. The pattern admits names that OpenSSH, sudo, useradd and directory services
/// accept. Like OpenSSH, the pattern refuses characters that have a meaning in a shell.
pub const USER_NAME: &str = r"^[!*,.0-9=?-\[\]-_a-z~]([!#%*-.0-9=?-_a-z~]*[!#%*-.0-9=?-\[\]-_a-z~])?[$]?$";

/// Returns true if a text has the form of [`USER_NAME`].
pub fn is_user_name(text: &str) -> bool {
    let name = text.strip_suffix('$').unwrap_or(text).as_bytes();
    let is_fit = |byte: &u8| matches!(byte, b'!'..=b'~') && !b"\"'`:/$;&<>|(){}".contains(byte);
    // If a name starts with one of these characters, a program could read the name as an option, a number or a
    // group.
    let starts = name.first().is_some_and(|first| !b"-#%+\\".contains(first));
    starts && name.iter().all(is_fit) && !name.ends_with(b"\\")
}

/// The API group of all kinds.
pub const GROUP: &str = "writ.dev";
/// The version of the API that this build reads and writes.
pub const VERSION: &str = "v1alpha1";
/// Label, with the value `true`, of each Secret with SSH credentials that Writ may use. If Writ did not require
/// this label, the author of a Machine could try every key of the namespace on a host of their choice.
pub const CREDENTIALS_LABEL: &str = "writ.dev/credentials";
/// Annotation of a Secret with SSH credentials: patterns of addresses (`*`, `?`), separated by commas. Writ uses the
/// Secret only for machines whose address matches a pattern.
pub const ADDRESSES_ANNOTATION: &str = "writ.dev/addresses";
/// Annotation of a Secret with SSH credentials: patterns of users (`*`, `?`), separated by commas. Writ uses the Secret
/// only for login users that match a pattern.
pub const USERS_ANNOTATION: &str = "writ.dev/users";
/// Finalizer that keeps an execution until it has finished and Writ has removed its stored output. An admission policy
/// sets the finalizer at the creation (`deploy/requester-1.36.yaml`). If this policy is missing, Writ sets the
/// finalizer before the claim.
pub const AUDIT_FINALIZER: &str = "writ.dev/audit";
/// Annotation of a finished execution, with the value `true` after its minimum retention. From this time on, users may
/// delete the execution. Only Writ writes the annotation, and only if the minimum retention is more than 0.
pub const RETENTION_OVER_ANNOTATION: &str = "writ.dev/retention-over";

/// Annotation of a restored copy of an execution, whose command has perhaps run already. If a new execution already has
/// Writ's finalizer, the admission policy `writ-audit` sets the annotation.
pub const RESTORED_ANNOTATION: &str = "writ.dev/restored";

/// Annotation of a restored copy of an execution. With the value `true`, the creator of the copy requests that the
/// command runs, although it has perhaps run already.
pub const RUN_AGAIN_ANNOTATION: &str = "writ.dev/run-again";
/// Type of a Secret with an SSH private key. Kubernetes defines this type. The private key is in the entry
/// `ssh-privatekey`.
pub const CREDENTIALS_TYPE: &str = "kubernetes.io/ssh-auth";
