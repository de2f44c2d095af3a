//! Refuses addresses that no user may choose for a Machine, for example the API server. Without this policy, users
//! could reach such addresses through Writ, which connects from inside the cluster. This module does no I/O.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, without bits beyond its prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr(IpNet);

/// Error of a text that is no range of addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CidrError {
    /// The text is no address with an optional prefix length.
    #[error("{0:?} must be a range of addresses like 10.0.0.0/8 or fd00::/8, or one address")]
    Unparsable(String),
    /// The prefix is longer than the address.
    #[error("{text} must have a prefix of at most {maximum}")]
    PrefixTooLong {
        /// The given text.
        text: String,
        /// Maximum prefix length.
        maximum: u8,
    },
    /// The address has bits beyond its prefix.
    #[error("{text} has bits beyond its prefix; write {range} for the whole range, or {single} for the one address")]
    BitsBeyondPrefix {
        /// The given text.
        text: String,
        /// The range that contains the address.
        range: Cidr,
        /// The address alone.
        single: Cidr,
    },
    /// An IPv4 address is written as IPv6. The policy treats such addresses as IPv4.
    #[error("{0} must be written as the IPv4 range that it stands for")]
    Mapped(String),
}

/// Policy for the addresses that Writ connects to. Clones share the addresses of the API server.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allow: Vec<Cidr>,
    deny: Vec<Cidr>,
    /// Ranges that are refused like the built-in ranges. If `allow` lists all or a part of such a range, Writ permits
    /// the listed addresses.
    denied_unless_listed: Vec<Cidr>,
    /// Current addresses of the API server. Each address is refused like a range in `denied_unless_listed`.
    servers: Arc<RwLock<Vec<IpAddr>>>,
}

/// Reason why Writ does not connect to an address. The message names the flag that decides about the address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressRefusal {
    /// A range of --deny-cidr contains the address.
    #[error("{address} is in {range}, which `writ serve --deny-cidr` refuses (in the chart: serve.denyCidrs)")]
    Denied {
        /// The address.
        address: IpAddr,
        /// The range that contains the address.
        range: Cidr,
    },
    /// The address is in a built-in range, in a range of --refuse-cidr, or is an address of the API server. If
    /// --allow-cidr lists the address itself, all of these refusals are lifted.
    #[error(
        "{address} is {what}, which is refused by default; if a machine is there on purpose, start `writ serve` (or `writ machine`) \
         with --allow-cidr {} (in the chart: serve.allowCidrs), and with --allow-cidr for each other range that machines are \
         in, because then only these are connected to",
        Cidr::single(*.address)
    )]
    BuiltIn {
        /// The address.
        address: IpAddr,
        /// Kind of the address.
        what: &'static str,
    },
    /// --allow-cidr is set, and none of its ranges contains the address.
    #[error(
        "{address} is in none of the ranges that `writ serve --allow-cidr` names; if a machine is there, add --allow-cidr {} or \
         its range (in the chart: serve.allowCidrs)",
        Cidr::single(*.address)
    )]
    NotAllowed {
        /// The address.
        address: IpAddr,
    },
}

/// Used only in constants. A prefix that is too long is therefore a compile error.
const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Cidr {
    Cidr(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)))
}

const fn v6(first: u16, second: u16, last: u16, prefix: u8) -> Cidr {
    Cidr(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last), prefix)))
}

const METADATA: &str = "a cloud's metadata service";

/// Ranges that are refused by default. If an address is in several ranges, --allow-cidr must lift the refusal of
/// each range.
const BUILT_IN: [(Cidr, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "no address of a machine"),
    (v6(0, 0, 0, 128), "no address of a machine"),
    (v4(127, 0, 0, 0, 8), "this host itself (loopback)"),
    (v6(0, 0, 1, 128), "this host itself (loopback)"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v6(0xfe80, 0, 0, 10), "a link-local address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v6(0xff00, 0, 0, 8), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    // 169.254.169.254 is the metadata service of most clouds, and fd00:ec2::254 is the metadata service of AWS over
    // IPv6. The other three addresses serve the credentials of ECS and EKS.
    (v4(169, 254, 169, 254, 32), METADATA),
    (v4(169, 254, 170, 2, 32), METADATA),
    (v4(169, 254, 170, 23, 32), METADATA),
    (v6(0xfd00, 0xec2, 0x254, 128), METADATA),
    (v6(0xfd00, 0xec2, 0x23, 128), METADATA),
    // In this order: Alibaba Cloud, the platform of Azure, and the older service of Oracle.
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(192, 0, 0, 192, 32), METADATA),
];

impl AddressPolicy {
    /// Creates a policy. `allow` and `deny` are the ranges of the installation. `servers` are the addresses of the API
    /// server, which are refused like the built-in ranges.
    pub fn new(allow: Vec<Cidr>, deny: Vec<Cidr>, servers: Vec<IpAddr>) -> Self {
        let network = Self { allow, deny, ..Self::default() };
        network.servers_are(servers);
        network
    }

    /// Adds ranges that are refused like the built-in ranges.
    #[must_use]
    pub fn refusing(self, refused: Vec<Cidr>) -> Self {
        Self { denied_unless_listed: refused, ..self }
    }

    /// Replaces the addresses of the API server. An empty list means that the addresses are unknown now. The previous
    /// addresses then stay.
    pub fn servers_are(&self, servers: Vec<IpAddr>) {
        if !servers.is_empty() {
            *self.servers.write().unwrap_or_else(PoisonError::into_inner) =
                servers.into_iter().map(effective_address).collect();
        }
    }

    /// Checks an address.
    ///
    /// # Errors
    /// The reason of the refusal. Its message names the flag that decides about the address.
    pub fn check(&self, shown: IpAddr) -> Result<(), AddressRefusal> {
        let address = effective_address(shown);
        if let Some(range) = self.deny.iter().find(|range| range.contains(address) || range.contains(shown)) {
            return Err(AddressRefusal::Denied { address, range: *range });
        }
        let refused =
            self.denied_unless_listed.iter().map(|range| (*range, "in a range that `writ serve --refuse-cidr` names"));
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let servers = servers.into_iter().map(|server| (Cidr::single(server), "the Kubernetes API server"));
        for (range, what) in BUILT_IN.into_iter().chain(servers).chain(refused) {
            // Only an allowed range within the refused range lifts the refusal. For example, 10.0.0.0/8 does not allow
            // an API server at 10.96.0.1.
            let is_lifted = |allowed: &Cidr| allowed.is_subset_of(&range) && allowed.contains(address);
            if range.contains(address) && !self.allow.iter().any(is_lifted) {
                return Err(AddressRefusal::BuiltIn { address, what });
            }
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|range| range.contains(address)) {
            return Err(AddressRefusal::NotAllowed { address });
        }
        Ok(())
    }
}

/// Returns the IPv4 address inside an IPv6 address, because packets reach the IPv4 address. Covers mapped and
/// compatible addresses (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056). Returns every other address unchanged.
pub(super) fn effective_address(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let bits = v6.to_bits();
    let v4_in = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits((bits & u128::from(u32::MAX)) as u32));
    match bits >> 32 {
        0xffff | 0x0064_ff9b_0000_0000_0000_0000 => v4_in(bits),
        // `::` and `::1` contain no IPv4 address.
        0 if bits > 1 => v4_in(bits),
        _ if bits >> 112 == 0x2002 => v4_in(bits >> 80),
        _ => address,
    }
}

impl Cidr {
    pub(super) fn single(address: IpAddr) -> Self {
        Self(IpNet::from(address))
    }

    /// Returns true if the range contains this address. A range contains only addresses of its own IP version.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    fn is_subset_of(&self, outer: &Self) -> bool {
        outer.0.contains(&self.0)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads an address, or an address and a prefix length. Stricter than `IpNet`: refuses bits beyond the prefix, and
    /// IPv4 written as IPv6.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let unparsable = || CidrError::Unparsable(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| unparsable())?;
        let single = Self::single(address);
        let maximum = single.0.max_prefix_len();
        let prefix = match prefix {
            None => maximum,
            // Refuses "+8", which parses as a number.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| unparsable())?
            }
            Some(_) => return Err(unparsable()),
        };
        let written =
            IpNet::new(address, prefix).map_err(|_| CidrError::PrefixTooLong { text: text.to_owned(), maximum })?;
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(CidrError::Mapped(text.to_owned()));
        }
        let range = Self(written.trunc());
        if range.0 == written {
            Ok(range)
        } else {
            Err(CidrError::BitsBeyondPrefix { text: text.to_owned(), range, single })
        }
    }
}
