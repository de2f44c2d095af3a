//! Machines that are not there, or not quite: what a client meets that connects to them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Between two bytes of a tarpit.
const DRIP: Duration = Duration::from_secs(3);
/// After that nobody has answered: on loopback an answer takes microseconds.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// A bad machine, until it is dropped.
pub struct Hole {
    pub address: SocketAddr,
    /// What fills the queue of connections that nobody takes.
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

/// Drops every SYN: its queue of connections is full, and nobody takes any.
pub async fn drops_syn(address: &str) -> Hole {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(address.parse().expect("an address"), 0)).expect("a port");
    // Room for one, which is us.
    let listener = socket.listen(0).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = timeout(NO_ANSWER, TcpStream::connect(address)).await {
        held.push(stream);
        assert!(held.len() < 10, "this kernel takes more connections than it was told to");
    }
    Hole { address, _held: (Some(listener), held), task: None }
}

/// Accepts, and says nothing.
pub async fn silent(address: &str) -> Hole {
    serve(address, async |_stream| std::future::pending().await).await
}

/// Says a byte now and then, and never a whole banner: before its banner a server may say other lines (RFC 4253, section 4.2).
pub async fn tarpit(address: &str) -> Hole {
    serve(address, async |mut stream| {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    })
    .await
}

/// Accepts and is silent until `open` says true; then it is a way to `to`, also for those who wait already.
pub async fn proxy(address: &str, to: SocketAddr, open: &watch::Receiver<bool>) -> Hole {
    let open = open.clone();
    serve(address, move |mut stream| {
        let mut open = open.clone();
        async move {
            if open.wait_for(|open| *open).await.is_ok()
                && let Ok(mut there) = TcpStream::connect(to).await
            {
                // How it ends is between the two.
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
        // Those it has taken end with it.
        let mut taken = tokio::task::JoinSet::new();
        loop {
            while taken.try_join_next().is_some() {}
            let (stream, _) = listener.accept().await.expect("a connection");
            taken.spawn(each(stream));
        }
    });
    Hole { address, _held: (None, Vec::new()), task: Some(task.abort_handle()) }
}
