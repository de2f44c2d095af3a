//! One connection: resolve, connect, check the host key, log in; all of it within one deadline.

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
use super::error::LoginRefusal;
use super::handshake::{HostCheck, Progress};
use super::login::{LoginError, log_in};
use super::reaching::{Wanted, connect_to_any, not_connected, place, resolve};
use super::resolve::zone_of;
use super::stream::{Guard, Stream};
use super::text::printable;
use super::{Admission, ConnectError, Credentials, HostTrust, Network, Proof, Session};

/// How long the goodbye may take.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Of how many connections through a host its answer may be awaited. One that goes to an address which swallows packets is
/// answered after some two minutes, and costs the host a socket for as long.
const FORWARDS: usize = 32;
/// How long it may take: Linux gives a connect up after 127 s.
const FORWARD_DEADLINE: Duration = Duration::from_secs(150);
/// How often it is looked whether a connection has ended.
const CLOSED_POLL: Duration = Duration::from_millis(2);
/// Of what a library says about the other end, so much is told: it may repeat what came from there.
const DETAIL_LENGTH: usize = 300;
/// How an SSH signature by RSA with SHA-1 begins (RFC 4253, section 6.6): the length of its name, and the name.
const SHA1_SIGNATURE: &[u8] = b"\0\0\0\x07ssh-rsa";

/// Where to connect, as whom, and what the host has to prove.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name or IP address, an IPv6 address without brackets.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// What the host may prove itself with.
    pub trust: HostTrust,
    /// Of several addresses of the name, the one to try first. It is not tried if the name does not have it.
    pub prefer: Option<IpAddr>,
    /// Whose share of what all have in common it takes.
    pub namespace: String,
    /// At which addresses the key may be used; None: at all. Of no account through another connection, whose machine
    /// resolves the name.
    pub admission: Option<Admission>,
}

/// An authenticated connection to the right host. Dropped, it is cut off.
pub struct Connection {
    handle: Arc<Handle<HostCheck>>,
    guard: Guard,
    at: String,
    proof: Proof,
    login: Login,
    login_time: Duration,
    /// Connections through this one that it was asked for and has not answered to.
    forwards: Arc<Semaphore>,
}

/// By which key a host let us in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Login {
    /// The name of its entry in the Secret.
    pub entry: String,
    /// SHA-256 fingerprint of its public half.
    pub fingerprint: String,
    /// Those of the keys that were tried before it, and refused.
    pub refused: Vec<String>,
}

/// How a host is reached.
#[derive(Clone, Copy)]
enum Route<'a> {
    /// From here, to addresses that the network permits.
    Direct(&'a Network),
    /// Through another connection, which resolves the name at its end.
    Through(&'a Connection),
}

/// Opens a connection and logs in. Of the target's addresses only those are tried that the network permits, in the order of
/// the resolver.
///
/// # Errors
/// Why not, see [`ConnectError`]; [`ConnectError::Unreachable`] after `deadline` for the whole of it.
pub async fn connect(
    target: &Target,
    credentials: &Credentials,
    network: &Network,
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    establish_within(target, credentials, Route::Direct(network), deadline).await
}

/// The same through another connection, whose machine resolves the target's name and connects to it. It lives no longer than
/// `outer` does. What lies behind `outer` is not held against a [`Network`].
///
/// # Errors
/// As [`connect`]; [`ConnectError::ForwardingRefused`] where the machine at the other end of `outer` passes nothing on.
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
    let attempt = Attempt { target, route, progress: Arc::default(), until: started + deadline, started };
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

/// One attempt to get a connection.
struct Attempt<'a> {
    target: &'a Target,
    route: Route<'a>,
    progress: Arc<Progress>,
    started: Instant,
    until: Instant,
}

/// A host that has proved itself, and to which nothing was said yet.
struct Greeted {
    handle: Handle<HostCheck>,
    guard: Guard,
    at: String,
}

impl Attempt<'_> {
    /// What is being connected to, for messages.
    fn name(&self) -> String {
        let place = place(&self.target.address, self.target.port);
        match self.route {
            Route::Direct(_) => place,
            Route::Through(outer) => format!("{place} via {}", outer.at),
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
        let mut greeted = match self.greet(&addresses, true).await {
            Err(refusal) if self.target.trust.may_do_without_certificate(&refusal) => {
                self.progress.begin_again();
                // What it says of the certificate is of more use than that its key is another one, too.
                self.greet(&addresses, false).await.map_err(|other| match other {
                    ConnectError::HostKeyMismatch { .. } => refusal,
                    other => other,
                })?
            }
            result => result?,
        };
        self.progress.enter("finish authentication");
        let login = self.authenticate(&mut greeted.handle, credentials).await?;
        let Some(proof) = self.progress.proof() else {
            return Err(ConnectError::Handshake(format!("{}: it showed no key", self.name())));
        };
        let Greeted { handle, guard, at } = greeted;
        let forwards = Arc::new(Semaphore::new(FORWARDS));
        Ok(Connection {
            handle: Arc::new(handle),
            guard,
            at,
            proof,
            login,
            login_time: self.started.elapsed(),
            forwards,
        })
    }

    /// Reaches the host and has it prove itself.
    async fn greet(&self, addresses: &[SocketAddr], with_certificate: bool) -> Result<Greeted, ConnectError> {
        match self.route {
            Route::Direct(_) => {
                self.progress.enter("accept a connection");
                let (stream, peer) =
                    connect_to_any(addresses, self.until).await.map_err(|error| not_connected(&self.name(), &error))?;
                // A zone by its name: its number is another one after a reboot.
                let zone = zone_of(&self.target.address);
                let at = zone.map_or_else(|| peer.to_string(), |_| place(&self.target.address, peer.port()));
                self.shake(stream, at, with_certificate).await
            }
            Route::Through(outer) => {
                self.progress.enter("be connected to by the machine before it");
                let stream = outer.forward(&self.target.address, self.target.port).await?;
                self.shake(stream, self.name(), with_certificate).await
            }
        }
    }

    async fn shake<S>(&self, stream: S, at: String, with_certificate: bool) -> Result<Greeted, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.progress.enter("complete the SSH handshake");
        let trust = self.target.trust.clone();
        let certificate_types = if with_certificate { trust.certificate_types() } else { Vec::new() };
        let config = config(trust.key_types(), certificate_types);
        let (stream, guard) = Stream::new(stream);
        let check = HostCheck { trust, progress: Arc::clone(&self.progress) };
        let handle =
            client::connect_stream(Arc::new(config), stream, check).await.map_err(|error| self.classify(&error))?;
        // russh verifies by whatever the signature says that it is; only SHA-2 was asked for.
        let signature = handle.agent_session_binding().map(|binding| binding.signature()).unwrap_or_default();
        if signature.starts_with(SHA1_SIGNATURE) {
            return Err(ConnectError::Handshake(format!("{}: it signs with SHA-1, unasked", self.name())));
        }
        Ok(Greeted { handle, guard, at })
    }

    async fn authenticate(
        &self,
        handle: &mut Handle<HostCheck>,
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
            if refusal == LoginRefusal::NotEnough {
                break;
            }
        }
        let (user, fingerprint) = (self.target.user.clone(), refused.join(", "));
        Err(ConnectError::AuthenticationRefused { user, fingerprint, refusal: last })
    }

    /// Offers one key; None where it lets us in. `is_further`: another one was refused before.
    async fn offer(
        &self,
        handle: &mut Handle<HostCheck>,
        key: &Credentials,
        is_further: bool,
    ) -> Result<Option<LoginRefusal>, ConnectError> {
        Ok(Some(match log_in(handle, &self.target.user, key).await {
            Ok(AuthResult::Success) => return Ok(None),
            // russh says so too where the connection ends before there is an answer.
            Ok(AuthResult::Failure { remaining_methods, .. })
                if remaining_methods.is_empty() && self.was_cut(handle).await =>
            {
                let step = self.progress.step();
                // It comes behind the key: PAM says it before sshd closes the connection.
                let said = self.progress.said();
                if is_about_account(&said) {
                    return Err(ConnectError::AccountRefused { user: self.target.user.clone(), said });
                }
                let quoted = if said.is_empty() { String::new() } else { format!("{said} (said by the machine); ") };
                let message = format!(
                    "{quoted}{} did not {step}: the connection was lost, as it also is if the machine's rules for accounts (PAM) \
                     refuse the user",
                    self.name()
                );
                return Err(ConnectError::Unreachable(message));
            }
            Ok(AuthResult::Failure { partial_success: true, .. }) => LoginRefusal::NotEnough,
            Ok(AuthResult::Failure { remaining_methods, .. })
                if is_further && remaining_methods.is_empty() && self.progress.was_dismissed() =>
            {
                LoginRefusal::TooMany
            }
            Ok(AuthResult::Failure { .. }) if key.certificate().is_some() => LoginRefusal::Certificate,
            Ok(AuthResult::Failure { .. }) => LoginRefusal::Key,
            Err(LoginError::Lost(_)) if is_further && self.progress.was_dismissed() => LoginRefusal::TooMany,
            Err(LoginError::Lost(error)) => return Err(self.classify(&error)),
            Err(error) => return Err(ConnectError::Handshake(format!("{}: {error}", self.name()))),
        }))
    }

    /// Whether the connection ended without a word. One that ends with a goodbye, as sshd does after too many failures,
    /// ended because the other end wanted it.
    async fn was_cut(&self, handle: &Handle<HostCheck>) -> bool {
        timeout(DISCONNECT_DEADLINE, closed(handle)).await.is_ok() && !self.progress.was_dismissed()
    }

    /// What a failure means. Whether waiting mends it decides what becomes of the execution, so it is told by kind.
    fn classify(&self, error: &russh::Error) -> ConnectError {
        if let Some(refusal) = self.progress.refusal() {
            return refusal;
        }
        let name = self.name();
        match error {
            russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
                self.no_common_type(&printable(&theirs.join(", "), DETAIL_LENGTH))
            }
            russh::Error::IO(_)
            | russh::Error::HUP
            | russh::Error::Disconnect
            | russh::Error::SendError
            | russh::Error::ConnectionTimeout
            | russh::Error::KeepaliveTimeout
            | russh::Error::InactivityTimeout => {
                let message = format!("{name} did not {}: {error}", self.progress.step());
                if self.progress.was_checked() {
                    ConnectError::Unreachable(message)
                } else {
                    ConnectError::Dropped(message)
                }
            }
            other => ConnectError::Handshake(format!("{name}: {}", printable(&other.to_string(), DETAIL_LENGTH))),
        }
    }

    /// The host has none of what was asked for.
    fn no_common_type(&self, theirs: &str) -> ConnectError {
        let expected = self.target.trust.expected();
        if expected.is_empty() && !self.target.trust.certificate_types().is_empty() {
            let why = format!(
                "it has none (it offers {theirs}); sign its key (ssh-keygen -s -h) and name the certificate in its \
                 sshd_config (HostCertificate), or put its key into spec.hostKeys"
            );
            return ConnectError::HostCertificateRefused { why };
        }
        ConnectError::HostKeyMismatch { expected, shown: format!("none of their types (it has {theirs})") }
    }
}

async fn closed(handle: &Handle<HostCheck>) {
    while !handle.is_closed() {
        sleep(CLOSED_POLL).await;
    }
}

impl Connection {
    /// What was reached, as it is recorded: `IP:PORT`, or `NAME:PORT via OUTER` where it was reached through another
    /// connection.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// What proved that the host is the right one.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// By which key the host let us in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// SHA-256 fingerprint of the host key that was proved.
    pub fn fingerprint(&self) -> &str {
        &self.proof.fingerprint
    }

    /// How long it took from before the name was resolved until the login had succeeded.
    pub fn login_time(&self) -> Duration {
        self.login_time
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
                Err(ConnectError::Busy(format!("{}: no session: {reason:?}", self.at)))
            }
            Ok(Err(error)) => Err(ConnectError::Unreachable(format!("{}: no session: {error}", self.at))),
            Err(_) => Err(ConnectError::Unreachable(format!(
                "{} did not open a session within {} s",
                self.at,
                deadline.as_secs()
            ))),
        }
    }

    /// Whether it is known to be gone. One that has just died is not known to be.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Whether the other end answers within `deadline`.
    pub async fn answers(&self, deadline: Duration) -> bool {
        matches!(timeout(deadline, self.handle.send_ping()).await, Ok(Ok(()))) && !self.is_closed()
    }

    /// Says goodbye and closes the connection, also where others still have it.
    pub async fn close(&self) {
        // Whether it was heard does not matter: the stream is cut in any case.
        let _ = timeout(DISCONNECT_DEADLINE, self.handle.disconnect(Disconnect::ByApplication, "done", "en")).await;
        let _ = timeout(DISCONNECT_DEADLINE, closed(&self.handle)).await;
        self.guard.cut();
    }

    /// A way to another machine through this one. Given up, it is closed as soon as the machine has answered: before that
    /// there is nothing that could be closed. So the answer is waited for apart from who wants it.
    async fn forward(&self, address: &str, port: u16) -> Result<ChannelStream<Msg>, ConnectError> {
        let name = place(address, port);
        let (handle, address, port) = (Arc::clone(&self.handle), address.to_owned(), u32::from(port));
        let (sender, receiver) = oneshot::channel();
        let Ok(place) = Arc::clone(&self.forwards).try_acquire_owned() else {
            let message = format!("{} has not answered to {FORWARDS} connections that it was asked for", self.at);
            return Err(ConnectError::Busy(message));
        };
        tokio::spawn(async move {
            let _place = place;
            // The last two are where the connection comes from (RFC 4254, section 7.2), which is nobody's business.
            let asked = handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0);
            let Ok(opened) = timeout(FORWARD_DEADLINE, asked).await else {
                // One that answers to nothing is no machine to go through.
                let _ = handle.disconnect(Disconnect::ByApplication, "no answer", "en").await;
                return;
            };
            // Dropped where nobody wants it any more, and a stream that is dropped closes its channel.
            let _ = sender.send(opened.map(|channel| channel.into_stream()));
        });
        let outer = &self.at;
        match receiver.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))) => {
                Err(ConnectError::ForwardingRefused(format!(
                    "{outer} passes no connection on to {name}; its sshd_config must have AllowTcpForwarding yes (or \
                     local), and a PermitOpen that names it where there is one"
                )))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage))) => {
                Err(ConnectError::Busy(format!("{outer} has no room for a connection to {name}")))
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                Err(ConnectError::Unreachable(format!("{outer} cannot connect to {name}")))
            }
            Ok(Err(error)) => Err(ConnectError::Unreachable(format!("{name} via {outer}: {error}"))),
            Err(_) => Err(ConnectError::Unreachable(format!("{name} via {outer}: the connection was given up"))),
        }
    }
}
