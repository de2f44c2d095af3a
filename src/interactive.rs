//! Connects the client of an interactive execution with the task that runs its command.
//!
//! The gateway registers the client under the name of the execution before it creates the execution. The controllers
//! let an interactive execution start only while a client is registered, and the runner takes the client's input once.
//!
//! ```text
//! gateway: Client --input, resizes--> ClientInputs: runner
//!    |  dropped: the client has left ------> left()
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Maximum number of inputs that wait for the machine. Each has at most 64 KiB, the maximum of a WebSocket message. A
/// machine that reads nothing then delays only its own client.
const MAX_WAITING_INPUTS: usize = 16;

/// Input of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientInput {
    /// Bytes for the standard input of the command.
    Bytes(Bytes),
    /// The end of standard input.
    EndOfInput,
    /// A new size of the client's terminal.
    Resize {
        /// Number of columns.
        columns: u16,
        /// Number of rows.
        rows: u16,
    },
}

/// Namespace and name of an execution.
type Name = (String, String);

/// Registered clients by the name of their execution. Each belongs to one open socket, so their number needs no other
/// limit.
type Registered = HashMap<Name, Waiting>;

struct Waiting {
    /// `None` after the runner has taken the inputs.
    inputs: Option<ClientInputs>,
}

/// Registry of the clients. Clones share it.
#[derive(Clone, Default)]
pub struct InteractiveClients {
    registered: Arc<Mutex<Registered>>,
}

/// A registered client. Dropping it means that the client has left.
pub struct InteractiveClient {
    name: Name,
    registered: Arc<Mutex<Registered>>,
    inputs: mpsc::Sender<ClientInput>,
    left: CancellationToken,
}

/// Receiver of the inputs of a client.
pub struct ClientInputs {
    inputs: mpsc::Receiver<ClientInput>,
    left: CancellationToken,
}

/// Another client is registered for the execution.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("another client is connected to the execution; an interactive execution has one client")]
pub struct AlreadyConnected;

/// The command takes no more input, because it has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InputClosed;

impl InteractiveClients {
    /// Registers the client of an execution that perhaps does not exist yet.
    ///
    /// # Errors
    /// The execution has a client already.
    pub fn connect(&self, namespace: &str, name: &str) -> Result<InteractiveClient, AlreadyConnected> {
        let name = (namespace.to_owned(), name.to_owned());
        let (sender, receiver) = mpsc::channel(MAX_WAITING_INPUTS);
        let left = CancellationToken::new();
        let inputs = ClientInputs { inputs: receiver, left: left.clone() };
        match lock(&self.registered).entry(name.clone()) {
            Entry::Occupied(_) => return Err(AlreadyConnected),
            Entry::Vacant(place) => drop(place.insert(Waiting { inputs: Some(inputs) })),
        }
        Ok(InteractiveClient { name, registered: Arc::clone(&self.registered), inputs: sender, left })
    }

    /// Returns true if a client of the execution is connected to this process.
    pub fn is_connected(&self, namespace: &str, name: &str) -> bool {
        lock(&self.registered).contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Takes the inputs of the client. Returns `None` if no client is connected, or if they were taken before.
    pub fn take(&self, namespace: &str, name: &str) -> Option<ClientInputs> {
        lock(&self.registered).get_mut(&(namespace.to_owned(), name.to_owned()))?.inputs.take()
    }
}

impl InteractiveClient {
    /// Passes input to the command. Waits while the machine does not read.
    ///
    /// # Errors
    /// The command has ended, or will not start.
    pub async fn send(&self, input: ClientInput) -> Result<(), InputClosed> {
        self.inputs.send(input).await.map_err(|_| InputClosed)
    }
}

impl Drop for InteractiveClient {
    fn drop(&mut self) {
        lock(&self.registered).remove(&self.name);
        self.left.cancel();
    }
}

impl ClientInputs {
    /// Waits for the next input. Never completes after the client has left. A caller may drop the future at any time.
    pub async fn next(&mut self) -> ClientInput {
        match self.inputs.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }

    /// Returns a token that is cancelled when the client leaves.
    pub fn left(&self) -> &CancellationToken {
        &self.left
    }
}

fn lock(registered: &Mutex<Registered>) -> MutexGuard<'_, Registered> {
    registered.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn inputs_reach_the_runner_in_their_order_and_are_taken_once() {
        let clients = InteractiveClients::default();
        assert!(clients.take("ops", "a").is_none() && !clients.is_connected("ops", "a"));
        let client = clients.connect("ops", "a").unwrap();
        assert!(clients.is_connected("ops", "a") && !clients.is_connected("dev", "a"));
        client.send(ClientInput::Bytes(Bytes::from_static(b"x"))).await.unwrap();
        client.send(ClientInput::EndOfInput).await.unwrap();
        let mut inputs = clients.take("ops", "a").unwrap();
        assert!(clients.take("ops", "a").is_none() && clients.is_connected("ops", "a"));
        assert_eq!(inputs.next().await, ClientInput::Bytes(Bytes::from_static(b"x")));
        assert_eq!(inputs.next().await, ClientInput::EndOfInput);
        drop(inputs);
        assert_eq!(client.send(ClientInput::EndOfInput).await, Err(InputClosed));
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_and_forgotten() {
        let clients = InteractiveClients::default();
        let client = clients.connect("ops", "a").unwrap();
        let inputs = clients.take("ops", "a").unwrap();
        assert!(!inputs.left().is_cancelled());
        drop(client);
        assert!(inputs.left().is_cancelled() && !clients.is_connected("ops", "a"));
        clients.connect("ops", "a").unwrap();
    }

    #[tokio::test]
    async fn an_execution_has_one_client() {
        let clients = InteractiveClients::default();
        let _first = clients.connect("ops", "a").unwrap();
        assert_eq!(clients.connect("ops", "a").err(), Some(AlreadyConnected));
        assert!(clients.is_connected("ops", "a"));
    }
}
