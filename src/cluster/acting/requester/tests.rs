use std::collections::BTreeMap;

use super::*;

const OWN: &str = "system:serviceaccount:writ-system:writ-gateway";

fn caller(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        username: Some(name.to_owned()),
        groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
        ..UserInfo::default()
    }
}

fn with_extra(key: &str, value: &str) -> UserInfo {
    UserInfo { extra: Some(BTreeMap::from([(key.to_owned(), vec![value.to_owned()])])), ..caller("alice", &[]) }
}

fn refusal(caller: &UserInfo) -> RequesterError {
    check(caller, OWN, &["example.org/scopes".to_owned()]).expect_err("it is refused")
}

/// Returns the headers as they are sent, one per line.
fn headers(caller: &UserInfo) -> Vec<String> {
    let checked = check(caller, OWN, &["example.org/scopes".to_owned()]).expect("it is accepted");
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).expect("UTF-8");
    checked.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
}

#[test]
fn a_person_is_named_by_user_uid_groups_and_extra() {
    let person = UserInfo { uid: Some("7".to_owned()), ..caller("alice", &["sre", "system:authenticated"]) };
    assert_eq!(
        headers(&person),
        [
            "impersonate-user: alice",
            "impersonate-uid: 7",
            "impersonate-group: sre",
            "impersonate-group: system:authenticated",
            "impersonate-extra-writ.dev%2fvia: gateway"
        ]
    );
    assert!(
        headers(&with_extra("example.org/scopes", "read"))
            .contains(&"impersonate-extra-example.org%2fscopes: read".to_owned())
    );
    assert!(headers(&caller("größe", &["gruppe ä"])).contains(&"impersonate-group: gruppe ä".to_owned()));
}

#[test]
fn a_service_account_is_named_by_its_user_name_alone() {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:ops", "system:authenticated"];
    let account = UserInfo { uid: Some("7".to_owned()), ..caller("system:serviceaccount:ops:robot.v-1", &groups) };
    assert_eq!(headers(&account), ["impersonate-user: system:serviceaccount:ops:robot.v-1"]);
}

#[test]
fn what_the_authenticator_says_of_a_token_is_not_forwarded() {
    let token = with_extra("authentication.kubernetes.io/credential-id", "JTI=1");
    assert_eq!(headers(&token), ["impersonate-user: alice", "impersonate-extra-writ.dev%2fvia: gateway"]);
}

#[test]
fn identities_that_are_no_callers_are_refused() {
    for (name, groups) in [
        ("alice", vec!["system:masters"]),
        ("alice", vec!["sre", "a", "b", "system:masters", "c"]),
        ("system:admin", vec!["system:masters"]),
    ] {
        assert_eq!(refusal(&caller(name, &groups)), RequesterError::Masters);
    }
    for name in [
        "system:kube-controller-manager",
        "system:admin",
        "system:anonymous",
        "system:node:n1",
        "system:node:N_1",
        "system:serviceaccount:ops",
        "system:serviceaccount:ops:",
        "system:serviceaccount::robot",
        "system:serviceaccount:ops:ROBOT",
        "system:serviceaccount:ops:a:b",
        "system:serviceaccount:-ops:robot",
        "system:serviceaccount:o.ps:robot",
    ] {
        assert_eq!(refusal(&caller(name, &["sre"])), RequesterError::SystemUser(name.to_owned()));
    }
    for group in [
        "system:nodes",
        "system:serviceaccounts",
        "system:serviceaccounts:ops",
        "system:unauthenticated",
        "system:bootstrappers",
    ] {
        assert_eq!(refusal(&caller("alice", &["sre", group])), RequesterError::SystemGroup(group.to_owned()));
    }
    let foreign = caller("system:serviceaccount:ops:robot", &["system:serviceaccounts:kube-system"]);
    assert!(matches!(refusal(&foreign), RequesterError::SystemGroup(_)));
}

#[test]
fn writ_never_acts_for_itself_or_its_neighbours() {
    assert_eq!(refusal(&caller(OWN, &[])), RequesterError::OwnIdentity(OWN.to_owned()));
    for name in ["system:serviceaccount:writ-system:writ", "system:serviceaccount:kube-system:job-controller"] {
        assert_eq!(refusal(&caller(name, &[])), RequesterError::ProtectedServiceAccount(name.to_owned()));
    }
    // Outside a cluster, this process can run as a person. Writ must not act for this person.
    assert!(matches!(check(&caller("alice", &[]), "alice", &[]), Err(RequesterError::OwnIdentity(_))));
}

#[test]
fn texts_that_the_api_server_would_read_differently_are_refused() {
    for text in [" sre", "sre ", "\tsre", "s\r\nre", "s\u{0}re", "\u{a0}sre", "s\u{85}re", "sre\u{2003}"] {
        assert!(matches!(refusal(&caller("alice", &[text])), RequesterError::Ambiguous { .. }), "{text:?}");
        assert!(matches!(refusal(&caller(text, &[])), RequesterError::Ambiguous { .. }), "{text:?}");
        assert!(
            matches!(refusal(&with_extra("example.org/scopes", text)), RequesterError::Ambiguous { .. }),
            "{text:?}"
        );
    }
    let uid = UserInfo { uid: Some(" 7".to_owned()), ..caller("alice", &[]) };
    assert!(matches!(refusal(&uid), RequesterError::Ambiguous { .. }));
    assert_eq!(refusal(&caller("", &["sre"])), RequesterError::Empty("the user name"));
    assert_eq!(refusal(&caller("alice", &["sre", ""])), RequesterError::Empty("a group"));
    assert_eq!(refusal(&UserInfo::default()), RequesterError::Empty("the user name"));
}

#[test]
fn an_extra_key_that_cannot_be_forwarded_ends_the_call() {
    for key in ["scopes", "example.org/other", "Example.org/Scopes", "writ.dev/via"] {
        assert_eq!(refusal(&with_extra(key, "read")), RequesterError::UnknownExtraKey(key.to_owned()));
    }
    // The caller is refused even if these keys are listed as keys to forward.
    for key in ["Scopes", "writ.dev/via"] {
        assert!(check(&with_extra(key, "gateway"), OWN, &[key.to_owned()]).is_err());
    }
    let account = UserInfo {
        username: Some("system:serviceaccount:ops:robot".to_owned()),
        ..with_extra("example.org/scopes", "read")
    };
    assert!(matches!(refusal(&account), RequesterError::UnknownExtraKey(_)));
}

#[test]
fn every_part_has_a_bound() {
    let long = "x".repeat(257);
    let is_too_large = |caller: &UserInfo| matches!(refusal(caller), RequesterError::TooLarge { .. });
    assert!(is_too_large(&caller(&"x".repeat(1025), &[])));
    assert!(is_too_large(&caller("alice", &[&long])));
    assert!(is_too_large(&caller("alice", &vec!["x"; 513])));
    assert!(is_too_large(&UserInfo { uid: Some(long), ..caller("alice", &[]) }));
    // 512 groups of 200 bytes exceed the maximum length of all headers, so the caller is refused.
    let groups: Vec<String> = (0..512).map(|number| format!("{number:0200}")).collect();
    assert!(is_too_large(&UserInfo { groups: Some(groups), ..caller("alice", &[]) }));
    let values = vec!["read".to_owned(); 33];
    let extra = Some(BTreeMap::from([("example.org/scopes".to_owned(), values)]));
    assert!(is_too_large(&UserInfo { extra, ..caller("alice", &[]) }));
}

#[test]
fn debug_output_does_not_show_the_headers() {
    let checked = check(&caller("alice", &["sre"]), OWN, &[]).expect("it is accepted");
    assert!(!format!("{checked:?}").contains("sre"));
}
