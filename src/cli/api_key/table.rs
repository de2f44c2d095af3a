//! The list of API keys, as a table and as JSON. Pure: the time is an argument.

use jiff::Timestamp;
use serde_json::json;

use crate::cluster::ListedApiKey;

/// Heads of the columns.
const HEADS: [&str; 6] = ["NAME", "USER", "GROUPS", "AGE", "EXPIRES", "STATE"];
/// Text of an unknown or empty value, as in kubectl.
const NONE: &str = "<none>";
/// Spaces between two columns.
const GAP: usize = 3;

/// Returns the table. The last column has the reason if a key cannot be used.
pub(super) fn table(keys: &[ListedApiKey], now: Timestamp) -> String {
    let rows: Vec<[String; 6]> = keys.iter().map(|key| row(key, now)).collect();
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for cells in std::iter::once(HEADS.map(str::to_owned)).chain(rows) {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}", width = width + GAP));
        text.push_str(padded.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// Returns the list as a JSON array, for scripts.
pub(super) fn json(keys: &[ListedApiKey], now: Timestamp) -> String {
    let entries = keys.iter().map(|key| {
        let grant = key.key.as_ref().ok().map(|stored| &stored.grant);
        json!({
            "name": key.name,
            "secret": key.secret_name,
            "user": grant.map(|grant| &grant.user),
            "groups": grant.map(|grant| &grant.groups),
            "commands_per_minute": grant.and_then(|grant| grant.commands_per_minute),
            "created_at": key.created_at.map(|time| time.to_string()),
            "expires_at": grant.map(|grant| grant.expires_at.to_string()),
            "state": state(key, now),
        })
    });
    let array = serde_json::Value::from_iter(entries);
    format!("{array:#}\n")
}

fn row(key: &ListedApiKey, now: Timestamp) -> [String; 6] {
    // Without a name, the name of the Secret lets the user find the object.
    let name = key.name.clone().unwrap_or_else(|| format!("secret/{}", key.secret_name));
    let age = key.created_at.map_or_else(|| NONE.to_owned(), |created| age(created, now));
    let (user, groups, expires) = match &key.key {
        Ok(stored) => {
            let groups = stored.grant.groups.join(",");
            (stored.grant.user.clone(), groups, stored.grant.expires_at.to_string())
        }
        Err(_) => (String::new(), String::new(), String::new()),
    };
    let or_none = |text: String| if text.is_empty() { NONE.to_owned() } else { text };
    [name, or_none(user), or_none(groups), age, or_none(expires), state(key, now)]
}

fn state(key: &ListedApiKey, now: Timestamp) -> String {
    match &key.key {
        Ok(stored) if stored.is_expired(now) => "expired".to_owned(),
        Ok(_) => "active".to_owned(),
        Err(error) => format!("invalid: {error}"),
    }
}

/// Returns an age in its largest unit, for example `3d`.
fn age(created: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(created).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::ApiKey;
    use crate::cluster::{ApiKeyGrant, StoredApiKey};

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn listed(name: &str, groups: &[&str], change: fn(&mut Secret)) -> ListedApiKey {
        let grant = ApiKeyGrant {
            name: name.to_owned(),
            user: "jane".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            expires_at: time("2027-02-19T10:00:00Z"),
            commands_per_minute: Some(20),
        };
        let mut secret = grant.to_secret(&ApiKey::from_random([7; 32]));
        secret.metadata.creation_timestamp = Some(Time(time("2026-11-21T10:00:00Z")));
        change(&mut secret);
        ListedApiKey {
            secret_name: "writ-api-key-x".to_owned(),
            uid: String::new(),
            created_at: Some(time("2026-11-21T10:00:00Z")),
            name: secret.metadata.labels.as_ref().and_then(|labels| labels.get("writ.dev/api-key-name").cloned()),
            key: StoredApiKey::from_secret(&secret),
        }
    }

    fn keys() -> Vec<ListedApiKey> {
        let nameless: fn(&mut Secret) = |secret| secret.metadata.labels = None;
        vec![listed("ci", &["sre", "ops"], |_| {}), listed("none", &[], |_| {}), listed("", &[], nameless)]
    }

    #[test]
    fn the_table_shows_user_expiry_and_state() {
        let expected = "\
NAME                    USER     GROUPS    AGE   EXPIRES                STATE
ci                      jane     sre,ops   2h    2027-02-19T10:00:00Z   active
none                    jane     <none>    2h    2027-02-19T10:00:00Z   active
secret/writ-api-key-x   <none>   <none>    2h    <none>                 invalid: the label writ.dev/api-key must be `true`
";
        assert_eq!(table(&keys(), time("2026-11-21T12:59:00Z")), expected);
        assert_eq!(table(&[], time("2026-11-21T12:59:00Z")), "NAME   USER   GROUPS   AGE   EXPIRES   STATE\n");
    }

    #[test]
    fn an_expired_key_is_marked() {
        let text = table(&keys(), time("2027-02-19T10:00:00Z"));
        assert_eq!(text.matches("expired").count(), 2, "{text}");
        assert!(text.contains("   90d   "), "{text}");
    }

    #[test]
    fn json_has_the_same_content() {
        let list: serde_json::Value = serde_json::from_str(&json(&keys(), time("2026-11-21T12:00:00Z"))).unwrap();
        assert_eq!(list.as_array().map(Vec::len), Some(3));
        assert_eq!(list[0]["groups"], serde_json::json!(["sre", "ops"]));
        assert_eq!((&list[0]["state"], &list[0]["commands_per_minute"]), (&"active".into(), &20.into()));
        assert_eq!((&list[2]["name"], &list[2]["user"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(&[], Timestamp::UNIX_EPOCH)).unwrap(), json!([]));
    }

    #[test]
    fn an_age_never_is_negative() {
        let created = time("2026-11-21T10:00:00Z");
        for (now, shown) in [
            ("2026-11-21T09:59:00Z", "0s"),
            ("2026-11-21T10:00:59Z", "59s"),
            ("2026-11-21T10:59:59Z", "59m"),
            ("2026-11-22T09:59:59Z", "23h"),
            ("2027-11-21T10:00:00Z", "365d"),
        ] {
            assert_eq!(age(created, time(now)), shown);
        }
    }
}
