//! From an address as a Machine has it to a TCP connection: resolve once, hold each address against what may be connected to,
//! and connect to the very addresses that were judged.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::resolve::addresses;
use super::{ConnectError, Network};

/// The most that one of several addresses may take: one that swallows packets must not use up the time of the others.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(4);

/// An address and a port as people write them.
pub(super) fn place(address: &str, port: u16) -> String {
    match address.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{address}:{port}"),
    }
}

/// The addresses of a name that may be connected to, in the order in which they are to be tried; at least one.
pub(super) async fn resolve(name: &str, port: u16, network: &Network) -> Result<Vec<IpAddr>, ConnectError> {
    let at = place(name, port);
    let found = addresses(name).await.map_err(|error| ConnectError::Unreachable(format!("{at}: {error}")))?;
    permitted(&at, found, network)
}

fn permitted(at: &str, found: Vec<IpAddr>, network: &Network) -> Result<Vec<IpAddr>, ConnectError> {
    let mut refused = None;
    let mut addresses = found;
    addresses.retain(|address| match network.check(*address) {
        Ok(()) => true,
        Err(refusal) => {
            refused.get_or_insert(refusal);
            false
        }
    });
    match refused {
        Some(refusal) if addresses.is_empty() => Err(ConnectError::AddressRefused { at: at.to_owned(), refusal }),
        _ => Ok(addresses),
    }
}

/// Tries addresses one after another; the error is that of the last.
pub(super) async fn connect_to_any(addresses: &[SocketAddr], until: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let patience = share(until.saturating_duration_since(Instant::now()), addresses.len() - index);
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small messages go back and forth; waiting to fill a packet only delays them. Failing to say so changes
                // nothing.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{} did not answer", address.ip())),
        }
    }
    Err(last)
}

/// How long the first of so many addresses may take: its part of the time that is left. The last one has all of it.
fn share(left: Duration, addresses: usize) -> Duration {
    match u32::try_from(addresses) {
        Ok(0 | 1) => left,
        Ok(addresses) => (left / addresses).min(ADDRESS_DEADLINE),
        Err(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_ipv6_address_has_brackets() {
        assert_eq!(place("web-1", 22), "web-1:22");
        assert_eq!(place("10.0.0.1", 22), "10.0.0.1:22");
        assert_eq!(place("::1", 2222), "[::1]:2222");
    }

    #[test]
    fn of_a_names_addresses_only_those_that_are_permitted_are_tried() {
        let network = Network::default();
        let kept = permitted("a:22", ips(&["127.0.0.1", "10.0.0.2", "::1", "10.0.0.1"]), &network);
        assert_eq!(kept, Ok(ips(&["10.0.0.2", "10.0.0.1"])));
        let refused = permitted("a:22", ips(&["169.254.169.254", "::1"]), &network).unwrap_err();
        assert_eq!(refused.category(), "address_refused");
        let text = refused.to_string();
        assert!(text.contains("a:22 is not connected to: 169.254.169.254 is"), "{text}");
        assert!(text.contains("--allow-cidr"), "{text}");
    }

    #[test]
    fn one_of_several_addresses_cannot_use_up_the_time_of_the_others() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(10), 1), seconds(10));
        assert_eq!(share(seconds(10), 5), seconds(2));
        assert_eq!(share(seconds(60), 2), ADDRESS_DEADLINE);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        // The same port, where nobody listens.
        let nobody = SocketAddr::new("127.0.0.77".parse().unwrap(), there.port());
        let until = Instant::now() + Duration::from_secs(30);
        let (_, reached) = connect_to_any(&[nobody, there], until).await.unwrap();
        assert_eq!(reached, there);
        assert_eq!(connect_to_any(&[nobody], until).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
