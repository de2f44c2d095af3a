//! Commands that record on the machine that they started and what they wrote. The tests compare these records with
//! Writ's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::Sshd;

/// `work ID BYTES SECONDS CODE`: records its start and writes BYTES random bytes in four pieces. It sleeps for SECONDS
/// after each piece. Then it writes a line to standard error and exits with CODE.
const PROGRAM: &str = r#"#!/bin/sh
echo "$1" >> "$HOME/started"
head -c "$2" /dev/urandom > "$HOME/out.$1"
quarter=$(( $2 / 4 + 1 ))
for piece in 0 1 2 3; do
    tail -c "+$(( piece * quarter + 1 ))" "$HOME/out.$1" | head -c "$quarter"
    sleep "$3"
done
echo "$1 is done" >&2
exit "$4"
"#;

/// One run of the program.
#[derive(Clone, Debug)]
pub struct Work {
    pub id: String,
    pub bytes: u64,
    /// Pause after each piece, in seconds.
    pub seconds: String,
    pub code: u8,
}

impl Work {
    pub fn command(&self) -> String {
        format!("work {} {} {} {}", self.id, self.bytes, self.seconds, self.code)
    }
}

/// Installs the program on a machine, and returns the rule that allows it.
pub fn rule(sshd: &Sshd) -> Value {
    let program = sshd.home().join("work");
    std::fs::write(&program, PROGRAM).expect("a program on the machine");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    json!({
        "name": "work", "match": "work {id} {bytes} {seconds} {code}",
        "run": [program, "{id}", "{bytes}", "{seconds}", "{code}"],
        "parameters": {
            "id": {"pattern": "[a-z0-9][a-z0-9.]*"}, "bytes": {"integer": {"minimum": 0, "maximum": 1_000_000_000}},
            "seconds": {"pattern": "[0-9]{1,2}([.][0-9]{1,3})?"}, "code": {"integer": {"minimum": 0, "maximum": 255}},
        },
        "timeoutSeconds": {"default": 120, "maximum": 600},
    })
}

/// Installs a script on a machine, and returns the rule that runs it by its name. The text is in a file, because a rule
/// may contain neither quotes nor backslashes.
pub fn script(sshd: &Sshd, name: &str, text: &str) -> Value {
    let program = sshd.home().join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("a script on the machine");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    json!({"name": name, "match": name, "run": [program]})
}

/// Returns the IDs of the commands that started on a machine, in order, as the commands recorded them.
pub fn started(sshd: &Sshd) -> Vec<String> {
    let text = std::fs::read_to_string(sshd.home().join("started")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Compares the record of one run with the files on the machine.
#[track_caller]
pub fn check(case: &Case, work: &Work, status: &CommandExecutionStatus) {
    let said = format!("{work:?}: {status:?}\n{}", case.log());
    let starts = started(&case.sshd).iter().filter(|id| **id == work.id).count();
    assert_eq!(starts, 1, "{said}");
    let expected = match work.code {
        0 => (Phase::Succeeded, Some(Reason::Completed)),
        _ => (Phase::Failed, Some(Reason::NonZeroExitCode)),
    };
    assert_eq!((status.phase, status.reason), expected, "{said}");
    assert_eq!(status.exit_code, Some(i64::from(work.code)), "{said}");
    let written = std::fs::read(case.sshd.home().join(format!("out.{}", work.id))).expect("what it wrote");
    let output = status.output.as_ref().expect("a record of the output");
    let bytes = usize::try_from(output.stdout.bytes).expect("a size");
    assert_eq!((bytes, &output.stdout.sha256), (written.len(), &hex(&Sha256::digest(&written))), "{said}");
    assert_eq!(status.stderr.as_deref(), Some(format!("{} is done\n", work.id).as_str()), "{said}");
    assert!(!output.incomplete, "{said}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the directory of the launcher's files.
pub fn directory(sshd: &Sshd) -> PathBuf {
    sshd.home().join(".local/state/writ")
}

/// Returns the output files on the machine whose results are not acknowledged.
pub fn outputs_left(sshd: &Sshd) -> Vec<String> {
    let entries = std::fs::read_dir(directory(sshd)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".o") || name.ends_with(".e")).collect()
}
