//! Kinds of calls to the API server. A metric has the kind as a label, so the number of kinds is fixed.

/// A kind of call to the API server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// An execution is read.
    GetExecution,
    /// Executions are listed.
    ListExecutions,
    /// The status of an execution is written, for example at the claim. The write fails if the execution has changed
    /// since it was read.
    WriteStatus,
    /// The status of a claimed execution is written. The write fails if the claim no longer has the token of this
    /// process.
    WriteResult,
    /// The finalizer is added to an execution, or removed.
    PatchFinalizer,
    /// A finished execution gets the annotation that permits its deletion.
    MarkRetentionOver,
    /// The managed fields of an execution are cleared.
    ClearManagedFields,
    /// An execution is deleted.
    DeleteExecution,
    /// A receipt is read.
    GetReceipt,
    /// A receipt is written or deleted.
    WriteReceipt,
    /// Receipts are counted.
    CountReceipts,
    /// A Machine is read.
    GetMachine,
    /// The status of a Machine is written.
    WriteMachine,
    /// Whitelists are read.
    GetWhitelists,
    /// The status of a Whitelist is written.
    WriteWhitelist,
    /// A Secret is read.
    GetSecret,
    /// This process's Lease is renewed.
    RenewLease,
    /// Leases of other processes are read.
    ReadLeases,
    /// A Lease is deleted: this process's Lease when this process stops, or the expired Lease of another process.
    DeleteLease,
    /// A dry run checks that the API server does not accept a forged requester.
    CheckStamping,
    /// An object is created or changed on behalf of a requester.
    ActForRequester,
    /// The rights of a caller of the gateway are checked.
    ReviewAccess,
    /// The token of a caller of the gateway is checked.
    ReviewToken,
    /// A token for another ServiceAccount of this process is requested.
    RequestToken,
    /// The Secret of an API key is read.
    GetApiKey,
    /// The admission policy for API keys is read.
    GetApiKeyPolicy,
    /// A session of the gateway is read.
    GetSession,
    /// Sessions of the gateway are listed.
    ListSessions,
    /// An expired session of the gateway is deleted.
    DeleteSession,
    /// A command-line tool reads or writes objects for its user.
    Cli,
}

impl Operation {
    /// Returns the name of this kind of call in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::GetExecution => "get_execution",
            Operation::ListExecutions => "list_executions",
            Operation::WriteStatus => "write_status",
            Operation::WriteResult => "write_result",
            Operation::PatchFinalizer => "patch_finalizer",
            Operation::MarkRetentionOver => "mark_retention_over",
            Operation::ClearManagedFields => "clear_managed_fields",
            Operation::DeleteExecution => "delete_execution",
            Operation::GetReceipt => "get_receipt",
            Operation::WriteReceipt => "write_receipt",
            Operation::CountReceipts => "count_receipts",
            Operation::GetMachine => "get_machine",
            Operation::WriteMachine => "write_machine",
            Operation::GetWhitelists => "get_whitelists",
            Operation::WriteWhitelist => "write_whitelist",
            Operation::GetSecret => "get_secret",
            Operation::RenewLease => "renew_lease",
            Operation::ReadLeases => "read_leases",
            Operation::DeleteLease => "delete_lease",
            Operation::CheckStamping => "check_stamping",
            Operation::ActForRequester => "act_for_requester",
            Operation::ReviewAccess => "review_access",
            Operation::ReviewToken => "review_token",
            Operation::RequestToken => "request_token",
            Operation::GetApiKey => "get_api_key",
            Operation::GetApiKeyPolicy => "get_api_key_policy",
            Operation::GetSession => "get_session",
            Operation::ListSessions => "list_sessions",
            Operation::DeleteSession => "delete_session",
            Operation::Cli => "cli",
        }
    }
}
