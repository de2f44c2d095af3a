//! What is watched while a connection is made: how far it came, and whether the host is the right one. russh's handler is
//! an adapter here, not a brain.

use std::sync::{Arc, Mutex, PoisonError};

use russh::Channel;
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg};
use russh::keys::PublicKeyOrCertificate;

use super::clock::seconds_now;
use super::text::printable;
use super::{ConnectError, HostTrust, Proof};

/// Of what a machine says during a login, so much is told.
const LONGEST_BANNER: usize = 300;

/// How far a connection came; shared with the handler, as russh owns that.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<ProgressState>,
}

#[derive(Debug, Default)]
struct ProgressState {
    /// What the other end is asked to do; None: to accept the TCP connection.
    step: Option<&'static str>,
    /// What the host key check said.
    checked: Option<Result<Proof, ConnectError>>,
    /// Whether the other end said goodbye (RFC 4253, section 11.1) before the connection ended.
    dismissed: bool,
    /// What it said last during the login (RFC 4252, section 5.4), cut.
    said: String,
}

impl Progress {
    fn with<T>(&self, change: impl FnOnce(&mut ProgressState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn enter(&self, step: &'static str) {
        self.with(|state| state.step = Some(step));
    }

    pub fn step(&self) -> &'static str {
        self.with(|state| state.step.unwrap_or("accept a connection"))
    }

    /// Forgets what the host showed: it is asked once more.
    pub fn begin_again(&self) {
        self.with(|state| state.checked = None);
    }

    pub fn proof(&self) -> Option<Proof> {
        self.with(|state| state.checked.clone().and_then(Result::ok))
    }

    pub fn was_checked(&self) -> bool {
        self.with(|state| state.checked.is_some())
    }

    pub fn was_dismissed(&self) -> bool {
        self.with(|state| state.dismissed)
    }

    pub fn said(&self) -> String {
        self.with(|state| state.said.clone())
    }

    pub fn refusal(&self) -> Option<ConnectError> {
        self.with(|state| state.checked.clone().and_then(Result::err))
    }
}

/// russh's handler: an adapter that lets nobody pass who is not trusted.
pub(super) struct HostCheck {
    pub trust: HostTrust,
    pub progress: Arc<Progress>,
}

impl client::Handler for HostCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let verdict = self.trust.judge(shown, seconds_now());
        let is_right = verdict.is_ok();
        self.progress.with(|state| state.checked = Some(verdict));
        Ok(is_right)
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), Self::Error> {
        let words: String = banner.split_whitespace().collect::<Vec<_>>().join(" ");
        self.progress.with(|state| state.said = printable(&words, LONGEST_BANNER));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => {
                self.progress.with(|state| state.dismissed = true);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    // A server has no business to open channels to us. russh accepts them by default; a handle that is dropped refuses.

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
