use serde_json::json;

use super::*;
use crate::api::CommandExecutionSpec;

fn finished(status: serde_json::Value) -> CommandExecution {
    let mut execution = CommandExecution::new("x", CommandExecutionSpec::on_machine("web-1"));
    execution.metadata.uid = Some("u".to_owned());
    execution.status = Some(serde_json::from_value(status).unwrap());
    execution
}

fn with_stdout(text: &str, bytes: i64, sha256: &str, truncated: bool, stored: bool) -> CommandExecution {
    let encoding = "utf-8";
    let stderr = json!({"bytes": 0, "sha256": super::sha256(b""), "truncated": false, "encoding": encoding});
    let stdout = json!({"bytes": bytes, "sha256": sha256, "truncated": truncated, "encoding": encoding,
        "stored": stored});
    finished(json!({"phase": "Succeeded", "stdout": text, "output": {"stdout": stdout, "stderr": stderr}}))
}

fn place(execution: &CommandExecution, stream: StreamKind) -> Place {
    OutputSource::find(execution, stream).unwrap().place
}

#[test]
fn the_place_follows_from_the_record() {
    let whole = with_stdout("hello", 5, &sha256(b"hello"), false, false);
    assert!(matches!(place(&whole, StreamKind::Stdout), Place::Status(bytes) if bytes == "hello"));
    assert!(matches!(place(&whole, StreamKind::Stderr), Place::Status(bytes) if bytes.is_empty()));
    let text = "a\n[writ: 8 bytes left out here]\nb";
    assert!(matches!(place(&with_stdout(text, 10, "s", true, true), StreamKind::Stdout), Place::Store { .. }));
    assert!(matches!(place(&with_stdout(text, 10, "s", true, false), StreamKind::Stdout), Place::Ends { .. }));
    let running = finished(json!({"phase": "Running"}));
    assert!(matches!(place(&running, StreamKind::Stdout), Place::Live { uid } if uid == "u"));
    let rejected = finished(json!({"phase": "Rejected"}));
    assert!(matches!(place(&rejected, StreamKind::Stdout), Place::Status(bytes) if bytes.is_empty()));
}

#[test]
fn a_text_that_differs_from_its_digest_is_an_error() {
    let damaged = with_stdout("hallo", 5, &sha256(b"hello"), false, false);
    assert_eq!(OutputSource::find(&damaged, StreamKind::Stdout).unwrap_err().body.reason, "OutputDamaged");
    let mut base64 = with_stdout("***", 5, "x", false, false);
    if let Some(output) = base64.status.as_mut().and_then(|status| status.output.as_mut()) {
        output.stdout.encoding = Encoding::Base64;
    }
    assert_eq!(OutputSource::find(&base64, StreamKind::Stdout).unwrap_err().status.as_u16(), 500);
}

#[test]
fn a_read_in_memory_has_a_start_and_a_bound() {
    let bytes = Bytes::from_static(b"hello");
    assert_eq!(within(&bytes, 1, 2), SourceRead::Bytes(Bytes::from_static(b"el")));
    assert_eq!(within(&bytes, 4, usize::MAX), SourceRead::Bytes(Bytes::from_static(b"o")));
    for offset in [5, u64::MAX] {
        assert_eq!(within(&bytes, offset, 1), SourceRead::Nothing { is_complete: true });
    }
}
