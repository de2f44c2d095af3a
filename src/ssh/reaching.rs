//! From an address as a Machine has it to a TCP connection: resolve once, hold each address against what may be connected to,
//! and connect to the very addresses that were judged.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::resolve::{addresses, zone_of};
use super::{Admission, ConnectError, CredentialsError, Network};

/// The most that one of several addresses may take: one that swallows packets must not use up the time of the others.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(4);

/// An address and a port as people write them.
pub(super) fn place(address: &str, port: u16) -> String {
    if zone_of(address).is_some() {
        return format!("[{address}]:{port}");
    }
    match address.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{address}:{port}"),
    }
}

/// Whom a connection is for, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub address: &'a str,
    pub port: u16,
    /// Whose share of the lookups it takes.
    pub namespace: &'a str,
    /// At which addresses the key may be used; None: at all.
    pub admission: Option<&'a Admission>,
}

/// The addresses of a name that may be connected to, in the order in which they are to be tried; at least one.
pub(super) async fn resolve(wanted: Wanted<'_>, network: &Network) -> Result<Vec<SocketAddr>, ConnectError> {
    let at = place(wanted.address, wanted.port);
    let found = addresses(wanted.address, wanted.namespace).await;
    let found = found.map_err(|error| {
        let advice = "check spec.address, and the DNS of the host that writ runs on";
        ConnectError::Unreachable(format!("{at}: the name does not resolve: {error}; {advice}"))
    })?;
    let permitted = admitted(wanted, permitted(&at, found, network)?)?;
    let is_without_zone =
        |address: &SocketAddr| matches!(address, SocketAddr::V6(v6) if is_link_local(*v6.ip()) && v6.scope_id() == 0);
    if permitted.iter().all(is_without_zone) {
        let why = "a link-local address is reached in a zone only: write it as fe80::1%INTERFACE, with a network interface of the host that writ runs on";
        return Err(ConnectError::Unreachable(format!("{at}: {why}")));
    }
    let with_port = |mut address: SocketAddr| {
        address.set_port(wanted.port);
        address
    };
    Ok(permitted.into_iter().map(with_port).collect())
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80)
}

fn permitted(at: &str, found: Vec<SocketAddr>, network: &Network) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut refused = None;
    let mut addresses = found;
    addresses.retain(|address| match network.check(address.ip()) {
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

/// Of these addresses those at which the key may be used.
fn admitted(wanted: Wanted<'_>, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
    let Some(admission) = wanted.admission else { return Ok(found) };
    let zone = zone_of(wanted.address);
    let (admitted, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| admission.admits(address.ip(), zone));
    if admitted.is_empty() {
        let others: Vec<String> = others.iter().map(|address| address.ip().to_string()).collect();
        let (address, others) = (wanted.address.to_owned(), others.join(", "));
        return Err(ConnectError::CredentialsUnusable(CredentialsError::AddressNotListed {
            address,
            resolved: others,
        }));
    }
    Ok(admitted)
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

/// Why there is no TCP connection, and what to check.
pub(super) fn not_connected(at: &str, error: &io::Error) -> ConnectError {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => "; nothing listens there: check spec.port, and that sshd runs",
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "; check spec.address, and the network and firewalls on the way"
        }
        _ => "",
    };
    ConnectError::Unreachable(format!("{at}: {error}{advice}"))
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

    fn ips(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    fn wanted<'a>(address: &'a str, admission: Option<&'a Admission>) -> Wanted<'a> {
        Wanted { address, port: 22, namespace: "team", admission }
    }

    #[test]
    fn of_a_names_addresses_only_those_are_tried_at_which_the_key_may_be_used() {
        let all = || ips(&["10.0.0.1", "192.0.2.1", "::ffff:10.0.0.2"]);
        let kept = |patterns: &str| {
            let admission = Admission::parse(patterns).unwrap();
            admitted(wanted("web-1", Some(&admission)), all())
        };
        assert_eq!(admitted(wanted("web-1", None), all()), Ok(all()));
        assert_eq!(kept("10.0.*"), Ok(ips(&["10.0.0.1", "::ffff:10.0.0.2"])));
        assert_eq!(kept("192.0.2.0/24"), Ok(ips(&["192.0.2.1"])));
        let refused = kept("10.1.*").unwrap_err().to_string();
        assert!(refused.contains("web-1") && refused.contains("192.0.2.1"), "{refused}");
    }

    #[tokio::test]
    async fn a_link_local_address_needs_a_zone() {
        let network = Network::new(vec!["fe80::/10".parse().unwrap()], Vec::new(), Vec::new());
        let refused = resolve(wanted("fe80::1", None), &network).await.unwrap_err().to_string();
        assert!(refused.contains("fe80::1%INTERFACE"), "{refused}");
        let there = resolve(wanted("fe80::1%lo", None), &network).await.unwrap();
        assert_eq!(there.first().map(ToString::to_string), Some("[fe80::1%1]:22".to_owned()));
        assert!(resolve(wanted("fe80::1%lo", None), &Network::default()).await.is_err());
    }

    #[test]
    fn an_ipv6_address_has_brackets() {
        assert_eq!(place("web-1", 22), "web-1:22");
        assert_eq!(place("10.0.0.1", 22), "10.0.0.1:22");
        assert_eq!(place("::1", 2222), "[::1]:2222");
        assert_eq!(place("fe80::1%veth0", 22), "[fe80::1%veth0]:22");
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
        let refused = connect_to_any(&[nobody], until).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let said = not_connected("web-1:22", &refused).to_string();
        assert!(said.starts_with("web-1:22: Connection refused") && said.contains("spec.port"), "{said}");
    }
}
