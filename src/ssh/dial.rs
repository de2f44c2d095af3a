//! Opens a TCP connection to the address of a Machine. Resolves the name once, checks each address against the policy,
//! and connects to the checked addresses only.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::resolve::{addresses, zone_of};
use super::{AddressPolicy, Admission, ConnectError, CredentialsError};

/// Maximum time for one address of a name with several addresses. An address that silently drops packets must not use
/// up the time of the other addresses.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(4);

/// Formats an address and a port, with brackets for IPv6.
pub(super) fn host_port(address: &str, port: u16) -> String {
    if zone_of(address).is_some() {
        return format!("[{address}]:{port}");
    }
    match address.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{address}:{port}"),
    }
}

/// Destination of a connection, and its limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub address: &'a str,
    pub port: u16,
    /// Namespace whose limit of concurrent lookups applies to the name.
    pub namespace: &'a str,
    /// Addresses at which the Secret permits the use of the key. `None` permits all addresses.
    pub admission: Option<&'a Admission>,
}

/// Returns the permitted addresses of a name, in the order in which they are tried. The list is never empty.
pub(super) async fn resolve(wanted: Wanted<'_>, network: &AddressPolicy) -> Result<Vec<SocketAddr>, ConnectError> {
    let at = host_port(wanted.address, wanted.port);
    let found = addresses(wanted.address, wanted.namespace).await;
    let found = found.map_err(|error| {
        let remedy = "check spec.address, and DNS on the host of writ";
        ConnectError::Unreachable(format!("{at}: the name does not resolve: {error}; {remedy}"))
    })?;
    let permitted = filter_admitted(wanted, filter_permitted(&at, found, network)?)?;
    let is_without_zone =
        |address: &SocketAddr| matches!(address, SocketAddr::V6(v6) if is_link_local(*v6.ip()) && v6.scope_id() == 0);
    if permitted.iter().all(is_without_zone) {
        let why =
            "a link-local address needs a zone: write fe80::1%INTERFACE, with a network interface of the host of writ";
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

fn filter_permitted(
    at: &str,
    found: Vec<SocketAddr>,
    network: &AddressPolicy,
) -> Result<Vec<SocketAddr>, ConnectError> {
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

/// Returns the addresses at which the Secret permits the use of the key.
fn filter_admitted(wanted: Wanted<'_>, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
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

/// Tries the addresses one after another until a connection is open. Returns the error of the last address if all
/// attempts fail.
pub(super) async fn dial_any(addresses: &[SocketAddr], until: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let limit = per_address_timeout(until.saturating_duration_since(Instant::now()), addresses.len() - index);
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Disables Nagle's algorithm, which delays small messages. An error is ignored, because the connection
                // also works with this delay.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{} did not answer", address.ip())),
        }
    }
    Err(last)
}

/// Returns the error for a failed TCP connection, with the remedy.
pub(super) fn not_connected(at: &str, error: &io::Error) -> ConnectError {
    let remedy = match error.kind() {
        io::ErrorKind::ConnectionRefused => "; no program listens there: check spec.port, and that sshd runs",
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "; check spec.address, and the network and firewalls on the way"
        }
        _ => "",
    };
    ConnectError::Unreachable(format!("{at}: {error}{remedy}"))
}

/// Returns the timeout for the next address. `left` is the remaining time, and `addresses` is the number of untried
/// addresses. Each address gets an equal share of `left`, at most `ADDRESS_DEADLINE`. The last address gets all of
/// `left`.
fn per_address_timeout(left: Duration, addresses: usize) -> Duration {
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
            filter_admitted(wanted("web-1", Some(&admission)), all())
        };
        assert_eq!(filter_admitted(wanted("web-1", None), all()), Ok(all()));
        assert_eq!(kept("10.0.*"), Ok(ips(&["10.0.0.1", "::ffff:10.0.0.2"])));
        assert_eq!(kept("192.0.2.0/24"), Ok(ips(&["192.0.2.1"])));
        let refused = kept("10.1.*").unwrap_err().to_string();
        assert!(refused.contains("web-1") && refused.contains("192.0.2.1"), "{refused}");
    }

    #[tokio::test]
    async fn a_link_local_address_needs_a_zone() {
        let network = AddressPolicy::new(vec!["fe80::/10".parse().unwrap()], Vec::new(), Vec::new());
        let refused = resolve(wanted("fe80::1", None), &network).await.unwrap_err().to_string();
        assert!(refused.contains("fe80::1%INTERFACE"), "{refused}");
        let there = resolve(wanted("fe80::1%lo", None), &network).await.unwrap();
        assert_eq!(there.first().map(ToString::to_string), Some("[fe80::1%1]:22".to_owned()));
        assert!(resolve(wanted("fe80::1%lo", None), &AddressPolicy::default()).await.is_err());
    }

    #[test]
    fn an_ipv6_address_has_brackets() {
        assert_eq!(host_port("web-1", 22), "web-1:22");
        assert_eq!(host_port("10.0.0.1", 22), "10.0.0.1:22");
        assert_eq!(host_port("::1", 2222), "[::1]:2222");
        assert_eq!(host_port("fe80::1%veth0", 22), "[fe80::1%veth0]:22");
    }

    #[test]
    fn of_a_names_addresses_only_those_that_are_permitted_are_tried() {
        let network = AddressPolicy::default();
        let kept = filter_permitted("a:22", ips(&["127.0.0.1", "10.0.0.2", "::1", "10.0.0.1"]), &network);
        assert_eq!(kept, Ok(ips(&["10.0.0.2", "10.0.0.1"])));
        let refused = filter_permitted("a:22", ips(&["169.254.169.254", "::1"]), &network).unwrap_err();
        assert_eq!(refused.category(), "address_refused");
        let text = refused.to_string();
        assert!(text.contains("a:22: address refused: 169.254.169.254 is"), "{text}");
        assert!(text.contains("--allow-cidr"), "{text}");
    }

    #[test]
    fn one_of_several_addresses_cannot_use_up_the_time_of_the_others() {
        let seconds = Duration::from_secs;
        assert_eq!(per_address_timeout(seconds(10), 1), seconds(10));
        assert_eq!(per_address_timeout(seconds(10), 5), seconds(2));
        assert_eq!(per_address_timeout(seconds(60), 2), ADDRESS_DEADLINE);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        // An address without a listener, with the port of the listener `there`.
        let nobody = SocketAddr::new("127.0.0.77".parse().unwrap(), there.port());
        let until = Instant::now() + Duration::from_secs(30);
        let (_, reached) = dial_any(&[nobody, there], until).await.unwrap();
        assert_eq!(reached, there);
        let refused = dial_any(&[nobody], until).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let said = not_connected("web-1:22", &refused).to_string();
        assert!(said.starts_with("web-1:22: Connection refused") && said.contains("spec.port"), "{said}");
    }
}
