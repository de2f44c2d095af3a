//! A bad connection to a machine: a proxy that resets each connection after a random number of bytes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The proxy. It resets connections until a test calls [`Cutter::be_good`].
pub struct Cutter {
    pub port: u16,
    resets: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    is_good: Arc<AtomicBool>,
}

impl Cutter {
    /// Starts a proxy for a port of this machine. Each connection passes on fewer than `longest` bytes, both directions
    /// together.
    pub async fn start(to: u16, longest: u64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cutter =
            Self { port, resets: Arc::default(), open: Arc::default(), is_good: Arc::new(AtomicBool::new(false)) };
        let (resets, open, is_good) =
            (Arc::clone(&cutter.resets), Arc::clone(&cutter.open), Arc::clone(&cutter.is_good));
        let random = Arc::new(Mutex::new(Random(seed)));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let allowed = match is_good.load(Ordering::Relaxed) {
                    true => u64::MAX,
                    false => random.lock().expect("a lock").below(longest),
                };
                let (resets, open) = (Arc::clone(&resets), Arc::clone(&open));
                open.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await
                        && pass(client, server, allowed).await
                    {
                        resets.fetch_add(1, Ordering::Relaxed);
                    }
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        cutter
    }

    pub fn resets(&self) -> usize {
        self.resets.load(Ordering::Relaxed)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends the resets for new connections.
    pub fn be_good(&self) {
        self.is_good.store(true, Ordering::Relaxed);
    }
}

/// Passes on `allowed` bytes, then resets both ends. Returns true if it reset them.
async fn pass(mut client: TcpStream, mut server: TcpStream, mut allowed: u64) -> bool {
    let (mut from_client, mut from_server) = ([0; 4096], [0; 4096]);
    loop {
        let (read, there) = tokio::select! {
            read = client.read(&mut from_client) => (read, true),
            read = server.read(&mut from_server) => (read, false),
        };
        let Ok(count) = read else { return false };
        if count == 0 {
            return false;
        }
        let passed = usize::try_from(allowed).unwrap_or(usize::MAX).min(count);
        let written = match there {
            true => server.write_all(&from_client[..passed]).await,
            false => client.write_all(&from_server[..passed]).await,
        };
        allowed -= passed as u64;
        if written.is_err() {
            return false;
        }
        if allowed == 0 {
            // With an SO_LINGER of 0, the close resets the connection instead of ending it normally.
            let _ = client.set_zero_linger();
            let _ = server.set_zero_linger();
            return true;
        }
    }
}

/// Pseudo-random numbers, the same for each seed (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound.max(1)
    }
}
