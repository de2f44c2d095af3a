use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

const POLICY: &str = include_str!("../../../charts/writ/templates/api-keys.yaml");
/// Pattern of groups with characters that have a meaning in JSON.
const HOSTILE_GROUP: &str = "\\PC{0,6}|[a,\"\\\\\\[\\] ]{0,6}";
const CREATED_AT: &str = "2026-11-21T10:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn grant() -> ApiKeyGrant {
    ApiKeyGrant {
        name: "ci".to_owned(),
        user: "jane@corp.example".to_owned(),
        groups: vec!["sre".to_owned(), "on call, nights".to_owned()],
        expires_at: time("2027-02-19T10:00:00Z"),
        commands_per_minute: None,
    }
}

fn key() -> ApiKey {
    ApiKey::from_random([7; 32])
}

/// Returns the Secret of a grant, as the API server stores it.
fn stored(grant: &ApiKeyGrant) -> Secret {
    let mut secret = grant.to_secret(&key());
    secret.metadata.creation_timestamp = Some(Time(time(CREATED_AT)));
    secret.metadata.uid = Some("uid".to_owned());
    secret
}

fn annotated(name: &str, value: Option<&str>) -> Result<StoredApiKey, StoredKeyError> {
    let mut secret = stored(&grant());
    let annotations = secret.metadata.annotations.as_mut().unwrap();
    match value {
        Some(value) => annotations.insert(name.to_owned(), value.to_owned()),
        None => annotations.remove(name),
    };
    StoredApiKey::from_secret(&secret)
}

#[track_caller]
fn is_refused(result: Result<StoredApiKey, StoredKeyError>, words: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(words), "{words} is not in: {message}");
}

#[test]
fn a_stored_key_gives_back_its_grant_and_acts_for_its_user() {
    let with_rate = ApiKeyGrant { commands_per_minute: Some(600), groups: Vec::new(), ..grant() };
    for grant in [grant(), with_rate] {
        let read = StoredApiKey::from_secret(&stored(&grant)).unwrap();
        assert_eq!((&read.grant, read.created_at, read.uid.as_str()), (&grant, time(CREATED_AT), "uid"));
        let user = read.user_info();
        let mut groups = grant.groups.clone();
        groups.push("system:authenticated".to_owned());
        assert_eq!((user.username, user.groups), (Some(grant.user), Some(groups)));
        assert!(user.uid.is_none() && user.extra.is_none());
    }
}

#[test]
fn only_the_key_itself_is_verified_and_its_secret_lacks_it() {
    let secret = stored(&grant());
    let read = StoredApiKey::from_secret(&secret).unwrap();
    assert!(read.verify(&key()) && !read.verify(&ApiKey::from_random([8; 32])));
    assert_eq!(secret.metadata.name, Some(key().secret_name()));
    assert_eq!(secret.immutable, Some(true));
    let text = serde_json::to_string(&secret).unwrap();
    assert!(!text.contains(&key().text()[5..]));
    assert_eq!(format!("{read:?}"), "StoredApiKey(ci)");
}

#[test]
fn a_key_is_expired_from_the_second_of_its_expiry_on() {
    let read = StoredApiKey::from_secret(&stored(&grant())).unwrap();
    assert!(!read.is_expired(time("2027-02-19T09:59:59.999999999Z")));
    assert!(read.is_expired(time("2027-02-19T10:00:00Z")) && read.is_expired(Timestamp::MAX));
    assert!(read.is_created_after(time("2026-11-21T09:59:59Z")) && !read.is_created_after(time(CREATED_AT)));
}

#[test]
fn a_secret_without_type_or_label_is_no_key() {
    let changed = |change: fn(&mut Secret)| {
        let mut secret = stored(&grant());
        change(&mut secret);
        StoredApiKey::from_secret(&secret)
    };
    is_refused(changed(|secret| secret.type_ = Some("Opaque".to_owned())), "the type");
    is_refused(changed(|secret| secret.type_ = None), "the type");
    is_refused(changed(|secret| secret.metadata.labels = None), "the label writ.dev/api-key must be `true`");
    let relabel = |name: &str, value: Option<&str>| {
        let mut secret = stored(&grant());
        let labels = secret.metadata.labels.as_mut().unwrap();
        labels.remove(name);
        labels.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        StoredApiKey::from_secret(&secret)
    };
    is_refused(relabel(API_KEY_LABEL, Some("false")), "the label writ.dev/api-key");
    is_refused(relabel(API_KEY_NAME_LABEL, None), "the name");
    for name in ["", "A", "-a", "a-", "a.b", "a_b", &"a".repeat(64)] {
        is_refused(relabel(API_KEY_NAME_LABEL, Some(name)), "the name");
    }
    is_refused(changed(|secret| secret.metadata.creation_timestamp = None), "creationTimestamp");
    is_refused(changed(|secret| secret.data = None), "the entry digest");
    is_refused(StoredApiKey::from_secret(&Secret::default()), "the type");
}

#[test]
fn a_digest_of_another_form_is_refused() {
    for digest in ["", "00", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64), &"\0".repeat(64)] {
        let mut secret = stored(&grant());
        let entry = ByteString(digest.as_bytes().to_vec());
        secret.data = Some(BTreeMap::from([(API_KEY_DIGEST_ENTRY.to_owned(), entry)]));
        is_refused(StoredApiKey::from_secret(&secret), "the entry digest");
    }
}

#[test]
fn an_ambiguous_identity_and_one_of_kubernetes_are_refused() {
    for (text, words) in [
        ("", "must not be empty"),
        (" jane", "white space"),
        ("jane\u{a0}", "white space"),
        ("ja\nne", "control characters"),
        ("ja\u{9b}ne", "control characters"),
        ("system:masters", "`system:`"),
        ("system:serviceaccount:ops:robot", "`system:`"),
        (&"x".repeat(1025), "bytes"),
    ] {
        is_refused(annotated(API_KEY_USER_ANNOTATION, Some(text)), words);
        is_refused(annotated(API_KEY_GROUPS_ANNOTATION, Some(&groups_text(&[text.to_owned()]))), "group");
    }
    is_refused(annotated(API_KEY_USER_ANNOTATION, None), "the user (annotation writ.dev/api-key-user) must exist");
    assert!(annotated(API_KEY_USER_ANNOTATION, Some(&"x".repeat(1024))).is_ok());
}

#[test]
fn groups_have_one_form_only() {
    let of = |text: &str| annotated(API_KEY_GROUPS_ANNOTATION, Some(text));
    for text in
        ["", "sre", "[", "[1]", "[null]", "{}", "[\"a\", \"b\"]", "[ ]", " []", "[\"\\u0061\"]", "[[\"a\"]]", "[]x"]
    {
        is_refused(of(text), "the groups");
    }
    for text in [r#"["a\"b"]"#, r#"["a\\b"]"#, r#"["a\",\"b"]"#] {
        is_refused(of(text), "each group");
    }
    let many = |count: usize| groups_text(&(0..count).map(|index| format!("group-{index}")).collect::<Vec<_>>());
    assert_eq!(of(&many(16)).unwrap().grant.groups.len(), 16);
    is_refused(of(&many(17)), "at most 16");
    is_refused(annotated(API_KEY_GROUPS_ANNOTATION, None), "the groups");
    is_refused(of(&groups_text(&["x".repeat(257)])), "256 bytes");
}

#[test]
fn an_expiry_is_required_and_has_one_form_only() {
    let of = |text: &str| annotated(API_KEY_EXPIRES_ANNOTATION, Some(text));
    is_refused(annotated(API_KEY_EXPIRES_ANNOTATION, None), "the expiry");
    for text in [
        "",
        "never",
        "2027-02-19",
        "2027-02-19T10:00:00",
        "2027-02-19T10:00:00+00:00",
        "2027-02-19T10:00:00.5Z",
        "2027-02-19T10:00:00z",
        "2027-02-19 10:00:00Z",
        "2027-02-30T10:00:00Z",
        "2027-02-19T10:00:60Z",
        "-000027-02-19T10:00:00Z",
        "2027-02-19T10:00:00Z[UTC]",
    ] {
        is_refused(of(text), "the expiry");
    }
    // 366 days after the creation.
    assert!(of("2027-11-22T10:00:00Z").is_ok());
    is_refused(of("2027-11-22T10:00:01Z"), "at most 366 days");
    is_refused(of("9999-12-30T22:00:00Z"), "at most 366 days");
    // A key can expire before its creation, and is then never accepted.
    assert!(of("1970-01-01T00:00:00Z").unwrap().is_expired(time(CREATED_AT)));
}

#[test]
fn a_rate_is_one_to_six_hundred() {
    let of = |text: &str| annotated(API_KEY_RATE_ANNOTATION, Some(text));
    assert_eq!(of("600").unwrap().grant.commands_per_minute, Some(600));
    for text in ["", "0", "601", "-1", "+5", "05", "5 ", "4294967297", "ten"] {
        is_refused(of(text), "the number of commands");
    }
}

#[test]
fn bounds_are_those_of_the_admission_policy() {
    for part in [
        "name: writ-api-keys\n".to_owned(),
        format!("variables.groups.size() <= {MAX_API_KEY_GROUPS}\n"),
        // Two groups for each expression.
        format!("range $pair := until {}", MAX_API_KEY_GROUPS / 2),
        format!("size(bytes(variables.user)) <= {MAX_USER_BYTES})\n"),
        format!("size(bytes(group)) <= {MAX_GROUP_BYTES}"),
        format!("duration(\"{}h\")", MAX_LIFETIME.as_hours()),
        format!("int(variables.rate) <= {MAX_COMMANDS_PER_MINUTE}"),
        format!("startsWith(\"{SYSTEM}\")"),
        format!("\"{API_KEY_LABEL}\" in object.metadata.?labels"),
        format!("object.?type.orValue(\"\") == \"{API_KEY_TYPE}\""),
        format!("labels[\"{API_KEY_NAME_LABEL}\"]"),
        format!("annotations[\"{API_KEY_USER_ANNOTATION}\"]"),
        format!("annotations[\"{API_KEY_GROUPS_ANNOTATION}\"]"),
        format!("annotations[\"{API_KEY_EXPIRES_ANNOTATION}\"]"),
        format!("annotations[\"{API_KEY_RATE_ANNOTATION}\"]"),
    ] {
        assert!(POLICY.contains(&part), "{part}");
    }
}

/// Splits the groups as the expression of the admission policy does.
fn groups_of_the_policy(text: &str) -> Option<Vec<&str>> {
    let inside = text.strip_prefix("[\"")?.strip_suffix("\"]")?;
    let groups: Vec<&str> = inside.split("\",\"").collect();
    let is_plain = |group: &&str| !group.is_empty() && !group.contains(['"', '\\']);
    groups.iter().all(is_plain).then_some(groups)
}

proptest! {
    #[test]
    fn the_policy_and_writ_read_the_same_groups(groups in prop::collection::vec(HOSTILE_GROUP, 0..4)) {
        let text = groups_text(&groups);
        if let Ok(read) = annotated(API_KEY_GROUPS_ANNOTATION, Some(&text)) {
            prop_assert_eq!(&read.grant.groups, &groups);
            let by_policy = if text == "[]" { Some(Vec::new()) } else { groups_of_the_policy(&text) };
            prop_assert_eq!(by_policy, Some(groups.iter().map(String::as_str).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn a_hostile_text_gives_the_groups_of_the_policy_or_none(text in "\\[?[a,\"\\\\\\[\\] ]{0,12}\\]?") {
        if let Ok(read) = annotated(API_KEY_GROUPS_ANNOTATION, Some(&text)) && text != "[]" {
            let groups = groups_of_the_policy(&text).unwrap_or_default();
            prop_assert_eq!(read.grant.groups.iter().map(String::as_str).collect::<Vec<_>>(), groups);
        }
    }
}
