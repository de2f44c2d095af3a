//! Why there is no connection.

use super::network::Refusal;
use super::text::list;

/// Of the keys that a host may have, so many are told in a message.
const KEYS_TOLD: usize = 4;

/// Why there is no connection. None of these has sent a command. What the other end said is printable ASCII here, and cut.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The machine cannot be reached now; waiting may mend it.
    #[error("{0}")]
    Unreachable(String),
    /// The machine accepted the connection and dropped it before it had said anything, as sshd does with some of the
    /// connections that come at once (MaxStartups); trying again at once may mend it.
    #[error("{0}")]
    Dropped(String),
    /// This installation does not connect to where the machine is. Nothing was sent there.
    #[error("{at} is not connected to: {refusal}")]
    AddressRefused {
        /// The address as the Machine has it, and the port.
        at: String,
        /// Why not.
        refusal: Refusal,
    },
    /// The host showed a key that it is not known by. Nothing was said to it after that.
    #[error(
        "host key changed: expected {}, got {shown}; if the host was re-installed, check its new key on its console and \
         put it into spec.hostKeys (`writ machine keyscan HOST` prints the line), else somebody is in between",
        if .expected.is_empty() { "what is listed".to_owned() } else { list(.expected, KEYS_TOLD) }
    )]
    HostKeyMismatch {
        /// Fingerprints of what it may show.
        expected: Vec<String>,
        /// Fingerprint of what it showed, or the types that it offers.
        shown: String,
    },
    /// The host showed a key or certificate that is revoked. Nothing was said to it after that.
    #[error(
        "host key revoked: {what} is in spec.revokedHostKeys; make the host a new key and put that into spec.hostKeys, or, \
         if this is not your host, find out who is in between"
    )]
    HostKeyRevoked {
        /// What is revoked.
        what: String,
    },
    /// The host showed a certificate that does not count. Nothing was said to it after that.
    #[error("host certificate refused: {why}")]
    HostCertificateRefused {
        /// Why it does not count, and what to do.
        why: String,
    },
    /// The host is seen for the first time. Nothing was said to it: the key has to be kept first, then it may be connected
    /// to again.
    #[error("host key {fingerprint} ({algorithm}) was seen for the first time")]
    HostKeyNew {
        /// Type of the key.
        algorithm: String,
        /// Its fingerprint.
        fingerprint: String,
    },
    /// The host is the right one and does not let this key in.
    #[error("authentication failed for {user} with {} {fingerprint}; {}", .refusal.offered(), .refusal.advice())]
    AuthenticationRefused {
        /// The login user.
        user: String,
        /// Fingerprints of the public halves of the keys that were tried.
        fingerprint: String,
        /// What was refused.
        refusal: LoginRefusal,
    },
    /// The host is the right one, and its rules for accounts refuse this user.
    #[error(
        "{said} (said by the machine); it closed the connection during the login of {user}: see to that account there \
         (`chage -l {user}`)"
    )]
    AccountRefused {
        /// The login user.
        user: String,
        /// What the machine said: printable, and no more than is told.
        said: String,
    },
    /// What there is to log in with cannot be used now. Nothing was sent.
    #[error("{0}")]
    CredentialsUnusable(#[from] super::CredentialsError),
    /// The machine to go through does not pass connections on.
    #[error("{0}")]
    ForwardingRefused(String),
    /// The connection stands, but the machine has no session to spare on it now; nothing was executed. Trying again, or on
    /// another connection, may mend it.
    #[error("{0}")]
    Busy(String),
    /// The other end does not speak SSH, or not in a way that is safe.
    #[error("the SSH handshake failed: {0}")]
    Handshake(String),
}

impl ConnectError {
    /// The class for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            ConnectError::Unreachable(_) => "unreachable",
            ConnectError::Dropped(_) => "dropped",
            ConnectError::Busy(_) => "busy",
            ConnectError::AddressRefused { .. } => "address_refused",
            ConnectError::HostKeyMismatch { .. } => "host_key_mismatch",
            ConnectError::HostKeyRevoked { .. } => "host_key_revoked",
            ConnectError::HostCertificateRefused { .. } => "host_certificate_refused",
            ConnectError::HostKeyNew { .. } => "host_key_new",
            ConnectError::AuthenticationRefused { .. } => "authentication_refused",
            ConnectError::AccountRefused { .. } => "account_refused",
            ConnectError::CredentialsUnusable(_) => "credentials_unusable",
            ConnectError::ForwardingRefused(_) => "forwarding_refused",
            ConnectError::Handshake(_) => "handshake",
        }
    }
}

/// What a host did not take for a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoginRefusal {
    /// The key.
    Key,
    /// The certificate for the key.
    Certificate,
    /// It took it, and wants something else besides.
    NotEnough,
    /// It ended the login before all keys were tried.
    TooMany,
}

impl LoginRefusal {
    fn offered(self) -> &'static str {
        match self {
            LoginRefusal::Key | LoginRefusal::NotEnough | LoginRefusal::TooMany => "key",
            LoginRefusal::Certificate => "the certificate for key",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            LoginRefusal::Key => {
                "put the key's public half into that user's authorized_keys (`writ machine setup MACHINE` prints the line), and \
                 check that the account exists and is not locked"
            }
            LoginRefusal::Certificate => {
                "the machine's TrustedUserCAKeys must name the authority, the certificate the user among its principals, \
                 and the account may not be locked"
            }
            LoginRefusal::TooMany => {
                "the machine ended the login after that, and further keys of the Secret were not tried: raise MaxAuthTries in its \
                 sshd_config, or take keys out of the Secret"
            }
            LoginRefusal::NotEnough => {
                "the machine takes it and wants another method besides; let that user in with publickey alone \
                 (AuthenticationMethods in its sshd_config)"
            }
        }
    }
}
