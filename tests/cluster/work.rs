//! Commands that say on the machine, by themselves, that they were started and what they wrote: an oracle that knows
//! nothing of Writ.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::Sshd;

/// `work ID BYTES SECONDS CODE`: notes that it was started, writes so many random bytes in four pieces over so many
/// seconds, and a line of standard error, then ends with the code.
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

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Work {
    pub id: String,
    pub bytes: u64,
    /// Between the pieces.
    pub seconds: String,
    pub code: u8,
}

impl Work {
    pub fn command(&self) -> String {
        format!("work {} {} {} {}", self.id, self.bytes, self.seconds, self.code)
    }
}

/// Puts the program on a machine, and gives the rule that allows it.
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

/// A rule that runs a script by its name. It is put on the machine: a rule's own text may hold neither quotes nor backslashes.
pub fn script(sshd: &Sshd, name: &str, text: &str) -> Value {
    let program = sshd.home().join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("a script on the machine");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    json!({"name": name, "match": name, "run": [program]})
}

/// The ids of what was started on a machine, in order, as the commands themselves noted it.
pub fn started(sshd: &Sshd) -> Vec<String> {
    let text = std::fs::read_to_string(sshd.home().join("started")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Holds the record of one against what is on the machine.
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

/// Where the launcher keeps its files.
pub fn directory(sshd: &Sshd) -> PathBuf {
    sshd.home().join(".local/state/writ")
}

/// Files of output on the machine whose results have not been acknowledged.
pub fn outputs_left(sshd: &Sshd) -> Vec<String> {
    let entries = std::fs::read_dir(directory(sshd)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".o") || name.ends_with(".e")).collect()
}
