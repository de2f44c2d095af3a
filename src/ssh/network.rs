//! Which addresses are connected to at all. Whoever may write a Machine chooses an address for `writ` to connect to from
//! inside the cluster: this says what may never be chosen. Pure: addresses in, a verdict out.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// A range of addresses, without bits beyond its prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CidrError {
    /// Not an address and a length.
    #[error("{0:?} must be a range of addresses like 10.0.0.0/8 or fd00::/8, or one address")]
    Unparsable(String),
    /// A longer prefix than the address has bits.
    #[error("{text} must have a prefix of at most {most}")]
    PrefixTooLong {
        /// What was written.
        text: String,
        /// The most it can be.
        most: u8,
    },
    /// Bits that the range does not look at.
    #[error("{text} has bits beyond its prefix; write {range} for the whole range, or {single} for the one address")]
    BitsBeyondPrefix {
        /// What was written.
        text: String,
        /// The range that it lies in.
        range: Cidr,
        /// The address alone.
        single: Cidr,
    },
    /// IPv4 written as IPv6: such addresses are judged as what they are.
    #[error("{0} must be written as the IPv4 range that it stands for")]
    Mapped(String),
}

/// Which addresses are connected to. A clone learns of the same changes.
#[derive(Clone, Debug, Default)]
pub struct Network {
    allow: Vec<Cidr>,
    deny: Vec<Cidr>,
    /// Ranges that are refused unless they, or ranges within them, are allowed.
    refused: Vec<Cidr>,
    /// The same of single addresses: the API server's, as they are now.
    servers: Arc<RwLock<Vec<IpAddr>>>,
}

/// Why an address is not connected to. Says with which flag that can be changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The installation denies it.
    #[error("{address} is in {range}, which `writ serve --deny-cidr` refuses (in the chart: serve.denyCidrs)")]
    Denied {
        /// The address.
        address: IpAddr,
        /// What it is in.
        range: Cidr,
    },
    /// Nobody has a machine there on purpose. An address may be in several such ranges: the address itself lifts all.
    #[error(
        "{address} is {what}, which is refused by default; if a machine is there on purpose, start `writ serve` (or `writ machine`) \
         with --allow-cidr {} (in the chart: serve.allowCidrs), and with --allow-cidr for each other range that machines are \
         in, because then only these are connected to",
        Cidr::single(*.address)
    )]
    BuiltIn {
        /// The address.
        address: IpAddr,
        /// What such addresses are.
        what: &'static str,
    },
    /// The installation says where machines are, and this is elsewhere.
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

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Cidr {
    Cidr { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn v6(first: u16, second: u16, last: u16, prefix: u8) -> Cidr {
    Cidr { address: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last)), prefix }
}

const METADATA: &str = "a cloud's metadata service";

/// What is refused from the start. An address may be in several: each has to be lifted.
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
    // AWS, Google Cloud, Azure, Oracle and most others; then the credentials of ECS and EKS.
    (v4(169, 254, 169, 254, 32), METADATA),
    (v4(169, 254, 170, 2, 32), METADATA),
    (v4(169, 254, 170, 23, 32), METADATA),
    (v6(0xfd00, 0xec2, 0x254, 128), METADATA),
    (v6(0xfd00, 0xec2, 0x23, 128), METADATA),
    // Alibaba Cloud, Azure's platform, Oracle's older one.
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(192, 0, 0, 192, 32), METADATA),
];

impl Network {
    /// `allow` and `deny` are what the installation says; `servers` are the addresses of the API server, which are refused like
    /// the built-in ones.
    pub fn new(allow: Vec<Cidr>, deny: Vec<Cidr>, servers: Vec<IpAddr>) -> Self {
        let network = Self { allow, deny, ..Self::default() };
        network.servers_are(servers);
        network
    }

    /// The same with further ranges that are refused like the built-in ones.
    #[must_use]
    pub fn refusing(self, refused: Vec<Cidr>) -> Self {
        Self { refused, ..self }
    }

    /// The API server has these addresses now. None says that they are not known, so those from before are kept.
    pub fn servers_are(&self, servers: Vec<IpAddr>) {
        if !servers.is_empty() {
            *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers.into_iter().map(meant).collect();
        }
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// Why not, and by which flag.
    pub fn check(&self, shown: IpAddr) -> Result<(), Refusal> {
        let address = meant(shown);
        if let Some(range) = self.deny.iter().find(|range| range.contains(address) || range.contains(shown)) {
            return Err(Refusal::Denied { address, range: *range });
        }
        let refused = self.refused.iter().map(|range| (*range, "in a range that `writ serve --refuse-cidr` names"));
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let servers = servers.into_iter().map(|server| (Cidr::single(server), "the Kubernetes API server"));
        for (range, what) in BUILT_IN.into_iter().chain(servers).chain(refused) {
            // Only what lies within lifts it: who allows 0.0.0.0/0 or 10.0.0.0/8 does not think of these.
            let is_lifted = |allowed: &Cidr| allowed.lies_within(&range) && allowed.contains(address);
            if range.contains(address) && !self.allow.iter().any(is_lifted) {
                return Err(Refusal::BuiltIn { address, what });
            }
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|range| range.contains(address)) {
            return Err(Refusal::NotAllowed { address });
        }
        Ok(())
    }
}

/// The address that is reached by way of another one: IPv4 in IPv6 (mapped and compatible, RFC 4291; NAT64, RFC 6052; 6to4,
/// RFC 3056).
pub(super) fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let bits = v6.to_bits();
    let v4_in = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits((bits & u128::from(u32::MAX)) as u32));
    match bits >> 32 {
        0xffff | 0x0064_ff9b_0000_0000_0000_0000 => v4_in(bits),
        // `::` and `::1` are addresses of their own.
        0 if bits > 1 => v4_in(bits),
        _ if bits >> 112 == 0x2002 => v4_in(bits >> 80),
        _ => address,
    }
}

impl Cidr {
    pub(super) fn single(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The address with what is beyond the prefix cut off, as 128 bits with the address at their high end.
    fn masked(address: IpAddr, prefix: u8) -> u128 {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
    }

    /// Whether an address is in it. IPv4 and IPv6 have nothing in common.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::masked(address, self.prefix) == Self::masked(self.address, self.prefix)
    }

    fn lies_within(&self, outer: &Self) -> bool {
        self.prefix >= outer.prefix && outer.contains(self.address)
    }

    /// The range of this length that an address lies in.
    fn around(address: IpAddr, prefix: u8) -> Self {
        let bits = Self::masked(address, prefix);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Self { address, prefix }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let unparsable = || CidrError::Unparsable(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| unparsable())?;
        let most = Self::single(address).prefix;
        let prefix = match prefix {
            None => most,
            // Not "+8", which would parse as a number.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| unparsable())?
            }
            Some(_) => return Err(unparsable()),
        };
        if prefix > most {
            return Err(CidrError::PrefixTooLong { text: text.to_owned(), most });
        }
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(CidrError::Mapped(text.to_owned()));
        }
        let range = Self::around(address, prefix);
        if range.address == address {
            Ok(range)
        } else {
            Err(CidrError::BitsBeyondPrefix { text: text.to_owned(), range, single: Self::single(address) })
        }
    }
}
