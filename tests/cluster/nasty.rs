//! Commands with difficult behaviour, in Durable mode. Each test checks that the status matches the facts.

use serde_json::{Value, json};
use writ::api::execution_status::{Encoding, IncompleteReason};
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::processes;
use crate::work::script;

/// Runs a line of sh on the machine of a case.
async fn run(case: &Case, name: &str, line: &str) -> CommandExecutionStatus {
    run_rule(case, script(&case.sshd, name, line)).await
}

async fn run_rule(case: &Case, rule: Value) -> CommandExecutionStatus {
    let name = rule["name"].as_str().expect("a name").to_owned();
    case.apply_whitelist(&name, json!([rule])).await;
    case.execute(&name, &name).await;
    case.finished(&name).await
}

fn verdict(status: &CommandExecutionStatus) -> (Phase, Option<Reason>, Option<i64>, Option<&str>) {
    (status.phase, status.reason, status.exit_code, status.signal.as_deref())
}

#[tokio::test]
async fn exit_codes_are_the_commands_own() {
    let case = Case::durable().await;
    for code in [1, 2, 126, 127, 128, 129, 137, 143, 254, 255] {
        let status = run(&case, &format!("exit-{code}"), &format!("exit {code}")).await;
        let expected = (Phase::Failed, Some(Reason::NonZeroExitCode), Some(code), None);
        assert_eq!(verdict(&status), expected, "{:?}", status.message);
    }
}

#[tokio::test]
async fn a_signal_is_told_as_one_or_as_the_exit_code_that_a_shell_makes_of_it() {
    let case = Case::durable().await;
    for (signal, number) in
        [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("HUP", 1), ("INT", 2), ("PIPE", 13), ("USR1", 10)]
    {
        let name = format!("dies-of-{}", signal.to_lowercase());
        let status = run(&case, &name, &format!("kill -{signal} $$; sleep 1")).await;
        assert_eq!(status.phase, Phase::Failed, "{status:?}");
        match (&status.signal, status.exit_code) {
            (Some(told), None) => assert_eq!(told, signal),
            (None, Some(code)) => assert_eq!(code, 128 + number, "{signal}"),
            other => panic!("{signal}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_waited_for() {
    let case = Case::durable().await;
    let status = run(&case, "closes", "echo before; exec >&- 2>&-; sleep 1; exit 5").await;
    assert_eq!(verdict(&status), (Phase::Failed, Some(Reason::NonZeroExitCode), Some(5), None));
    assert_eq!(status.stdout.as_deref(), Some("before\n"));
}

#[tokio::test]
async fn a_command_that_leaves_processes_behind_has_ended_when_it_has_ended() {
    let case = Case::durable().await;
    let status = run(&case, "leaves", "(sleep 300; echo late) & echo done").await;
    assert_eq!(verdict(&status), (Phase::Succeeded, Some(Reason::Completed), Some(0), None));
    assert_eq!(status.stdout.as_deref(), Some("done\n"));
}

/// The record says that output may be missing, gives the reason, and names the process that holds the output. The next
/// execution runs.
#[tokio::test]
async fn an_output_that_a_service_keeps_is_incomplete_and_names_the_service() {
    let case = Case::durable().await;
    let mut rule = script(&case.sshd, "starts-service", "sleep 30 & echo started; exit 0");
    rule["output"] = json!({"drainSeconds": 1});
    let status = run_rule(&case, rule).await;
    assert_eq!(verdict(&status), (Phase::Succeeded, Some(Reason::Completed), Some(0), None));
    let output = status.output.clone().expect("a record");
    assert_eq!((output.incomplete, output.incomplete_reason), (true, Some(IncompleteReason::StillOpen)), "{status:?}");
    let [holder] = output.held_by.as_slice() else { panic!("{output:?}") };
    assert_eq!(holder.name, "sleep");
    let named = format!("sleep ({})", holder.process_id);
    assert!(status.message.as_deref().is_some_and(|message| message.contains(&named)), "{status:?}");
    assert!(std::fs::read_dir(format!("/proc/{}", holder.process_id)).is_ok(), "it lives on");
    let status = run(&case, "next", "echo hello").await;
    assert_eq!((status.phase, status.stdout.as_deref()), (Phase::Succeeded, Some("hello\n")));
    assert!(!status.output.expect("a record").incomplete);
}

/// A filter that the command started writes after the command's exit. These bytes are output.
#[tokio::test]
async fn a_command_that_writes_through_tee_is_recorded_whole() {
    let case = Case::durable().await;
    let line = "exec bash -c 'exec > >(sleep 0.3; cat) 2>&1; echo step 1; echo ERROR: disk full; exit 3'";
    let status = run(&case, "deploys", line).await;
    assert_eq!(verdict(&status), (Phase::Failed, Some(Reason::NonZeroExitCode), Some(3), None));
    assert_eq!(status.stdout.as_deref(), Some("step 1\nERROR: disk full\n"));
    assert!(!status.output.expect("a record").incomplete);
}

#[tokio::test]
async fn every_byte_value_comes_through() {
    let case = Case::durable().await;
    let line = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
    let status = run(&case, "bytes", line).await;
    let output = status.output.as_ref().expect("a record").stdout.clone();
    assert_eq!((status.phase, output.bytes, output.encoding), (Phase::Succeeded, 256, Encoding::Base64), "{status:?}");
    // SHA-256 of the bytes 0 to 255 in order.
    assert_eq!(output.sha256, "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880");
}

#[tokio::test]
async fn a_command_that_kills_its_own_group_is_seen_to() {
    let case = Case::durable().await;
    let status = run(&case, "kills-group", "kill -9 0; sleep 1").await;
    assert_eq!(status.phase, Phase::Failed, "{status:?}");
    assert!(status.signal.as_deref() == Some("KILL") || status.exit_code == Some(137), "{status:?}");
}

#[tokio::test]
async fn a_command_that_writes_too_much_is_stopped() {
    let case = Case::durable().await;
    let mut rule = script(&case.sshd, "floods", "yes");
    rule["output"] = json!({"maximumBytes": 1_000_000});
    rule["timeoutSeconds"] = json!({"default": 120, "maximum": 600});
    let status = run_rule(&case, rule).await;
    assert_eq!((status.phase, status.reason), (Phase::Failed, Some(Reason::OutputLimitExceeded)), "{status:?}");
    assert_eq!(status.output.expect("a record").stdout.bytes, 1_000_000, "cut at the limit");
}

#[tokio::test]
async fn sixteen_mebibytes_come_through_byte_for_byte() {
    let case = Case::durable().await;
    let line = "head -c 16777216 /dev/zero | tr '\\0' x";
    let status = run(&case, "much", line).await;
    let output = status.output.as_ref().expect("a record");
    assert_eq!((status.phase, output.stdout.bytes, output.incomplete), (Phase::Succeeded, 16_777_216, false));
    // `head -c 16777216 /dev/zero | tr '\0' x | sha256sum`
    assert_eq!(output.stdout.sha256, DIGEST_OF_X);
}

const DIGEST_OF_X: &str = "a06c26cbac8b80704f420222dae5658b88ff2da96702d12ef7a4223e9361f7c1";

#[tokio::test]
async fn what_writes_to_its_output_by_name_loses_nothing_that_was_written_before() {
    let case = Case::durable().await;
    let status = run(&case, "by-name", "echo one; echo two > /dev/stdout || echo refused; echo three").await;
    let stdout = status.stdout.expect("output");
    assert!(stdout.starts_with("one\n") && stdout.ends_with("three\n"), "{stdout}");
}

#[tokio::test]
async fn a_stopped_command_is_ended_at_its_time() {
    let case = Case::durable().await;
    let mut rule = script(&case.sshd, "stops-itself", "kill -STOP $$; echo never");
    rule["timeoutSeconds"] = json!({"default": 3, "maximum": 3});
    let status = run_rule(&case, rule).await;
    assert_eq!((status.phase, status.reason), (Phase::TimedOut, Some(Reason::Stopped)), "{status:?}");
    let uid = case.executions().get("stops-itself").await.expect("it is there").metadata.uid.expect("a UID");
    assert_eq!(processes::marked("WRIT_EXECUTION", &uid), Vec::<u32>::new());
}

#[tokio::test]
async fn the_environment_of_a_command_is_the_one_that_it_has_in_direct_mode() {
    let case = Case::durable().await;
    // Not SigQ: it counts the signals queued for the whole user, and other tests run as the same user.
    let line = "env | grep -v '^WRIT_EXECUTION=' | LC_ALL=C sort; pwd; umask; ls -l /proc/self/fd | wc -l; \
                grep 'Sig[BIC]' /proc/self/status";
    let durable = run(&case, "looks", line).await;
    case.apply_machine("web-1", json!({})).await;
    case.execute("direct", "looks").await;
    let direct = case.finished("direct").await;
    let comparable = |status: &CommandExecutionStatus| {
        let text = status.stdout.clone().unwrap_or_default();
        // These variables differ for each connection.
        let is_of_the_session =
            |line: &str| line.starts_with("SSH_") || line.starts_with("_=") || line.starts_with("OLDPWD=");
        text.lines().filter(|line| !is_of_the_session(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(comparable(&durable), comparable(&direct));
}

/// Small file system, unmounted on drop.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(case: &Case) -> Self {
        let path = case.sshd.home().join("small");
        std::fs::create_dir(&path).expect("a folder");
        let options = format!("size=256k,mode=0700,uid={0},gid={0}", id_of(case.sshd.user()));
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path);
        assert!(mount.status().expect("mount").success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn id_of(user: &str) -> String {
    let output = std::process::Command::new("id").args(["-u", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_command_that_fills_the_disk_is_recorded_as_such_and_the_next_one_is_not_started() {
    if !crate::lab::openssh::is_root() {
        crate::lab::say::note("this needs root, for a small disk: passed over");
        return;
    }
    let case = Case::durable().await;
    let disk = SmallDisk::mount(&case);
    let execution = json!({"mode": "Durable", "directory": disk.0.canonicalize().expect("a path")});
    case.apply_machine("web-1", json!({"execution": execution})).await;
    let status = run(&case, "fills", "head -c 1000000 /dev/zero || exit 9").await;
    // The command writes into a pipe that the launcher always reads, so the command does not notice the full disk. The
    // record reports it.
    assert_eq!(verdict(&status), (Phase::Succeeded, Some(Reason::Completed), Some(0), None), "{status:?}");
    assert!(status.message.as_ref().is_some_and(|message| message.contains("full")), "{status:?}");
    let output = status.output.expect("a record");
    assert!(output.incomplete && output.stdout.bytes < 262_144, "{output:?}");
    let kept = || {
        std::fs::read_dir(&disk.0)
            .expect("a folder")
            .flatten()
            .any(|entry| entry.path().extension() == Some("o".as_ref()))
    };
    while kept() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // A removed file occupies space until the last process that has it open has ended.
    let mut full = 0;
    while full < 5 {
        let mut rest = std::fs::OpenOptions::new().create(true).append(true).open(disk.0.join("rest")).expect("a file");
        let written = std::io::Write::write_all(&mut rest, &[0; 4096]);
        full = if written.is_ok() { 0 } else { full + 1 };
        if full > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let status = run(&case, "next", "echo started").await;
    assert_eq!((status.phase, status.reason), (Phase::LaunchFailed, Some(Reason::LauncherFailed)), "{status:?}");
    assert!(status.message.expect("a message").contains("full"));
}

#[tokio::test]
async fn a_command_that_says_nothing_for_a_while_is_waited_for() {
    let case = Case::durable().await;
    let status = run(&case, "silent", "sleep 7; echo at last").await;
    assert_eq!(verdict(&status), (Phase::Succeeded, Some(Reason::Completed), Some(0), None));
    assert_eq!(status.stdout.as_deref(), Some("at last\n"));
}
