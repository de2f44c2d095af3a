//! Progress of a connection, and russh's handler. The handler verifies the host key, and records the other events that
//! russh reports.

use std::sync::{Arc, Mutex, PoisonError};

use russh::Channel;
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg};
use russh::keys::PublicKeyOrCertificate;

use super::clock::seconds_now;
use super::text::printable;
use super::{ConnectError, HostKeyVerifier, VerifiedHostKey};

/// Maximum number of characters of a banner in a message.
const MAX_BANNER_SHOWN: usize = 300;

/// Progress of a connection. Shared with the handler, which russh owns.
#[derive(Debug, Default)]
pub(super) struct HandshakeProgress {
    state: Mutex<HandshakeState>,
}

#[derive(Debug, Default)]
struct HandshakeState {
    /// Step that the server has not completed yet, as a verb: "complete the SSH handshake". `None` means "accept a
    /// connection".
    step: Option<&'static str>,
    /// Result of the host key verification.
    checked: Option<Result<VerifiedHostKey, ConnectError>>,
    /// True if the server sent a disconnect message (RFC 4253, section 11.1).
    got_disconnect: bool,
    /// Last banner that the server sent during the login (RFC 4252, section 5.4), truncated.
    banner: String,
}

impl HandshakeProgress {
    fn with<T>(&self, change: impl FnOnce(&mut HandshakeState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn enter(&self, step: &'static str) {
        self.with(|state| state.step = Some(step));
    }

    pub fn step(&self) -> &'static str {
        self.with(|state| state.step.unwrap_or("accept a connection"))
    }

    /// Deletes the result of the host key verification, before another handshake.
    pub fn reset(&self) {
        self.with(|state| state.checked = None);
    }

    pub fn host_key(&self) -> Option<VerifiedHostKey> {
        self.with(|state| state.checked.clone().and_then(Result::ok))
    }

    pub fn is_host_key_checked(&self) -> bool {
        self.with(|state| state.checked.is_some())
    }

    pub fn got_disconnect(&self) -> bool {
        self.with(|state| state.got_disconnect)
    }

    pub fn banner(&self) -> String {
        self.with(|state| state.banner.clone())
    }

    pub fn refusal(&self) -> Option<ConnectError> {
        self.with(|state| state.checked.clone().and_then(Result::err))
    }
}

/// Handler of russh that accepts verified host keys only.
pub(super) struct HostKeyHandler {
    pub host_keys: HostKeyVerifier,
    pub progress: Arc<HandshakeProgress>,
}

impl client::Handler for HostKeyHandler {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let verdict = self.host_keys.verify(shown, seconds_now());
        let is_right = verdict.is_ok();
        self.progress.with(|state| state.checked = Some(verdict));
        Ok(is_right)
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), Self::Error> {
        let words: String = banner.split_whitespace().collect::<Vec<_>>().join(" ");
        self.progress.with(|state| state.banner = printable(&words, MAX_BANNER_SHOWN));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => {
                self.progress.with(|state| state.got_disconnect = true);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    // By default, russh accepts channels that a server opens. The functions below refuse each channel by dropping its
    // `ChannelOpenHandle`.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
