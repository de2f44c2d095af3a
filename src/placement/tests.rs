use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod agreement;

const UID: &str = "8f14e45f-ceea-467f-a8c5-9e0d3f2b1a77";

fn members(names: &[&str]) -> Members {
    names.iter().copied().collect()
}

/// Returns UIDs of Machines. The UIDs differ only in a few characters.
fn uids(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("8f14e45f-ceea-467f-a8c5-{number:012x}"))
}

/// The expected weights were computed with Python's hashlib, from the formula in the documentation of `weight`.
#[test]
fn weights_are_those_of_another_implementation() {
    let names = ["writ-system/writ-a", "writ-system/writ-b", "writ-system/writ-c"];
    for (key, weights) in [
        (Key::Machine(UID), [0x97fe_5e8a_6d6e_bb47, 0x24c2_c4e4_a805_aa81, 0xde72_76cc_4d32_1567]),
        (Key::Singleton("retention"), [0xe2bc_d67d_dd2f_4bfe, 0x0668_4ce8_c210_3b2b, 0xf20b_f5a5_5223_9642]),
        (Key::Singleton(UID), [0x9a7b_f2f7_2e78_87a4, 0x23c9_9df8_068c_03ef, 0x11a8_20ca_ddff_0e35]),
        (Key::Machine(""), [0x2c92_3324_74d1_3fe2, 0xbdd6_0454_c341_ea58, 0xf802_0b2f_04d8_cb0f]),
        (Key::Machine("größe"), [0x0f30_bd73_7a9e_71bb, 0x1b51_eece_504c_73b1, 0xa2b1_f7c0_d5a6_6e0d]),
    ] {
        assert_eq!(names.map(|name| weight(name, key)), weights, "{key:?}");
    }
}

#[test]
fn views_are_those_of_another_implementation() {
    let all = members(&["writ-system/writ-c", "writ-system/writ-a", "writ-system/writ-b"]);
    assert_eq!(all.view().as_str(), "0-64fb5fdad68ec167f06fb8f50b0cf67b");
    assert_eq!(members(&["writ-system/writ-a"]).view().as_str(), "0-ddf5790008cfe0b1d07bc2d47a4ed28a");
    assert_eq!(members(&[]).view().as_str(), "0-402badc55fcaace410ce7181ce8badfa");
}

#[test]
fn a_machine_and_a_singleton_of_one_name_are_two_keys() {
    assert_ne!(weight("a", Key::Machine("x")), weight("a", Key::Singleton("x")));
}

#[test]
fn the_border_between_two_texts_counts() {
    assert_ne!(members(&["a", "bc"]).view(), members(&["ab", "c"]).view());
    assert_ne!(weight("a", Key::Machine("bc")), weight("ab", Key::Machine("c")));
}

#[test]
fn without_members_nobody_owns_a_key() {
    assert_eq!(members(&[]).owner(Key::Machine(UID)), None);
    assert_eq!(members(&["a"]).rank("b", Key::Machine(UID)), None);
}

/// With three to seven members and 7,000 keys, each share is within 10 % of an even share.
#[test]
fn shares_of_three_to_seven_members_are_even() {
    const KEYS: u32 = 7000;
    for count in 3..=7 {
        let members: Members = (0..count).map(|number| format!("writ-system/writ-{number}")).collect();
        let mut shares: BTreeMap<&str, u32> = BTreeMap::new();
        let uids: Vec<String> = uids(KEYS).collect();
        for uid in &uids {
            *shares.entry(members.owner(Key::Machine(uid)).unwrap()).or_default() += 1;
        }
        let even = KEYS / count;
        assert_eq!(shares.len(), members.len());
        assert!(shares.values().all(|share| share.abs_diff(even) <= even / 10), "{count} members: {shares:?}");
    }
}

/// Generates identities in Writ's form: namespace, host and a random suffix.
fn identities() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set("(ops|writ-system)/writ-[a-z0-9]{1,12}-[0-9a-f]{12}", 3..=7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Each share of 3,000 keys is 75 % to 125 % of the even share. Both bounds are at least 5 standard deviations from
    /// the even share.
    #[test]
    fn shares_are_even_whatever_the_names(names in identities(), salt in "[0-9a-f]{8}") {
        let members: Members = names.into_iter().collect();
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for number in 0..3000 {
            let uid = format!("{salt}-ceea-467f-a8c5-{number:012x}");
            *shares.entry(members.owner(Key::Machine(&uid)).unwrap().to_owned()).or_default() += 1;
        }
        let even = 3000.0 / members.len() as f64;
        for (name, share) in shares {
            let ratio = share as f64 / even;
            prop_assert!((0.75..=1.25).contains(&ratio), "{} has {} of 3000 keys", name, share);
        }
    }

    /// If a member joins, keys move only to this member. Conversely, if a member leaves, only its keys move.
    #[test]
    fn one_member_more_or_less_moves_only_its_own_keys(names in identities(), newcomer in "z/[a-z]{8}") {
        let before: Members = names.into_iter().collect();
        let after = before.union(&members(&[&newcomer]));
        let mut moved = 0;
        for uid in uids(600) {
            let key = Key::Machine(&uid);
            if before.owner(key) != after.owner(key) {
                prop_assert_eq!(after.owner(key), Some(newcomer.as_str()));
                moved += 1;
            }
        }
        // At least one key moves, and at most twice the newcomer's even share.
        prop_assert!(moved > 0 && moved <= 2 * 600 / after.len(), "{} of 600 moved", moved);
    }

    /// The order of the members in a list, and duplicates in it, change nothing.
    #[test]
    fn the_order_of_members_is_irrelevant(
        names in identities().prop_map(|names| names.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        uid in "[0-9a-f-]{0,36}",
    ) {
        let once: Members = names.iter().cloned().collect();
        let twice: Members = names.iter().rev().chain(&names).cloned().collect();
        let key = Key::Singleton(&uid);
        prop_assert_eq!(once.ranked(key), twice.ranked(key));
        prop_assert_eq!(once.view(), twice.view());
    }

    /// Each member has a different rank, and the owner has rank 0. Without the owner, the second member gets rank 0.
    #[test]
    fn ranks_are_a_permutation(names in identities(), uid in "\\PC{0,36}") {
        let members: Members = names.into_iter().collect();
        let key = Key::Machine(&uid);
        let ranked = members.ranked(key);
        let ranks: BTreeSet<usize> = members.iter().filter_map(|name| members.rank(name, key)).collect();
        prop_assert_eq!(ranks, (0..members.len()).collect());
        prop_assert_eq!(members.owner(key), ranked.first().copied());
        let rest: Members = ranked.iter().skip(1).copied().collect();
        prop_assert_eq!(rest.ranked(key), ranked.get(1..).unwrap());
    }
}
