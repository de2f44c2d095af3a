use super::*;
use crate::api::SessionRequest;

#[test]
fn descriptions_keep_paragraphs_and_lists_and_lose_the_lines_of_the_source() {
    assert_eq!(unwrap_lines("one\ntwo\n\nthree\n\n- a: b\n- c: d\n  e"), "one two\n\nthree\n\n- a: b\n- c: d e");
    assert_eq!(unwrap_lines(""), "");
    assert_eq!(unwrap_lines("one"), "one");
}

#[test]
fn every_string_list_and_number_has_a_bound_and_every_field_a_description() {
    let mut missing = Vec::new();
    for (name, mut definition) in all() {
        for_each_schema_root(&mut definition, &mut |root| {
            for part in ["spec", "status"] {
                if let Some(schema) = property(root, part) {
                    check_schema(&format!("{name} {part}"), schema, &mut missing);
                }
            }
        });
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

fn check_schema(path: &str, schema: &JSONSchemaProps, missing: &mut Vec<String>) {
    let is_bounded = match schema.type_.as_deref() {
        Some("string") => schema.max_length.is_some() || schema.enum_.is_some() || schema.format.is_some(),
        Some("array") => schema.max_items.is_some(),
        Some("integer") => schema.format.as_deref() == Some("int64") || schema.maximum.is_some(),
        _ => true,
    };
    if !is_bounded {
        missing.push(format!("{path}: no bound"));
    }
    for (name, field) in schema.properties.iter().flatten() {
        // Kubernetes defines the type of conditions, so its schema is not checked.
        if name == "conditions" {
            continue;
        }
        if field.description.as_deref().unwrap_or_default().len() < 8 {
            missing.push(format!("{path}.{name}: no description"));
        }
        check_schema(&format!("{path}.{name}"), field, missing);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        check_schema(&format!("{path}[]"), item, missing);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &schema.additional_properties {
        if schema.max_properties.is_none() {
            missing.push(format!("{path}: no bound on how many"));
        }
        check_schema(&format!("{path}.*"), value, missing);
    }
}

#[test]
fn every_field_of_a_spec_is_kept_by_its_guard() {
    let mut definition = command_execution();
    let rule = format!("{} && {}", immutable_spec().rule, cancelled_once().rule);
    for_each_schema_root(&mut definition, &mut |root| {
        let spec = property(root, "spec").expect("a spec");
        for field in spec.properties.iter().flatten().map(|(name, _)| name).filter(|name| *name != "cancelRequested") {
            assert!(
                rule.contains(&format!("self.{field} == oldSelf.{field}")),
                "{field} could be changed after creation"
            );
        }
    });
}

#[test]
fn every_field_of_a_session_is_kept_by_its_guard() {
    let mut definition = gateway_session();
    for_each_schema_root(&mut definition, &mut |root| {
        let spec = property(root, "spec").expect("a spec");
        let rules = spec.x_kubernetes_validations.clone().unwrap_or_default();
        let fields: Vec<_> = spec.properties.iter().flatten().map(|(name, _)| name).collect();
        assert_eq!(fields.len(), 3, "{fields:?}");
        for field in fields {
            let kept = rules.iter().any(|rule| rule.rule.contains(&format!("self.{field} == oldSelf.{field}")));
            assert!(kept, "{field} could be changed after creation");
        }
    });
}

#[test]
fn every_field_of_a_receipt_but_its_last_uid_is_kept_by_its_guard() {
    let mut definition = execution_receipt();
    for_each_schema_root(&mut definition, &mut |root| {
        let spec = property(root, "spec").expect("a spec");
        let rules = spec.x_kubernetes_validations.clone().unwrap_or_default();
        for field in spec.properties.iter().flatten().map(|(name, _)| name) {
            let kept = rules.iter().any(|rule| rule.rule.contains(&format!("self.{field} == oldSelf.{field}")));
            assert_eq!(kept, field != "expiredUid", "{field}");
        }
    });
}

#[test]
fn user_name_check_agrees_with_the_pattern() {
    let pattern = regex_automata::meta::Regex::new(crate::api::USER_NAME).unwrap();
    for first in ' '..='\u{7f}' {
        for rest in [
            "", "a", "$", "a$", "$a", "#1", "+x", "-", "\\b", "@c.d", "é", "/", "'", "\"", "`", ":", " ", "\n", "%",
            "\\", "\\$", "a\\", "[", "]b", ";x", "*", "a,b",
        ] {
            let name = format!("{first}{rest}");
            assert_eq!(pattern.is_match(name.as_str()), crate::api::is_user_name(&name), "{name:?}");
        }
    }
    for name in ["jane", "CORP\\jane", "jane@corp.example", "Svc.Deploy", "PC-1$", "_apt", "1st"] {
        assert!(pattern.is_match(name), "{name}");
    }
    for name in [
        "", "$", "-u", "#0", "%wheel", "+nis", "a b", "a:b", "a/b", "a$b", "a'b", "a\\", "\\a", "a;b", "a|b", "a(b",
        "a{b", "a&b", "a<b",
    ] {
        assert!(!pattern.is_match(name), "{name}");
    }
}

#[test]
fn session_has_a_default_size_and_bounds() {
    let absent: SessionRequest = serde_json::from_value(serde_json::json!({})).unwrap();
    assert_eq!(absent, SessionRequest::default());
    assert_eq!(absent, SessionRequest { tty: false, columns: 80, rows: 24 });
    let mut definition = command_execution();
    for_each_schema_root(&mut definition, &mut |root| {
        let spec = property(root, "spec").expect("a spec");
        let session = property(spec, "session").expect("a session");
        assert_eq!((session.required.as_ref(), session.default.as_ref()), (None, None), "absent means no session");
        for (field, default) in [("columns", 80), ("rows", 24)] {
            let field = property(session, field).expect("a field");
            assert_eq!((field.minimum, field.maximum), (Some(1.0), Some(1000.0)));
            assert_eq!(field.default.as_ref().map(|default| default.0.clone()), Some(default.into()));
        }
    });
}
