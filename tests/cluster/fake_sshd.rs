//! A fake SSH server: russh on a free port, with a handler of the test for each connection.

use std::sync::Arc;

use russh::keys::{PrivateKey, decode_secret_key};
use russh::server::{Config, Handler, run_stream};
use tokio::net::TcpListener;

use crate::case::Case;

/// Returns the login key of the case's sshd for use as a host key, and its public half. Any key of a suitable type
/// would do.
pub fn host_key(case: &Case) -> (PrivateKey, String) {
    let key = decode_secret_key(&case.sshd.private_key().expect("a key"), None).expect("a key");
    let public = key.public_key().to_openssh().expect("a public key");
    (key, public)
}

/// Starts a server that ends with the test, and returns its port. Calls `handler` once for each connection.
pub async fn start<H>(config: Config, mut handler: impl FnMut() -> H + Send + 'static) -> u16
where
    H: Handler + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let config = Arc::new(config);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, handler) = (Arc::clone(&config), handler());
            tokio::spawn(async move {
                if let Ok(session) = run_stream(config, stream, handler).await {
                    let _ = session.await;
                }
            });
        }
    });
    port
}
