use serde_json::json;

use super::*;

fn lean(metadata: &serde_json::Value) -> LeanMetadata {
    serde_json::from_str(&metadata.to_string()).unwrap()
}

#[test]
fn what_others_fill_is_counted_and_not_kept() {
    let labels: BTreeMap<String, String> = (0..10_000).map(|index| (format!("l{index}"), "x".repeat(60))).collect();
    let managers: Vec<_> = (0..1000)
        .map(|index| json!({"manager": format!("m{index}"), "operation": "Apply", "fieldsV1": {"f:labels": {"f:x": {}}}}))
        .collect();
    let others = (0..1000).map(|index| format!("example.org/{index}"));
    let finalizers: Vec<_> = others.chain([AUDIT_FINALIZER.to_owned()]).collect();
    let metadata = json!({
        "name": "x", "namespace": "team", "uid": "u", "generateName": "x-", "generation": 3, "resourceVersion": "7",
        "creationTimestamp": "2026-11-29T12:00:00Z", "deletionTimestamp": null,
        "labels": labels, "managedFields": managers, "ownerReferences": [{"uid": "o"}],
        "finalizers": finalizers,
        "annotations": {"example.org/a": "y".repeat(1000), LAST_APPLIED: "{}", "writ.dev/restored": "true"},
    });
    let lean = lean(&metadata);
    let kept = &lean.kept;
    assert_eq!((kept.name.as_deref(), kept.generation, kept.labels.as_ref()), (Some("x"), Some(3), None));
    assert!(kept.creation_timestamp.is_some() && kept.deletion_timestamp.is_none());
    let annotations: Vec<_> =
        kept.annotations.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(annotations, [(LAST_APPLIED, ""), ("writ.dev/restored", "true")]);
    assert_eq!(
        (kept.managed_fields.as_ref().unwrap().len(), kept.finalizers.as_ref().unwrap().len()),
        (MAX_KEPT_ENTRIES, MAX_KEPT_ENTRIES + 1)
    );
    assert_eq!(lean.audit_finalizer, Some(1000));
    let length = |part: &str| metadata[part].to_string().len();
    let near = |counted: usize, part: &str| {
        assert!(counted.abs_diff(length(part)) * 10 < length(part), "{part}: {counted} of {}", length(part));
    };
    near(lean.size.labels, "labels");
    near(lean.size.annotations, "annotations");
    near(lean.size.finalizers, "finalizers");
}

#[test]
fn nothing_is_a_small_object() {
    let lean = lean(&json!({"name": "x"}));
    assert_eq!((lean.size, lean.audit_finalizer), (ObjectSize::default(), None));
    assert_eq!((lean.kept.annotations, lean.kept.finalizers, lean.kept.managed_fields), (None, None, None));
}

#[test]
fn another_text_has_another_hash() {
    let hash = |text: &str| serde_json::from_str::<Counted>(text).unwrap().hash;
    let texts =
        [r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"b":"b"}"#, r#"{"a":"b","c":"d"}"#, r#"["a","b"]"#, "true", "1", "null"];
    for (index, one) in texts.iter().enumerate() {
        for (other_index, other) in texts.iter().enumerate() {
            assert_eq!(hash(one) == hash(other), index == other_index, "{one} {other}");
        }
    }
}

#[test]
fn a_mark_is_not_lost_among_many_others() {
    let mut annotations: BTreeMap<String, String> =
        (0..5000).map(|index| (format!("writ.dev/a{index}"), String::new())).collect();
    annotations.insert("writ.dev/restored".to_owned(), "true".to_owned());
    let kept = lean(&json!({"annotations": annotations})).kept.annotations.unwrap();
    assert_eq!(kept["writ.dev/restored"], "true");
}
