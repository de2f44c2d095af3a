use proptest::prelude::*;
use serde_json::Value;

use super::*;

use StreamKind::{Stderr, Stdout};

fn header() -> SessionHeader {
    SessionHeader {
        columns: 120,
        rows: 40,
        tty: true,
        command: "/bin/sh -c \"x\ny\"".to_owned(),
        started: "2026-12-01T00:00:00.9Z".parse().unwrap(),
        records_input: false,
    }
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn recording(limit: u64) -> Recording {
    Recording::new(&header(), limit)
}

/// Returns the lines after the header as interval, code and data. Each line must be JSON.
fn events(recording: &[u8]) -> Vec<(f64, String, String)> {
    let text = std::str::from_utf8(recording).unwrap();
    assert!(text.ends_with('\n'));
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], 3);
    let event = |line: &str| {
        let (interval, code, data): (f64, String, String) = serde_json::from_str(line).unwrap();
        (interval, code, data)
    };
    lines.map(event).collect()
}

/// Returns code and data of each event.
fn codes(recording: &[u8]) -> Vec<(String, String)> {
    events(recording).into_iter().map(|(_, code, data)| (code, data)).collect()
}

fn pair(code: &str, data: &str) -> (String, String) {
    (code.to_owned(), data.to_owned())
}

fn data_of(recording: &[u8], code: &str) -> String {
    codes(recording).into_iter().filter(|(own, _)| own == code).map(|(_, data)| data).collect()
}

#[test]
fn header_describes_terminal_start_and_command() {
    let lines = String::from_utf8(recording(9999).take()).unwrap();
    assert_eq!(
        lines,
        "{\"version\":3,\"term\":{\"cols\":120,\"rows\":40},\"timestamp\":1796083200,\
         \"command\":\"/bin/sh -c \\\"x\\ny\\\"\",\"writ\":{\"tty\":true,\"recordsInput\":false}}\n"
    );
}

#[test]
fn session_without_a_terminal_gets_a_size_that_players_accept() {
    for (columns, rows) in [(0, 0), (0, 40), (120, 0)] {
        let mut recording = Recording::new(&SessionHeader { columns, rows, tty: false, ..header() }, 9999);
        recording.resized(at(1), columns, rows);
        let lines = String::from_utf8(recording.take()).unwrap();
        assert!(lines.contains("\"term\":{\"cols\":80,\"rows\":24}") && lines.contains("\"r\",\"80x24\""), "{lines}");
    }
}

#[test]
fn long_command_is_cut_at_a_character() {
    let command = format!("x{}", "é".repeat(MAX_COMMAND_BYTES));
    let mut recording = Recording::new(&SessionHeader { command, ..header() }, 99_999);
    let lines = recording.take();
    let header: Value = serde_json::from_slice(&lines).unwrap();
    let command = header["command"].as_str().unwrap();
    assert!(command.ends_with("é...") && command.len() <= MAX_COMMAND_BYTES + 3);
}

#[test]
fn events_have_intervals_that_add_up_to_the_time() {
    let mut recording = recording(9999);
    recording.output(Duration::from_micros(1_600), Stdout, b"$ ");
    recording.input_size(Duration::from_micros(3_200), 3);
    recording.resized(Duration::from_micros(4_900), 90, 30);
    // A clock that goes back must give no negative interval.
    recording.output(at(2), Stderr, b"x");
    recording.end(at(61_004), Some(137));
    let text = String::from_utf8(recording.take()).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            r#"[0.001,"o","$ "]"#,
            r#"[0.002,"k","3"]"#,
            r#"[0.001,"r","90x30"]"#,
            r#"[0.000,"o","x"]"#,
            r#"[61.000,"x","137"]"#
        ]
    );
}

#[test]
fn end_without_an_exit_code_is_a_note() {
    let mut recording = recording(9999);
    recording.output(at(0), Stdout, b"\xe2\x82");
    recording.end(at(0), None);
    let expected = [pair("o", "\u{fffd}"), pair("m", "the session ended without an exit code")];
    assert_eq!(codes(&recording.take()), expected);
}

#[test]
fn character_between_two_pieces_stays_whole_in_each_stream() {
    let mut recording = recording(9999);
    recording.output(at(0), Stdout, b"\xe2\x82");
    recording.output(at(0), Stderr, b"\xc3");
    recording.output(at(0), Stdout, b"\xac");
    recording.output(at(0), Stderr, b"\xa9");
    recording.end(at(0), Some(0));
    assert_eq!(codes(&recording.take()), [pair("o", "€"), pair("o", "é"), pair("x", "0")]);
}

#[test]
fn recording_over_its_limit_has_one_note_and_the_exit_code() {
    let mut recording = recording(1000);
    recording.output(at(0), Stdout, &[b'a'; 400]);
    recording.output(at(10), Stdout, &[b'b'; 400]);
    recording.output(at(20), Stderr, b"small");
    recording.input_size(at(30), 1);
    recording.resized(at(40), 1, 1);
    recording.input(at(50), b"typed");
    recording.end(at(60), Some(3));
    let lines = recording.take();
    let expected = [pair("o", &"a".repeat(400)), pair("m", "the recording ends here: over 1000 bytes"), pair("x", "3")];
    assert_eq!(codes(&lines), expected);
    let times: f64 = events(&lines).iter().map(|(interval, _, _)| interval).sum();
    assert!((times - 0.06).abs() < 1e-9, "{times}");
    let summary = recording.summary();
    assert_eq!((summary.is_incomplete, summary.left_out_bytes), (true, 410));
    assert!(summary.bytes <= 1000 && summary.bytes == lines.len() as u64);
}

#[test]
fn digest_covers_all_lines_however_they_were_taken() {
    let mut recording = recording(9999);
    let mut all = recording.take();
    recording.output(at(0), Stdout, b"x");
    all.extend(recording.take());
    recording.end(at(1), Some(0));
    all.extend(recording.take());
    assert_eq!((recording.waiting(), recording.take().len()), (0, 0));
    let summary = recording.summary();
    let expected: String = Sha256::digest(&all).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((summary.bytes, summary.sha256), (all.len() as u64, expected));
    assert_eq!((summary.is_incomplete, summary.left_out_bytes), (false, 0));
}

#[test]
fn debug_output_has_no_line() {
    let mut recording = recording(9999);
    recording.input(at(0), b"hunter2");
    assert!(!format!("{recording:?}").contains("hunter2"));
}

/// An event of a session.
#[derive(Clone, Debug)]
enum Given {
    Output(Vec<u8>),
    Input(Vec<u8>),
    Size(usize),
    Resized(u16, u16),
}

fn given() -> impl Strategy<Value = Given> {
    let bytes = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[a€\u{1f600}\u{0}\"\\\\\u{1b}é]{0,20}".prop_flat_map(|text| {
                let bytes = text.into_bytes();
                (0..=bytes.len()).prop_map(move |cut| bytes[..cut].to_vec())
            }),
        ]
    };
    prop_oneof![
        4 => bytes().prop_map(Given::Output),
        1 => bytes().prop_map(Given::Input),
        1 => any::<usize>().prop_map(Given::Size),
        1 => any::<(u16, u16)>().prop_map(|(columns, rows)| Given::Resized(columns, rows)),
    ]
}

proptest! {
    #[test]
    fn any_session_is_valid_bounded_and_to_the_byte(
        session in proptest::collection::vec((any::<u32>(), given()), 0..40),
        limit in prop_oneof![600_u64..4000, Just(1 << 20)],
    ) {
        let mut recording = recording(limit);
        let (mut output, mut input, mut lines) = (Vec::new(), Vec::new(), recording.take());
        for (time, given) in &session {
            let time = at(u64::from(*time));
            match given {
                Given::Output(bytes) => {
                    output.extend_from_slice(bytes);
                    recording.output(time, Stdout, bytes);
                }
                Given::Input(bytes) => {
                    input.extend_from_slice(bytes);
                    recording.input(time, bytes);
                }
                Given::Size(bytes) => recording.input_size(time, *bytes),
                Given::Resized(columns, rows) => recording.resized(time, *columns, *rows),
            }
            lines.extend(recording.take());
        }
        recording.end(at(0), Some(7));
        lines.extend(recording.take());
        let summary = recording.summary();
        prop_assert!(lines.len() as u64 <= limit && summary.bytes == lines.len() as u64);
        let events = events(&lines);
        prop_assert!(events.iter().all(|(interval, _, _)| *interval >= 0.0));
        prop_assert_eq!(&events.last().unwrap().1, "x");
        let (shown, typed) = (data_of(&lines, "o"), data_of(&lines, "i"));
        let (all_shown, all_typed) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&input));
        if summary.is_incomplete {
            prop_assert!(all_shown.starts_with(&shown) && all_typed.starts_with(&typed));
            let notes = events.iter().filter(|(_, code, _)| code == "m").count();
            prop_assert_eq!(notes, 1);
        } else {
            prop_assert_eq!((shown.as_str(), typed.as_str()), (&*all_shown, &*all_typed));
            prop_assert_eq!(summary.left_out_bytes, 0);
        }
    }
}
