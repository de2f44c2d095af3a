//! One connection: resolve, connect, check the host key, log in; all of it within one deadline.

use std::borrow::Cow;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::PrivateKeyWithHashAlg;
use russh::{AlgorithmKind, Disconnect, Preferred, cipher, compression, kex, mac};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::handshake::{HostCheck, Progress};
use super::{Credentials, PinnedKeys, Session};

/// How often an idle connection asks the other end whether it is there, and how many of those may stay unanswered: a
/// dead machine is noticed after 15 s x (3 + 1).
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(15), 3);
/// After how long without a word from the other end a connection is given up in any case, also in the middle of a key
/// exchange, where no keepalive is sent. Answers to keepalives count as words, so a silent command is safe.
const INACTIVITY: Duration = Duration::from_secs(75);
/// How long one of several addresses may take: one that swallows packets must not use up the time of the others.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(4);
/// How long the goodbye may take.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection has ended.
const CLOSED_POLL: Duration = Duration::from_millis(2);

/// Where to connect, as whom, and what the host has to prove.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name or IP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// The keys, one of which the host must have.
    pub host_keys: PinnedKeys,
}

/// Why there is no connection. None of these has sent a command.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The machine cannot be reached now; waiting may mend it.
    #[error("{0}")]
    Unreachable(String),
    /// The machine accepted the connection and dropped it before it had said anything, as sshd does with some of the
    /// connections that come at once (MaxStartups); trying again at once may mend it.
    #[error("{0}")]
    Dropped(String),
    /// The host showed a key that is not pinned. Nothing was said to it after that.
    #[error(
        "the host showed the key {shown}, which the Machine does not pin; if the host was re-installed, check its new \
         key on its console and put it into spec.hostKeys, else somebody is in between"
    )]
    HostKeyMismatch {
        /// Fingerprint of what it showed, or the types that it offers.
        shown: String,
    },
    /// The host is the right one and does not let this key in.
    #[error(
        "the machine refused to let user {user} in with this key; put the key's public half into that user's \
         authorized_keys, and check that the account is not locked"
    )]
    AuthenticationRefused {
        /// The login user.
        user: String,
    },
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
            ConnectError::HostKeyMismatch { .. } => "host_key_mismatch",
            ConnectError::AuthenticationRefused { .. } => "authentication_refused",
            ConnectError::Handshake(_) => "handshake",
        }
    }
}

/// An authenticated connection to the right host. Dropped, it is cut off.
pub struct Connection {
    handle: Handle<HostCheck>,
    guard: SocketGuard,
    peer: SocketAddr,
    fingerprint: String,
}

/// Opens a connection and logs in.
///
/// # Errors
/// Why not, see [`ConnectError`]; [`ConnectError::Unreachable`] after `deadline` for the whole of it.
pub async fn connect(
    target: &Target,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    let progress = Arc::new(Progress::default());
    match timeout(deadline, establish(target, credentials, &progress)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Unreachable(format!(
            "{}:{} did not {} within {} s",
            target.address,
            target.port,
            progress.step(),
            deadline.as_secs()
        ))),
    }
}

async fn establish(
    target: &Target,
    credentials: &Credentials,
    progress: &Arc<Progress>,
) -> Result<Connection, ConnectError> {
    let at = format!("{}:{}", target.address, target.port);
    let stream = connect_to_any(target).await.map_err(|error| ConnectError::Unreachable(format!("{at}: {error}")))?;
    // Small messages go back and forth; waiting to fill a packet only delays them. Failing to say so changes nothing.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().map_err(|error| ConnectError::Unreachable(format!("{at}: {error}")))?;

    let (stream, guard) =
        SocketGuard::new(stream).map_err(|error| ConnectError::Unreachable(format!("{at}: {error}")))?;

    progress.enter("complete the SSH handshake");
    let check = HostCheck { pinned: target.host_keys.clone(), progress: Arc::clone(progress) };
    let mut handle = client::connect_stream(Arc::new(config(target)), stream, check)
        .await
        .map_err(|error| classify(&at, &error, progress))?;

    progress.enter("finish authentication");
    let key = PrivateKeyWithHashAlg::new(credentials.key(), None);
    match handle.authenticate_publickey(target.user.clone(), key).await {
        Ok(AuthResult::Success) => {}
        // russh says so too where the connection ends before there is an answer.
        Ok(AuthResult::Failure { remaining_methods, .. })
            if remaining_methods.is_empty() && was_cut(&handle, progress).await =>
        {
            return Err(ConnectError::Unreachable(format!(
                "{at} did not {}: the connection was lost",
                progress.step()
            )));
        }
        Ok(AuthResult::Failure { .. }) => {
            return Err(ConnectError::AuthenticationRefused { user: target.user.clone() });
        }
        Err(error) => return Err(classify(&at, &error, progress)),
    }
    let fingerprint = progress.fingerprint().unwrap_or_default();
    Ok(Connection { handle, guard, peer, fingerprint })
}

/// Whether the connection ended without a word. One that ends with a goodbye, as sshd does after too many failures, ended
/// because the other end wanted it.
async fn was_cut(handle: &Handle<HostCheck>, progress: &Progress) -> bool {
    let ended = async {
        while !handle.is_closed() {
            sleep(CLOSED_POLL).await;
        }
    };
    timeout(DISCONNECT_DEADLINE, ended).await.is_ok() && !progress.was_dismissed()
}

impl Connection {
    /// The address that was reached.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// SHA-256 fingerprint of the host key that was proved.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Opens a session to execute in. Nothing is executed by it.
    ///
    /// # Errors
    /// Busy where the machine has no session to spare now, Unreachable where it does not answer within `deadline` or the
    /// connection is gone.
    pub async fn open(&self, deadline: Duration) -> Result<Session, ConnectError> {
        match timeout(deadline, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(Session::new(channel)),
            // OpenSSH says so over MaxSessions, and frees what was closed late.
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                Err(ConnectError::Busy(format!("{}: no session: {reason:?}", self.peer)))
            }
            Ok(Err(error)) => Err(ConnectError::Unreachable(format!("{}: no session: {error}", self.peer))),
            Err(_) => Err(ConnectError::Unreachable(format!(
                "{} did not open a session within {} s",
                self.peer,
                deadline.as_secs()
            ))),
        }
    }

    /// Whether it is known to be gone. One that has just died is not known to be.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Says goodbye and closes the connection, also where others still have it.
    pub async fn close(&self) {
        // Whether it was heard does not matter: the socket is shut in any case.
        let _ = timeout(DISCONNECT_DEADLINE, self.handle.disconnect(Disconnect::ByApplication, "done", "en")).await;
        let closed = async {
            while !self.handle.is_closed() {
                sleep(CLOSED_POLL).await;
            }
        };
        let _ = timeout(DISCONNECT_DEADLINE, closed).await;
        self.guard.cut();
    }
}

/// Algorithms by name: no SHA-1, no CBC, no compression; of host keys only the pinned types.
fn config(target: &Target) -> client::Config {
    client::Config {
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::ECDH_SHA2_NISTP256,
                kex::ECDH_SHA2_NISTP384,
                kex::ECDH_SHA2_NISTP521,
                kex::DH_G16_SHA512,
                kex::DH_G18_SHA512,
                kex::EXTENSION_SUPPORT_AS_CLIENT,
                // Against prefix truncation (CVE-2023-48795); used where the server has it too.
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            ]),
            key: Cow::Owned(target.host_keys.algorithms()),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(&[
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_GCM,
                cipher::AES_256_CTR,
                cipher::AES_128_CTR,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        keepalive_interval: Some(KEEPALIVE.0),
        keepalive_max: KEEPALIVE.1,
        inactivity_timeout: Some(INACTIVITY),
        ..client::Config::default()
    }
}

/// What a failure means. Whether waiting mends it decides what becomes of the execution, so it is told by kind.
fn classify(at: &str, error: &russh::Error, progress: &Progress) -> ConnectError {
    if let Some(shown) = progress.refused() {
        return ConnectError::HostKeyMismatch { shown };
    }
    match error {
        russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
            ConnectError::HostKeyMismatch { shown: format!("(none of a pinned type; it has {})", theirs.join(", ")) }
        }
        russh::Error::IO(_)
        | russh::Error::HUP
        | russh::Error::Disconnect
        | russh::Error::SendError
        | russh::Error::ConnectionTimeout
        | russh::Error::KeepaliveTimeout
        | russh::Error::InactivityTimeout => {
            let message = format!("{at} did not {}: {error}", progress.step());
            if progress.was_checked() { ConnectError::Unreachable(message) } else { ConnectError::Dropped(message) }
        }
        other => ConnectError::Handshake(format!("{at}: {other}")),
    }
}

/// Tries the addresses of a name one after another.
async fn connect_to_any(target: &Target) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((target.address.as_str(), target.port)).await? {
        match timeout(ADDRESS_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{} did not answer", address.ip())),
        }
    }
    Err(last)
}

/// Shuts the socket down when it is dropped. russh's task lives on where only our end of it is dropped, for as long as
/// the other end keeps it: without this each deadline that strikes would leave a task and a socket behind.
struct SocketGuard(std::net::TcpStream);

impl SocketGuard {
    fn new(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        let guard = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, guard))
    }
}

impl SocketGuard {
    fn cut(&self) {
        // It fails where the connection is gone already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.cut();
    }
}
