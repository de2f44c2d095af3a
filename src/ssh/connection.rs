//! Opens a connection: resolve, connect, verify the host key, log in, all within one deadline.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Msg};
use russh::{AlgorithmKind, ChannelOpenFailure, ChannelStream, Disconnect};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::account::is_about_account;
use super::algorithms::config;
use super::dial::{Wanted, dial_any, host_port, not_connected, resolve};
use super::error::LoginRefusal;
use super::handshake::{HandshakeProgress, HostKeyHandler};
use super::login::{LoginError, log_in};
use super::resolve::zone_of;
use super::stream::{AbortOnDrop, AbortableStream};
use super::text::printable;
use super::{AddressPolicy, Admission, ConnectError, Credentials, HostKeyVerifier, Session, VerifiedHostKey};

/// Maximum time to send a disconnect message. Also the maximum time to wait for the end of a connection.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Maximum number of unanswered requests to one jump host for a connection through it. Each request holds a socket of
/// the jump host, for about two minutes if the requested address drops packets.
const MAX_PENDING_FORWARDS: usize = 32;
/// Maximum time for a jump host to answer a request for a connection through it. Linux gives up a connect after 127 s.
const FORWARD_DEADLINE: Duration = Duration::from_secs(150);
/// Interval at which Writ checks if a connection has ended.
const CLOSED_POLL: Duration = Duration::from_millis(2);
/// Maximum number of characters of a russh error in a message. The error can repeat text of the server.
const MAX_DETAIL_SHOWN: usize = 300;
/// Start of an SSH signature by RSA with SHA-1 (RFC 4253, section 6.6): the length of the algorithm's name, then the
/// name.
const SHA1_SIGNATURE: &[u8] = b"\0\0\0\x07ssh-rsa";

/// Address, login user and host keys of a connection to open.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name or IP address. An IPv6 address has no brackets.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// Verifier of the keys with which the host proves its identity.
    pub host_keys: HostKeyVerifier,
    /// Address to try first if the name has several addresses. Ignored if the name does not resolve to this address.
    pub prefer: Option<IpAddr>,
    /// Namespace whose limit of concurrent lookups applies to the name.
    pub namespace: String,
    /// Addresses at which the Secret permits the use of the key. `None` permits all addresses. Ignored for a connection
    /// through a jump host, because the jump host resolves the name.
    pub admission: Option<Admission>,
}

/// An authenticated connection to a host with a verified key. The connection is aborted when this value is dropped.
pub struct Connection {
    handle: Arc<Handle<HostKeyHandler>>,
    guard: AbortOnDrop,
    peer: String,
    host_key: VerifiedHostKey,
    login: Login,
    login_time: Duration,
    /// Permits for requests to open a connection through this host.
    forwards: Arc<Semaphore>,
}

/// Key that the host accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Login {
    /// Name of the entry in the Secret that holds the key.
    pub entry: String,
    /// SHA-256 fingerprint of the key's public half.
    pub fingerprint: String,
    /// Fingerprints of the keys that the host refused before it accepted this key.
    pub refused: Vec<String>,
}

/// Path to a host.
#[derive(Clone, Copy)]
enum Route<'a> {
    /// From this process, to addresses that the policy permits.
    Direct(&'a AddressPolicy),
    /// Through the connection to a jump host. The jump host resolves the name.
    Through(&'a Connection),
}

/// Opens a connection and logs in. Tries the addresses of the target that `network` permits, in the order of the
/// resolver.
///
/// # Errors
/// See [`ConnectError`]. [`ConnectError::Unreachable`] if the whole attempt takes longer than `deadline`.
pub async fn connect(
    target: &Target,
    credentials: &Credentials,
    network: &AddressPolicy,
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    establish_within(target, credentials, Route::Direct(network), deadline).await
}

/// Opens a connection through the jump host at the end of `outer`. The jump host resolves the target's name. If `outer`
/// ends, the new connection ends too. No [`AddressPolicy`] applies to the new connection.
///
/// # Errors
/// As for [`connect`]. [`ConnectError::ForwardingRefused`] if the jump host forwards no connections.
pub async fn connect_through(
    outer: &Connection,
    target: &Target,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    establish_within(target, credentials, Route::Through(outer), deadline).await
}

async fn establish_within(
    target: &Target,
    credentials: &Credentials,
    route: Route<'_>,
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    let started = Instant::now();
    let attempt = ConnectAttempt { target, route, progress: Arc::default(), until: started + deadline, started };
    match timeout(deadline, attempt.establish(credentials)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Unreachable(format!(
            "{} did not {} within {} s",
            attempt.name(),
            attempt.progress.step(),
            deadline.as_secs()
        ))),
    }
}

/// One attempt to open a connection.
struct ConnectAttempt<'a> {
    target: &'a Target,
    route: Route<'a>,
    progress: Arc<HandshakeProgress>,
    started: Instant,
    until: Instant,
}

/// A connection to a host with a verified key, before authentication.
struct VerifiedHost {
    handle: Handle<HostKeyHandler>,
    guard: AbortOnDrop,
    peer: String,
}

impl ConnectAttempt<'_> {
    /// Returns the address of the target, for messages.
    fn name(&self) -> String {
        let host_port = host_port(&self.target.address, self.target.port);
        match self.route {
            Route::Direct(_) => host_port,
            Route::Through(outer) => format!("{host_port} via {}", outer.peer),
        }
    }

    async fn establish(&self, credentials: &Credentials) -> Result<Connection, ConnectError> {
        credentials.usable_now()?;
        let addresses = match self.route {
            Route::Direct(network) => {
                self.progress.enter("resolve to an address");
                let Target { address, port, namespace, admission, prefer, .. } = self.target;
                let wanted = Wanted { address, port: *port, namespace, admission: admission.as_ref() };
                let mut found = resolve(wanted, network).await?;
                found.sort_by_key(|address| Some(address.ip()) != *prefer);
                found
            }
            Route::Through(_) => Vec::new(),
        };
        let mut host = match self.handshake(&addresses, true).await {
            Err(refusal) if self.target.host_keys.may_fall_back_to_plain_key(&refusal) => {
                self.progress.reset();
                // If the plain key does not match either, the first error (about the certificate) helps the user more.
                self.handshake(&addresses, false).await.map_err(|other| match other {
                    ConnectError::HostKeyMismatch { .. } => refusal,
                    other => other,
                })?
            }
            result => result?,
        };
        self.progress.enter("finish authentication");
        let login = self.authenticate(&mut host.handle, credentials).await?;
        let Some(host_key) = self.progress.host_key() else {
            return Err(ConnectError::Handshake(format!("{}: the host showed no key", self.name())));
        };
        let VerifiedHost { handle, guard, peer } = host;
        let forwards = Arc::new(Semaphore::new(MAX_PENDING_FORWARDS));
        Ok(Connection {
            handle: Arc::new(handle),
            guard,
            peer,
            host_key,
            login,
            login_time: self.started.elapsed(),
            forwards,
        })
    }

    /// Connects to the host and verifies its key.
    async fn handshake(&self, addresses: &[SocketAddr], with_certificate: bool) -> Result<VerifiedHost, ConnectError> {
        match self.route {
            Route::Direct(_) => {
                self.progress.enter("accept a connection");
                let (stream, reached) =
                    dial_any(addresses, self.until).await.map_err(|error| not_connected(&self.name(), &error))?;
                // The peer contains the zone's name, because the zone's number can change at a reboot.
                let zone = zone_of(&self.target.address);
                let peer =
                    zone.map_or_else(|| reached.to_string(), |_| host_port(&self.target.address, reached.port()));
                self.handshake_over(stream, peer, with_certificate).await
            }
            Route::Through(outer) => {
                self.progress.enter("accept a connection from the jump host");
                let stream = outer.open_direct_tcpip(&self.target.address, self.target.port).await?;
                self.handshake_over(stream, self.name(), with_certificate).await
            }
        }
    }

    async fn handshake_over<S>(
        &self,
        stream: S,
        peer: String,
        with_certificate: bool,
    ) -> Result<VerifiedHost, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.progress.enter("complete the SSH handshake");
        let host_keys = self.target.host_keys.clone();
        let certificate_types = if with_certificate { host_keys.certificate_types() } else { Vec::new() };
        let config = config(host_keys.key_types(), certificate_types);
        let (stream, guard) = AbortableStream::new(stream);
        let check = HostKeyHandler { host_keys, progress: Arc::clone(&self.progress) };
        let handle =
            client::connect_stream(Arc::new(config), stream, check).await.map_err(|error| self.classify(&error))?;
        // russh also accepts a signature with SHA-1, which Writ did not offer. Writ refuses such a signature here.
        let signature = handle.agent_session_binding().map(|binding| binding.signature()).unwrap_or_default();
        if signature.starts_with(SHA1_SIGNATURE) {
            return Err(ConnectError::Handshake(format!(
                "{}: the host signs with SHA-1, which was not offered",
                self.name()
            )));
        }
        Ok(VerifiedHost { handle, guard, peer })
    }

    async fn authenticate(
        &self,
        handle: &mut Handle<HostKeyHandler>,
        credentials: &Credentials,
    ) -> Result<Login, ConnectError> {
        let mut refused = Vec::new();
        let mut last = LoginRefusal::Key;
        for key in credentials.usable_now()? {
            let Some(refusal) = self.offer(handle, key, !refused.is_empty()).await? else {
                return Ok(Login { entry: key.entry(), fingerprint: key.fingerprint(), refused });
            };
            last = refusal;
            if refusal == LoginRefusal::TooMany {
                break;
            }
            refused.push(key.fingerprint());
            if refusal == LoginRefusal::PartialSuccess {
                break;
            }
        }
        let (user, fingerprint) = (self.target.user.clone(), refused.join(", "));
        Err(ConnectError::AuthenticationRefused { user, fingerprint, refusal: last })
    }

    /// Offers one key. Returns `None` if the host accepts the key. `is_further` is true if the host refused another key
    /// before this key.
    async fn offer(
        &self,
        handle: &mut Handle<HostKeyHandler>,
        key: &Credentials,
        is_further: bool,
    ) -> Result<Option<LoginRefusal>, ConnectError> {
        Ok(Some(match log_in(handle, &self.target.user, key).await {
            Ok(AuthResult::Success) => return Ok(None),
            // If the connection ends before the host answers, russh returns a failure without methods.
            Ok(AuthResult::Failure { remaining_methods, .. })
                if remaining_methods.is_empty() && self.closed_without_disconnect(handle).await =>
            {
                let step = self.progress.step();
                // If PAM refuses the user after an accepted key, the banner can contain the reason.
                let said = self.progress.banner();
                if is_about_account(&said) {
                    return Err(ConnectError::AccountRefused { user: self.target.user.clone(), said });
                }
                let quoted = if said.is_empty() { String::new() } else { format!("{said} (message of the machine); ") };
                let message = format!(
                    "{quoted}{} did not {step}: the connection was lost, which also happens if the account rules of the machine (PAM) \
                     refuse the user",
                    self.name()
                );
                return Err(ConnectError::Unreachable(message));
            }
            Ok(AuthResult::Failure { partial_success: true, .. }) => LoginRefusal::PartialSuccess,
            Ok(AuthResult::Failure { remaining_methods, .. })
                if is_further && remaining_methods.is_empty() && self.progress.got_disconnect() =>
            {
                LoginRefusal::TooMany
            }
            Ok(AuthResult::Failure { .. }) if key.certificate().is_some() => LoginRefusal::Certificate,
            Ok(AuthResult::Failure { .. }) => LoginRefusal::Key,
            Err(LoginError::Lost(_)) if is_further && self.progress.got_disconnect() => LoginRefusal::TooMany,
            Err(LoginError::Lost(error)) => return Err(self.classify(&error)),
            Err(error) => return Err(ConnectError::Handshake(format!("{}: {error}", self.name()))),
        }))
    }

    /// Returns true if the connection ends within [`DISCONNECT_DEADLINE`] without a disconnect message. A host that
    /// ends the login on purpose, for example after too many failures, sends a disconnect message.
    async fn closed_without_disconnect(&self, handle: &Handle<HostKeyHandler>) -> bool {
        timeout(DISCONNECT_DEADLINE, closed(handle)).await.is_ok() && !self.progress.got_disconnect()
    }

    /// Converts an error of russh. The variant of the result decides if the execution waits for the machine or fails.
    fn classify(&self, error: &russh::Error) -> ConnectError {
        if let Some(refusal) = self.progress.refusal() {
            return refusal;
        }
        let name = self.name();
        match error {
            russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
                self.no_common_host_key_type(&printable(&theirs.join(", "), MAX_DETAIL_SHOWN))
            }
            russh::Error::IO(_)
            | russh::Error::HUP
            | russh::Error::Disconnect
            | russh::Error::SendError
            | russh::Error::ConnectionTimeout
            | russh::Error::KeepaliveTimeout
            | russh::Error::InactivityTimeout => {
                let message = format!("{name} did not {}: {error}", self.progress.step());
                if self.progress.is_host_key_checked() {
                    ConnectError::Unreachable(message)
                } else {
                    ConnectError::ConnectionDropped(message)
                }
            }
            other => ConnectError::Handshake(format!("{name}: {}", printable(&other.to_string(), MAX_DETAIL_SHOWN))),
        }
    }

    /// Returns the error for a host without a host key or certificate of a requested type.
    fn no_common_host_key_type(&self, theirs: &str) -> ConnectError {
        let expected = self.target.host_keys.expected();
        if expected.is_empty() && !self.target.host_keys.certificate_types().is_empty() {
            let why = format!(
                "the host has no certificate (it offers {theirs}); sign its key (ssh-keygen -s -h) and name the certificate in \
                 its sshd_config (HostCertificate), or put its key into spec.hostKeys"
            );
            return ConnectError::HostCertificateRefused { why };
        }
        ConnectError::HostKeyMismatch { expected, shown: format!("none of their types (it has {theirs})") }
    }
}

async fn closed(handle: &Handle<HostKeyHandler>) {
    while !handle.is_closed() {
        sleep(CLOSED_POLL).await;
    }
}

impl Connection {
    /// Returns the peer in its recorded form: `IP:PORT`, or `NAME:PORT via OUTER` for a connection through a jump host.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Returns the verified key of the host.
    pub fn host_key(&self) -> &VerifiedHostKey {
        &self.host_key
    }

    /// Returns the key that the host accepted.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Returns the SHA-256 fingerprint of the verified host key.
    pub fn fingerprint(&self) -> &str {
        &self.host_key.fingerprint
    }

    /// Returns the time from the start of the name lookup to the end of the login.
    pub fn login_time(&self) -> Duration {
        self.login_time
    }

    /// Opens a session. Executes nothing.
    ///
    /// # Errors
    /// [`ConnectError::Busy`] if the machine has no free session. [`ConnectError::Unreachable`] if the machine does not
    /// answer within `deadline`, or if the connection is lost.
    pub async fn open(&self, deadline: Duration) -> Result<Session, ConnectError> {
        match timeout(deadline, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(Session::new(channel)),
            // OpenSSH refuses more than MaxSessions sessions. A closed session still counts for a moment.
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

    /// Returns true if this process knows that the connection is closed. A connection that broke a moment ago can still
    /// count as open.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Returns true if the server answers a ping within `deadline`.
    pub async fn is_responsive(&self, deadline: Duration) -> bool {
        matches!(timeout(deadline, self.handle.send_ping()).await, Ok(Ok(()))) && !self.is_closed()
    }

    /// Sends a disconnect message and closes the connection, even if other tasks still use it.
    pub async fn close(&self) {
        // A lost disconnect message does no harm, because the stream is aborted below.
        let _ = timeout(DISCONNECT_DEADLINE, self.handle.disconnect(Disconnect::ByApplication, "done", "en")).await;
        let _ = timeout(DISCONNECT_DEADLINE, closed(&self.handle)).await;
        self.guard.abort();
    }

    /// Opens a stream to another machine through this connection. If the caller gives up before the jump host answers,
    /// a separate task waits for the answer and closes the channel.
    async fn open_direct_tcpip(&self, address: &str, port: u16) -> Result<ChannelStream<Msg>, ConnectError> {
        let name = host_port(address, port);
        let (handle, address, port) = (Arc::clone(&self.handle), address.to_owned(), u32::from(port));
        let (sender, receiver) = oneshot::channel();
        let Ok(permit) = Arc::clone(&self.forwards).try_acquire_owned() else {
            let message = format!("{} has not answered {MAX_PENDING_FORWARDS} requests for a connection", self.peer);
            return Err(ConnectError::Busy(message));
        };
        tokio::spawn(async move {
            let _permit = permit;
            // The origin of the connection (RFC 4254, section 7.2) reveals nothing about this host.
            let asked = handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0);
            let Ok(opened) = timeout(FORWARD_DEADLINE, asked).await else {
                // A machine without an answer cannot serve as a jump host, so Writ closes the connection.
                let _ = handle.disconnect(Disconnect::ByApplication, "no answer", "en").await;
                return;
            };
            // If the receiver is gone, the stream is dropped, which closes its channel.
            let _ = sender.send(opened.map(|channel| channel.into_stream()));
        });
        let outer = &self.peer;
        match receiver.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))) => {
                Err(ConnectError::ForwardingRefused(format!(
                    "{outer} forwards no connection to {name}; its sshd_config must have AllowTcpForwarding yes (or \
                     local), and PermitOpen, if set, must contain it"
                )))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage))) => {
                Err(ConnectError::Busy(format!("{outer} has no resources for a connection to {name}")))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                Err(ConnectError::Unreachable(format!("{outer} cannot connect to {name}")))
            }
            Ok(Err(error)) => Err(ConnectError::Unreachable(format!("{name} via {outer}: {error}"))),
            Err(_) => {
                Err(ConnectError::Unreachable(format!("{name} via {outer}: no answer to the request for a connection")))
            }
        }
    }
}
