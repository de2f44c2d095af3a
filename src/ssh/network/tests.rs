use proptest::prelude::*;

use super::*;

/// Returns the first bits of an address, up to the prefix length.
fn leading_bits(address: IpAddr, prefix: u8) -> String {
    let bits = match address {
        IpAddr::V4(v4) => format!("4 {:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("6 {:0128b}", v6.to_bits()),
    };
    bits.chars().take(2 + usize::from(prefix)).collect()
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    prop_oneof![v4, v6]
}

/// Returns `address` with changed bits. `bits` selects the bits to change. The first `same` bits stay.
fn neighbour(address: IpAddr, bits: u128, same: u32) -> IpAddr {
    let changes = bits & u128::MAX.checked_shr(same).unwrap_or(0);
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ (changes >> 96) as u32)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ changes)),
    }
}

fn range(address: IpAddr, prefix: u8) -> Cidr {
    Cidr(IpNet::new(address, prefix.min(Cidr::single(address).0.max_prefix_len())).unwrap().trunc())
}

proptest! {
    #[test]
    fn a_range_contains_the_addresses_that_agree_in_its_bits(
        (one, unrelated) in (any_address(), any_address()),
        (bits, same) in (any::<u128>(), 0u32..=128),
        (prefix, longer) in (0u8..=128, 0u8..=128),
    ) {
        let outer = range(one, prefix);
        let prefix = outer.0.prefix_len();
        prop_assert_eq!(outer.to_string().parse::<Cidr>(), Ok(outer));
        for address in [one, neighbour(one, bits, same), unrelated] {
            prop_assert_eq!(outer.contains(address), leading_bits(one, prefix) == leading_bits(address, prefix));
            let inner = range(address, longer);
            let is_within = outer.contains(inner.0.addr()) && inner.0.prefix_len() >= prefix;
            prop_assert_eq!(inner.is_subset_of(&outer), is_within);
        }
    }
}

fn ranges(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Checks an address against ranges. The API server has the addresses 10.96.0.1 and 127.0.0.9.
fn verdict(allow: &[&str], deny: &[&str], address: &str) -> Result<(), String> {
    let servers = ["10.96.0.1", "127.0.0.9"].map(|server| server.parse().unwrap()).to_vec();
    let network = AddressPolicy::new(ranges(allow), ranges(deny), servers);
    network.check(address.parse().unwrap()).map_err(|refusal| refusal.to_string())
}

#[track_caller]
fn permits(allow: &[&str], deny: &[&str], address: &str) {
    assert_eq!(verdict(allow, deny, address), Ok(()), "{allow:?} {deny:?} {address}");
}

#[track_caller]
fn refuses(allow: &[&str], deny: &[&str], address: &str, why: &str) {
    let refusal = verdict(allow, deny, address).expect_err(address);
    assert!(refusal.contains(why), "{refusal}");
}

#[test]
fn without_a_word_machines_are_everywhere_but_where_none_is() {
    for address in ["10.0.0.5", "192.0.2.7", "100.64.0.1", "2001:db8::1", "fd00::1", "172.16.0.1"] {
        permits(&[], &[], address);
    }
    for (address, why) in [
        ("0.0.0.0", "no address of a machine"),
        ("0.1.2.3", "no address of a machine"),
        ("::", "no address of a machine"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.1", "loopback"),
        ("::1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("10.96.0.1", "the Kubernetes API server"),
    ] {
        match address {
            // This address is in two refused ranges. The test allows the wider range, so that the message names the
            // narrower range.
            "169.254.169.254" => refuses(&["169.254.0.0/16"], &[], address, why),
            _ => refuses(&[], &[], address, why),
        }
    }
}

#[test]
fn a_refusal_is_lifted_only_by_a_range_within_it() {
    for allow in ["0.0.0.0/0", "127.0.0.0/7", "10.0.0.0/8", "127.0.0.2/32"] {
        assert!(allow == "127.0.0.0/7" || verdict(&[allow], &[], "127.0.0.1").is_err(), "{allow}");
    }
    refuses(&["126.0.0.0/7"], &[], "127.0.0.1", "loopback");
    permits(&["127.0.0.0/8"], &[], "127.0.0.1");
    permits(&["127.0.0.1"], &[], "127.0.0.1");
    refuses(&["127.0.0.0/8"], &[], "127.0.0.9", "API server");
    permits(&["127.0.0.9/32"], &[], "127.0.0.9");
    refuses(&["10.96.0.0/16"], &[], "10.96.0.1", "API server");
    permits(&["10.96.0.1/32"], &[], "10.96.0.1");
    refuses(&["::/0"], &[], "::1", "loopback");
    permits(&["::1/128"], &[], "::1");
    // The metadata service is in two refused ranges. An allowed link-local range lifts only one refusal.
    permits(&["169.254.0.0/16"], &[], "169.254.1.1");
    refuses(&["169.254.0.0/16"], &[], "169.254.169.254", "metadata");
    permits(&["169.254.169.254"], &[], "169.254.169.254");
}

#[test]
fn where_ranges_are_allowed_nothing_else_is() {
    permits(&["10.0.0.0/8", "192.0.2.0/24"], &[], "192.0.2.9");
    refuses(&["10.0.0.0/8", "192.0.2.0/24"], &[], "192.0.3.9", "192.0.3.9 is in none of the ranges");
    refuses(&["10.0.0.0/8"], &[], "2001:db8::1", "none of the ranges");
    permits(&["2001:db8::/32"], &[], "2001:db8:1::1");
    refuses(&["127.0.0.1"], &[], "10.0.0.1", "none of the ranges");
}

#[test]
fn deny_wins_over_everything() {
    refuses(
        &["10.0.0.0/8"],
        &["10.1.0.0/16"],
        "10.1.2.3",
        "10.1.2.3 is in 10.1.0.0/16, which `writ serve --deny-cidr`",
    );
    permits(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3");
    refuses(&["127.0.0.1"], &["127.0.0.0/8"], "127.0.0.1", "--deny-cidr");
    refuses(&[], &["0.0.0.0/0"], "192.0.2.1", "--deny-cidr");
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_judged_as_what_it_is() {
    for address in ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:7f00:1:5::9"] {
        refuses(&[], &[], address, "127.0.0.1 is this host itself");
        refuses(&["::/0"], &[], address, "loopback");
        permits(&["127.0.0.1/32"], &[], address);
    }
    refuses(&[], &[], "::ffff:169.254.169.254", "169.254");
    refuses(&[], &[], "::ffff:10.96.0.1", "API server");
    refuses(&[], &["10.0.0.0/8"], "::ffff:10.0.0.1", "--deny-cidr");
    // A range that allows all of IPv6 does not allow the IPv4 addresses inside IPv6 addresses.
    refuses(&["192.0.2.0/24", "::/0"], &[], "::ffff:10.0.0.1", "none of the ranges");
    // A denied IPv6 range also applies to an IPv6 address that contains an IPv4 address.
    refuses(&[], &["64:ff9b::/96"], "64:ff9b::10.0.0.1", "--deny-cidr");
}

#[test]
fn ranges_say_how_they_should_have_been_written() {
    let problem = |text: &str| text.parse::<Cidr>().expect_err(text).to_string();
    assert_eq!(
        problem("10.1.2.3/8"),
        "10.1.2.3/8 has bits beyond its prefix; write 10.0.0.0/8 for the whole range, or 10.1.2.3/32 for the one address"
    );
    assert!(problem("fd00::1/8").contains("write fd00::/8 for"));
    assert!(problem("10.0.0.0/33").contains("at most 32"));
    assert!(problem("::/129").contains("at most 128"));
    assert!(problem("::ffff:10.0.0.0/104").contains("IPv4"));
    for text in ["", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "web-1", "10.0.0.0/-1", "010.0.0.0/8"] {
        assert!(problem(text).contains("must be a range"), "{text}");
    }
    assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().to_string(), "0.0.0.0/0");
    assert_eq!("::/0".parse::<Cidr>().unwrap().to_string(), "::/0");
    assert_eq!("192.0.2.1".parse::<Cidr>().unwrap().to_string(), "192.0.2.1/32");
}

#[test]
fn a_range_of_the_cluster_is_refused_unless_it_is_named() {
    let network = |allow: &[&str]| {
        AddressPolicy::new(ranges(allow), Vec::new(), Vec::new()).refusing(ranges(&["10.96.0.0/12", "10.244.0.0/16"]))
    };
    let check = |allow: &[&str], address: &str| network(allow).check(address.parse().unwrap());
    for address in ["10.96.0.10", "10.111.255.1", "10.244.3.4", "::ffff:10.244.3.4"] {
        for allow in [&[][..], &["10.0.0.0/8"], &["0.0.0.0/0"]] {
            let refusal = check(allow, address).unwrap_err().to_string();
            assert!(refusal.contains("--refuse-cidr") && refusal.contains("--allow-cidr"), "{refusal}");
        }
    }
    assert_eq!(check(&["10.0.0.0/8"], "10.1.0.1"), Ok(()));
    assert_eq!(check(&["10.244.3.0/24"], "10.244.3.4"), Ok(()));
    assert!(check(&["10.244.3.0/24"], "10.244.4.4").is_err());
}

#[test]
fn an_api_server_that_moves_is_refused_where_it_is() {
    let network = AddressPolicy::new(Vec::new(), Vec::new(), vec!["192.0.2.1".parse().unwrap()]);
    let elsewhere = network.clone();
    let check = |address: &str| network.check(address.parse().unwrap()).is_ok();
    elsewhere.servers_are(vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()]);
    assert_eq!([check("192.0.2.1"), check("192.0.2.2"), check("192.0.2.3")], [true, false, false]);
    // The name of the API server temporarily does not resolve. The previous addresses stay refused.
    elsewhere.servers_are(Vec::new());
    assert!(!check("192.0.2.3"));
}
