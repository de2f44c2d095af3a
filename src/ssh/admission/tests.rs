use super::*;

fn admission(patterns: &str) -> Admission {
    Admission::parse(patterns).unwrap_or_else(|error| panic!("{patterns}: {error}"))
}

#[test]
fn names_are_held_against_name_patterns_label_by_label() {
    use Verdict::{Admitted, ByAddress, Refused};
    for (patterns, text, expected) in [
        ("web-1", "web-1", Admitted),
        ("web-1", "web-10", Refused),
        ("WEB-1.Example", "web-1.eXample.", Admitted),
        ("web-1.example.", "web-1.example", Admitted),
        ("web-?", "web-1", Admitted),
        ("web-?", "web-12", Refused),
        ("*.web.example", "a.web.example", Admitted),
        ("*.web.example", "web.example", Refused),
        ("*.web.example", ".web.example", Refused),
        ("*.web.example", "a.b.web.example", Refused),
        ("*.web.example", "a.web.example.evil.example", Refused),
        ("*.web.example", "awebxexample", Refused),
        ("a*.web.example", "a.evil.web.example", Refused),
        ("web-*", "web-1.evil.example", Refused),
        ("**.example", "a.example", Admitted),
        ("**.example", "c.b.a.example", Admitted),
        ("**.example", "example", Refused),
        ("**.example", "a.example.evil", Refused),
        ("*", "anything.example", Admitted),
        ("", "web-1", Refused),
        (" , ", "web-1", Refused),
        // Address patterns do not apply to names.
        ("10.0.*", "10.0.evil.example", ByAddress),
        ("10.0.*", "10.0.0.1.evil.example", ByAddress),
        ("10.0.?.*", "10.0.x.y", ByAddress),
        ("10.0.0.0/8", "web-1", ByAddress),
        ("10.0.0.1", "web-1", ByAddress),
        ("2001:db8::*", "web-1", ByAddress),
        ("10.0.*, web-1", "web-1", Admitted),
        ("10.0.*, web-1", "web-2", ByAddress),
        // The resolver reads these texts as addresses. Writ then checks the addresses.
        ("10.0.*", "010.0.0.1", ByAddress),
        ("10.0.*", "10.1", ByAddress),
        ("10.0.*", "0x0a000001", ByAddress),
        ("0*.web.example", "010.0.0.1", Refused),
    ] {
        assert_eq!(admission(patterns).of_text(text), expected, "{patterns} {text}");
    }
}

#[test]
fn addresses_are_held_against_address_patterns_only() {
    use Verdict::{Admitted, Refused};
    for (patterns, text, expected) in [
        ("10.0.*", "10.0.0.1", Admitted),
        ("10.0.*", "10.10.0.1", Refused),
        ("10.0.*", "110.0.0.1", Refused),
        ("10.0.?.*", "10.0.7.200", Admitted),
        ("10.0.?.*", "10.0.77.200", Refused),
        ("*.0.0.1", "10.0.0.1", Admitted),
        ("10.0.0.0/16", "10.0.255.1", Admitted),
        ("10.0.0.0/16", "10.1.0.1", Refused),
        ("10.0.0.1", "10.0.0.1", Admitted),
        ("10.0.0.1", "10.0.0.11", Refused),
        ("*", "10.0.0.1", Admitted),
        // An IPv4 address that is written as IPv6 counts as IPv4.
        ("10.0.*", "::ffff:10.0.0.1", Admitted),
        ("10.0.*", "::ffff:a00:1", Admitted),
        ("::ffff:10.0.0.1", "10.0.0.1", Admitted),
        ("::ffff:*", "10.0.0.1", Refused),
        // The spelling of an address does not matter.
        ("2001:DB8::1", "2001:db8:0:0::1", Admitted),
        ("2001:db8:0::1", "2001:DB8::1", Admitted),
        ("2001:db8::*", "2001:DB8:0:0:0:0:0:5", Admitted),
        ("2001:db8::*", "2001:db9::5", Refused),
        ("2001:db8::/32", "2001:db8:ffff::", Admitted),
        // The zone is compared only if the pattern has a zone.
        ("fe80::1", "fe80::1%veth0", Admitted),
        ("fe80::/10", "fe80::1%veth0", Admitted),
        ("fe80::1%veth0", "fe80::1%veth0", Admitted),
        ("fe80::1%veth0", "fe80::1%veth1", Refused),
        ("fe80::1%veth0", "fe80::1", Refused),
        // Name patterns do not apply to addresses.
        ("**.example, web-*, a*", "10.0.0.1", Refused),
        ("db*", "db8::1", Refused),
    ] {
        assert_eq!(admission(patterns).of_text(text), expected, "{patterns} {text}");
    }
}

#[test]
fn a_pattern_that_can_admit_nothing_is_a_mistake_and_says_which() {
    for (patterns, why) in [
        ("web-1, 10.0.0.0/33", "10.0.0.0/33"),
        ("10.0.0.1/8", "bits beyond its prefix"),
        ("web-1/24", "range of addresses"),
        ("10.0.0", "four numbers"),
        ("010.0.0.1", "four numbers"),
        ("010.0.*", "leading zeros"),
        ("a..b", "empty label"),
        ("web.**.example", "whole first label"),
        ("a**.example", "whole first label"),
        ("web:22", "no address"),
        ("web:*", "neither"),
        ("web-1%eth0", "zone"),
    ] {
        let said = Admission::parse(patterns).unwrap_err().to_string();
        assert!(said.contains(why), "{patterns}: {said}");
    }
    assert!(Admission::parse(&"a,".repeat(300)).is_err());
    assert!(Admission::parse(&"a".repeat(600)).is_err());
}

#[test]
fn a_hostile_pattern_ends_soon() {
    let pattern = format!("{}b", "*a".repeat(200));
    assert_eq!(admission(&pattern).of_text(&"a".repeat(253)), Verdict::Refused);
}
