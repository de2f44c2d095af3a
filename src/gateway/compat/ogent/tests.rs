use super::*;
use crate::gateway::body::parse;

fn parameters(text: &str) -> BTreeMap<String, ParameterValue> {
    parse(text.as_bytes()).unwrap()
}

#[test]
fn a_command_without_parameters_is_text_and_with_parameters_the_name_of_a_rule() {
    let text = spec("say hello".to_owned(), BTreeMap::new()).unwrap();
    assert_eq!((text.command.as_deref(), text.rule), (Some("say hello"), None));
    let given = parameters(r#"{"word": "hello", "count": -3, "loud": true}"#);
    let named = spec("say".to_owned(), given).unwrap();
    let rule = named.rule.unwrap();
    assert_eq!((named.command, named.action_type, rule.name.as_str(), rule.whitelist), (None, None, "say", None));
    let expected = [("count", "-3"), ("loud", "true"), ("word", "hello")];
    assert_eq!(rule.parameters, BTreeMap::from(expected.map(|(name, value)| (name.to_owned(), value.to_owned()))));
}

#[test]
fn malformed_requests_name_the_field_that_the_client_sent() {
    let long = format!(r#"{{"{}": 1}}"#, "x".repeat(64));
    let many: Vec<String> = (0..17).map(|index| format!(r#""p{index}": 1"#)).collect();
    let many = format!("{{{}}}", many.join(","));
    for (command, given, field) in [
        ("", "{}", "command "),
        ("a\nb", "{}", "command "),
        ("say hello", r#"{"word": "x"}"#, "command "),
        ("Say", r#"{"word": "x"}"#, "command "),
        ("", r#"{"word": "x"}"#, "command "),
        ("say", r#"{"wo-rd": "x"}"#, "params "),
        ("say", r#"{"word": "a\nb"}"#, "params "),
        ("say", &long, "params "),
        ("say", &many, "params "),
    ] {
        let error = spec(command.to_owned(), parameters(given)).unwrap_err();
        assert_eq!(error.status.as_u16(), 422, "{command} {given}");
        assert!(error.body.message.starts_with(field), "{command} {given}: {}", error.body.message);
    }
    let request: ApiError = parse::<OgentRequest>(br#"{"command": "uptime"}"#).unwrap_err();
    assert!(request.status.as_u16() == 422 && request.body.message.contains("machine"), "{request:?}");
}

#[test]
fn commands_that_are_not_listed_and_not_permitted_are_the_same() {
    for (status, error) in [(400, "Command not in whitelist"), (403, "Command not permitted"), (403, "Forbidden")] {
        let status = StatusCode::from_u16(status).unwrap();
        let refused = in_ogents_words(ApiError::new(status, error, "NoMatchingRule", "no").about("ops", "run-1"));
        assert_eq!((refused.status, refused.body.error.as_str()), (StatusCode::FORBIDDEN, "Command not permitted"));
        assert_eq!(
            (refused.body.reason.as_str(), refused.body.execution.as_deref()),
            ("NoMatchingRule", Some("ops/run-1"))
        );
    }
    let other = in_ogents_words(ApiError::machine_not_found("web-9", "ops"));
    assert_eq!((other.status, other.body.error.as_str()), (StatusCode::NOT_FOUND, "Machine not found"));
}

#[test]
fn a_result_has_both_streams_as_one_text() {
    let result = |stdout: &str, encoding: &'static str| ExecuteResult {
        exit_code: Some(3),
        stdout: stdout.to_owned(),
        stderr: "err\n".to_owned(),
        duration_ms: 12,
        signal: None,
        command_id: "ops:run-1".to_owned(),
        phase: "Failed".to_owned(),
        reason: None,
        stdout_truncated: false,
        stderr_truncated: false,
        stdout_encoding: encoding,
        stderr_encoding: "utf-8",
    };
    let text = serde_json::to_value(OgentResult::of(result("out\n", "utf-8"))).unwrap();
    let expected = serde_json::json!({
        "status": "completed", "exitCode": 3, "execTime": 12, "output": "out\nerr\n", "executionId": "ops:run-1",
    });
    assert_eq!(text, expected);
    assert_eq!(OgentResult::of(result("YQD/", "base64")).output, "a\u{0}\u{fffd}err\n");
}
