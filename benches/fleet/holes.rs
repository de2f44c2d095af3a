//! Simulates faulty and missing machines.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Interval between two bytes that a tarpit sends.
const DRIP: Duration = Duration::from_secs(3);
/// Time after which a connect counts as unanswered. On loopback an answer takes microseconds.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// A bad machine. It stops when this value is dropped.
pub struct Hole {
    pub address: SocketAddr,
    /// Listener and connections to keep open. The connections fill the listener's queue.
    _held: (Option<TcpListener>, Vec<TcpStream>),
    task: Option<AbortHandle>,
}

impl Drop for Hole {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Starts a machine that drops every SYN, because its queue of connections is full and never emptied.
pub async fn drops_syn(address: &str) -> Hole {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(address.parse().expect("an address"), 0)).expect("a port");
    // The queue holds one connection. The loop below fills the queue.
    let listener = socket.listen(0).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = timeout(NO_ANSWER, TcpStream::connect(address)).await {
        held.push(stream);
        assert!(held.len() < 10, "this kernel takes more connections than it was told to");
    }
    Hole { address, _held: (Some(listener), held), task: None }
}

/// Starts a machine that accepts connections and sends nothing.
pub async fn silent(address: &str) -> Hole {
    serve(address, async |_stream| std::future::pending().await).await
}

/// Starts a machine that sends a byte every 3 s, and never a complete banner. A server may send other lines before its
/// banner (RFC 4253, section 4.2), so the client keeps waiting.
pub async fn tarpit(address: &str) -> Hole {
    serve(address, async |mut stream| {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    })
    .await
}

/// Starts a machine that accepts connections, but sends nothing until `open` is true. Then the machine forwards all
/// connections to `to`.
pub async fn proxy(address: &str, to: SocketAddr, open: &watch::Receiver<bool>) -> Hole {
    let open = open.clone();
    serve(address, move |mut stream| {
        let mut open = open.clone();
        async move {
            if open.wait_for(|open| *open).await.is_ok()
                && let Ok(mut there) = TcpStream::connect(to).await
            {
                // An error ends only this connection, so it is ignored.
                let _ = copy_bidirectional(&mut stream, &mut there).await;
            }
        }
    })
    .await
}

async fn serve<F, Fut>(address: &str, each: F) -> Hole
where
    F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        // The accepted connections end together with this task.
        let mut taken = tokio::task::JoinSet::new();
        loop {
            while taken.try_join_next().is_some() {}
            let (stream, _) = listener.accept().await.expect("a connection");
            taken.spawn(each(stream));
        }
    });
    Hole { address, _held: (None, Vec::new()), task: Some(task.abort_handle()) }
}
