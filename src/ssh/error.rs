//! Errors of connecting to a host.

use super::network::AddressRefusal;
use super::text::join_limited;

/// Maximum number of host keys in a message.
const MAX_KEYS_SHOWN: usize = 4;

/// Error of connecting to a host. No command was sent. Text of the server is truncated and contains only printable
/// ASCII.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The machine is not reachable now. A later attempt can succeed.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended before the machine showed its host key. sshd drops some connections if too many connections
    /// open simultaneously (MaxStartups). An immediate retry can succeed.
    #[error("{0}")]
    ConnectionDropped(String),
    /// The address policy of this installation refuses the address. Nothing was sent to the address.
    #[error("{at}: address refused: {refusal}")]
    AddressRefused {
        /// Address in the Machine spec, and the port.
        at: String,
        /// Reason of the refusal.
        refusal: AddressRefusal,
    },
    /// The host showed a key that is not expected. Writ sent nothing after it received the key.
    #[error(
        "host key changed: expected {}, got {shown}; if the host was re-installed, check its new key on its console and \
         put it into spec.hostKeys (`writ machine keyscan HOST --port PORT` prints the line); otherwise someone may be intercepting the \
         connection",
        if .expected.is_empty() { "a listed key".to_owned() } else { join_limited(.expected, MAX_KEYS_SHOWN) }
    )]
    HostKeyMismatch {
        /// Fingerprints of the expected keys.
        expected: Vec<String>,
        /// Fingerprint of the shown key, or the key types that the host offers.
        shown: String,
    },
    /// The host showed a revoked key or certificate. Writ sent nothing after it received the key or certificate.
    #[error(
        "host key revoked: {what} is in spec.revokedHostKeys; create a new host key and put it into spec.hostKeys; \
         if this is not your host, someone may be intercepting the connection"
    )]
    HostKeyRevoked {
        /// The revoked key or certificate.
        what: String,
    },
    /// The host showed a certificate that is not valid for this host. Writ sent nothing after it received the
    /// certificate.
    #[error("host certificate refused: {why}")]
    HostCertificateRefused {
        /// Reason of the refusal, and the remedy.
        why: String,
    },
    /// The host key is unknown, and the Machine trusts on first use. Writ sent nothing after it received the key. The
    /// caller records the key, then connects again.
    #[error("host key {fingerprint} ({algorithm}) is unknown")]
    HostKeyUnknown {
        /// Type of the key.
        algorithm: String,
        /// Fingerprint of the key.
        fingerprint: String,
    },
    /// The verified host refused all keys.
    #[error("authentication failed for {user} with {} {fingerprint}; {}", .refusal.method(), .refusal.remedy())]
    AuthenticationRefused {
        /// Login user.
        user: String,
        /// Fingerprints of the public halves of the keys that were tried.
        fingerprint: String,
        /// Reason of the last refusal.
        refusal: LoginRefusal,
    },
    /// The account rules of the verified host refused the user.
    #[error(
        "{said} (message of the machine); the machine closed the connection during the login of {user}: check that \
         account there (`chage -l {user}`)"
    )]
    AccountRefused {
        /// Login user.
        user: String,
        /// Message of the machine, printable and truncated.
        said: String,
    },
    /// The credentials cannot be used now. Nothing was sent.
    #[error("{0}")]
    CredentialsUnusable(#[from] super::CredentialsError),
    /// The jump host forwards no connections.
    #[error("{0}")]
    ForwardingRefused(String),
    /// The connection is open, but the machine has no free session on this connection now. Nothing was executed. A
    /// retry or another connection can succeed.
    #[error("{0}")]
    Busy(String),
    /// The server does not speak SSH, or supports only an unsafe form of SSH.
    #[error("the SSH handshake failed: {0}")]
    Handshake(String),
}

impl ConnectError {
    /// Returns the class of the error, for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            ConnectError::Unreachable(_) => "unreachable",
            ConnectError::ConnectionDropped(_) => "dropped",
            ConnectError::Busy(_) => "busy",
            ConnectError::AddressRefused { .. } => "address_refused",
            ConnectError::HostKeyMismatch { .. } => "host_key_mismatch",
            ConnectError::HostKeyRevoked { .. } => "host_key_revoked",
            ConnectError::HostCertificateRefused { .. } => "host_certificate_refused",
            ConnectError::HostKeyUnknown { .. } => "host_key_new",
            ConnectError::AuthenticationRefused { .. } => "authentication_refused",
            ConnectError::AccountRefused { .. } => "account_refused",
            ConnectError::CredentialsUnusable(_) => "credentials_unusable",
            ConnectError::ForwardingRefused(_) => "forwarding_refused",
            ConnectError::Handshake(_) => "handshake",
        }
    }
}

/// Reason why a host refused a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoginRefusal {
    /// The host refused the key.
    Key,
    /// The host refused the certificate for the key.
    Certificate,
    /// The host accepted the key and requires another method in addition.
    PartialSuccess,
    /// The host ended the login before all keys were tried.
    TooMany,
}

impl LoginRefusal {
    fn method(self) -> &'static str {
        match self {
            LoginRefusal::Key | LoginRefusal::PartialSuccess | LoginRefusal::TooMany => "key",
            LoginRefusal::Certificate => "the certificate for key",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            LoginRefusal::Key => {
                "put the key's public half into authorized_keys of that user (`writ machine setup MACHINE` prints the line), and \
                 check that the account exists and is not locked"
            }
            LoginRefusal::Certificate => {
                "TrustedUserCAKeys on the machine must contain the authority, the principals of the certificate must contain \
                 the user, and the account must not be locked"
            }
            LoginRefusal::TooMany => {
                "the machine then ended the login before all keys of the Secret were tried: raise MaxAuthTries in its \
                 sshd_config, or remove keys from the Secret"
            }
            LoginRefusal::PartialSuccess => {
                "the machine accepts the key and requires another method in addition; allow publickey alone for that user \
                 (AuthenticationMethods in its sshd_config)"
            }
        }
    }
}
