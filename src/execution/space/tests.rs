use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::api::execution_status::{
    Claim, DecisionRecord, Encoding, IncompleteReason, MachineRecord, ObjectRecord, OutputBounds, OutputHolder,
    OutputRecord, RecordingRecord, StreamRecord,
};
use crate::api::{CommandExecution, CommandExecutionSpec, ExecutionMode, Phase, Reason};
use crate::execution::{CommandOutcome, MAX_MESSAGE_CHARACTERS, Termination, conclude, with_new_holder, with_start};

/// Size of the entries in `metadata.managedFields` for the fields of a result, in bytes: the size that an API server
/// wrote, doubled.
const MANAGED_FIELDS: usize = 1800;

fn noon() -> Timestamp {
    "2026-11-29T12:00:00.123456Z".parse().unwrap()
}

/// Returns a claimed execution with the shortest possible messages.
fn claimed(size: &ObjectSize) -> CommandExecution {
    let mut execution = CommandExecution::new("x", CommandExecutionSpec::with_command("say hello"));
    let object = ObjectRecord { name: "w".to_owned(), uid: "u".to_owned(), generation: 1 };
    let mut status = crate::execution::status::with_phase(&execution, Phase::Dispatched, Reason::Claimed, "", noon());
    status.claim = Some(Claim {
        token: "t".to_owned(),
        holder: "h".to_owned(),
        mode: ExecutionMode::Durable,
        dispatched_time: MicroTime(noon()),
        not_after_time: None,
    });
    status.machine = Some(MachineRecord {
        name: "m".to_owned(),
        uid: "u".to_owned(),
        generation: 1,
        address: "a".to_owned(),
        user: "u".to_owned(),
        host_key_fingerprint: "f".to_owned(),
    });
    status.decision = Some(DecisionRecord {
        whitelist: object,
        rule: "r".to_owned(),
        argv: vec!["/bin/true".to_owned()],
        action_type: String::new(),
        run_as: None,
        working_directory: None,
        environment: std::collections::BTreeMap::new(),
        timeout_seconds: 1,
        interactive: false,
        record_input: false,
        output: OutputBounds { inline_bytes: 16_384, ..OutputBounds::default() },
        redact: Vec::new(),
        minimum_retention_seconds: Some(31_536_000),
        digest: String::new(),
        decided_time: MicroTime(noon()),
    });
    reserve(&mut status, size);
    execution.status = Some(status);
    execution
}

/// Returns the largest possible result.
fn largest(execution: &CommandExecution) -> CommandExecutionStatus {
    let problem = "\u{2028}".repeat(2 * MAX_MESSAGE_CHARACTERS);
    result(execution, Termination::Unknown { reason: Reason::StartNotConfirmed, problem }, 'y')
}

/// Returns a result with the end `ending`. The standard error consists of one repeated character.
fn result(execution: &CommandExecution, ending: Termination, character: char) -> CommandExecutionStatus {
    let stream = StreamRecord {
        bytes: i64::MAX,
        sha256: "0".repeat(64),
        truncated: false,
        redacted: true,
        stored: false,
        not_stored: Some("<".repeat(256)),
        encoding: Encoding::Base64,
    };
    let recording = RecordingRecord {
        bytes: i64::MAX,
        sha256: "0".repeat(64),
        stored: false,
        not_stored: Some("<".repeat(256)),
        incomplete: true,
        left_out_bytes: i64::MAX,
        records_input: true,
    };
    let holder = OutputHolder { process_id: i64::MAX, name: "n".repeat(15) };
    let outcome = CommandOutcome {
        ending,
        stop_cause: None,
        no_processes_left: false,
        started: Some(noon()),
        duration_ms: Some(i64::MAX),
        stdout: "x".repeat(16_384),
        stderr: format!("e{}", character.to_string().repeat(16_383)),
        output: OutputRecord {
            stdout: stream.clone(),
            stderr: StreamRecord { encoding: Encoding::Utf8, ..stream },
            incomplete: true,
            incomplete_reason: Some(IncompleteReason::StillOpen),
            held_by: vec![holder; 8],
            recording: Some(recording),
        },
    };
    let mut status = conclude(execution, outcome, noon());
    // A real result with an unknown end has no exit code and no signal. This test sets both, for the maximum size.
    (status.exit_code, status.signal) = (Some(4_294_967_295), Some("\u{2028}".repeat(32)));
    status.observed_generation = Some(i64::MAX);
    status.conditions.iter_mut().for_each(|condition| condition.observed_generation = Some(i64::MAX));
    status
}

#[test]
fn the_smallest_result_fits_into_the_room_of_every_claim() {
    let execution = claimed(&ObjectSize::default());
    let room = length(execution.status.as_ref().unwrap());
    let mut result = largest(&execution);
    assert!(result.reserved.is_none() && length(&result) > room);
    for step in 1..=3 {
        assert!(reduce(&mut result, step, "labels, annotations or other metadata fill the object"));
    }
    let needed = length(&result) + MANAGED_FIELDS;
    assert!(needed <= room, "{needed} of {room} bytes");
    // The status still has the end, the size of the output, and a note that the output is omitted.
    let output = result.output.unwrap();
    assert!(output.stdout.truncated && output.stderr.truncated && output.stdout.sha256.len() == 64);
    assert!(result.exit_code.is_some() && result.start_time.is_some() && result.stdout.is_none());
}

#[test]
fn a_result_with_the_longest_last_line_of_standard_error_fits_as_well() {
    let execution = claimed(&ObjectSize::default());
    let room = length(execution.status.as_ref().unwrap());
    let mut result = result(&execution, Termination::Exited { code: u32::MAX }, '<');
    assert!(result.message.as_ref().unwrap().contains("last line of stderr: e<<<"));
    for step in 1..=3 {
        reduce(&mut result, step, "labels, annotations or other metadata fill the object");
    }
    let needed = length(&result) + MANAGED_FIELDS;
    assert!(needed <= room, "{needed} of {room} bytes");
    assert!(result.message.unwrap().starts_with("exit code 4294967295"));
}

#[test]
fn a_large_object_holds_room_for_the_text_of_the_output_too() {
    let execution = claimed(&ObjectSize { total: LARGE_OBJECT, ..ObjectSize::default() });
    let room = length(execution.status.as_ref().unwrap());
    let mut result = largest(&execution);
    reduce(&mut result, 1, "it is full");
    let needed = length(&result) + MANAGED_FIELDS;
    assert!(result.stdout.is_some() && needed <= room, "{needed} of {room} bytes");
}

#[test]
fn whatever_is_written_between_claim_and_result_takes_no_more_than_the_claim() {
    let mut execution = claimed(&ObjectSize::default());
    let before = length(execution.status.as_ref().unwrap());
    let running = with_start(&execution, noon(), noon());
    assert_eq!(length(&running), before - TIME_IN_MANAGED_FIELDS);
    for status in [execution.status.clone().unwrap(), running] {
        let before = length(&status);
        execution.status = Some(status);
        let taken = with_new_holder(&execution, &"holder".repeat(40), "token", noon()).unwrap();
        assert_eq!(length(&taken), before);
    }
}

#[test]
fn characters_count_as_many_bytes_as_the_api_server_writes() {
    // Go writes `<`, `>`, `&`, U+2028 and U+2029 as `\u003c`, `\u003e`, `\u0026`, `\u2028` and `\u2029`. Go writes all
    // other characters unchanged.
    assert_eq!(length(&"a<>&\u{2028}\u{2029}b"), 2 + 2 + 5 * 6);
    assert_eq!(length(&"\u{2026}\u{e9}"), 2 + 3 + 2);
}
