//! A controller with a wrong clock, or with a clock that is set while the controller runs. Ages and times come from the
//! clock of the API server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use serde_json::json;
use writ::api::{CommandExecution, ExecutionMode, Phase, Reason};

use crate::case::Case;
use crate::keys::{Keys, options_with};
use crate::lab::SshdOptions;
use crate::lab::packages::Package;
use crate::operation::{get, metric, port};
use crate::proxy::Proxy;

/// Maximum wait for an expected event. The machine also runs other tests.
const PATIENCE: Duration = Duration::from_secs(90);
const LISTENING: [&str; 4] = ["--listen-operations", "127.0.0.1:0", "--lease-seconds", "3"];
/// Maximum difference between two readings of the API server's clock. The API server uses the clock of this host.
const NEAR: SignedDuration = SignedDuration::from_secs(30);

/// Returns the path of libfaketime. Installs it if it is missing.
fn libfaketime() -> PathBuf {
    let package = Package::named("faketime", "libfaketime", "libfaketime");
    let [_] = package.find_or_install(["faketime"]).expect("faketime");
    let mut folders: Vec<PathBuf> = ["/usr/lib", "/usr/lib64"].map(PathBuf::from).to_vec();
    folders.extend(std::fs::read_dir("/usr/lib").expect("a folder").flatten().map(|entry| entry.path()));
    let libraries = folders.iter().map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists()).expect("libfaketimeMT.so.1 of the package")
}

/// A case whose `writ serve` has a wrong clock, which a test can set while the process runs.
struct Skewed {
    case: Case,
    file: PathBuf,
}

impl Skewed {
    /// Starts `writ serve` with a clock that differs by `offset`, for example `+10m`.
    async fn by(offset: &str, options: SshdOptions) -> Self {
        let mut case = Case::durable_with(options, &LISTENING).await;
        let file = Path::new(&case.store()).with_file_name("offset");
        let skewed = |file: &Path| {
            [
                ("LD_PRELOAD", libfaketime().display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ]
        };
        std::fs::write(&file, offset).expect("a file");
        case.kill_writ();
        case.environment.extend(skewed(&file).map(|(name, value)| (name.to_owned(), value)));
        let log = case.whole_log().len();
        case.start_writ();
        let started = Instant::now();
        while !case.whole_log()[log..].contains("writ serves") {
            assert!(started.elapsed() < PATIENCE && case.writ_runs(), "writ does not start:\n{}", case.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { case, file }
    }

    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset).expect("a file");
        std::fs::rename(&new, &self.file).expect("a file");
    }

    /// Waits until the metric reports a clock offset of this many seconds, within 2 s.
    async fn measures(&self, seconds: f64) {
        let (port, started) = (port(&self.case), Instant::now());
        loop {
            let offset = metric(port, "writ_clock_offset_seconds", "").await;
            if (offset - seconds).abs() < 2.0 {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it measures {offset} s\n{}", self.case.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Checks that events have the API server's time.
    async fn events_are_in_time(&self) {
        let api: kube::Api<Event> = kube::Api::namespaced(self.case.client.clone(), &self.case.namespace);
        let started = Instant::now();
        let events = loop {
            let events = api.list(&kube::api::ListParams::default()).await.expect("events").items;
            if !events.is_empty() {
                break events;
            }
            assert!(started.elapsed() < PATIENCE, "no event comes\n{}", self.case.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        for event in events {
            let (time, created) =
                (event.event_time.expect("a time").0, event.metadata.creation_timestamp.expect("a time").0);
            assert!(time.duration_since(created).abs() < NEAR, "{time} {created}");
        }
    }

    /// Returns an execution. Checks that its times are in order and near the true times.
    async fn in_order(&self, name: &str) -> CommandExecution {
        let execution = self.case.executions().get(name).await.expect("it is there");
        let created = execution.metadata.creation_timestamp.clone().expect("a time").0;
        let status = execution.status.clone().expect("a status");
        let claim = status.claim.expect("a claim");
        let times = [
            ("creationTimestamp", created),
            ("dispatchedTime", claim.dispatched_time.0),
            ("startTime", status.start_time.expect("a start").0),
            ("completionTime", status.completion_time.expect("an end").0),
        ];
        assert!(times.is_sorted_by_key(|(_, time)| *time), "{name}: {times:?}");
        let decided = status.decision.expect("a decision").decided_time.0;
        let transitions = status.conditions.iter().map(|condition| condition.last_transition_time.0);
        for time in times.map(|(_, time)| time).into_iter().chain(transitions).chain([decided]) {
            assert!(Timestamp::now().duration_since(time).abs() < NEAR, "{name}: {time} is not near\n{times:?}");
        }
        execution
    }

    /// Checks that commands run in both modes with the API server's times. Checks also that deadlines and retention
    /// hold.
    async fn works(&self, name: &str) {
        let case = &self.case;
        let durable = format!("{name}-durable");
        case.execute_with(&durable, json!({"command": "say hello", "startingDeadlineSeconds": 120})).await;
        case.execute(&format!("{name}-default"), "sleep-one").await;
        let short = json!({"command": "say hello", "startingDeadlineSeconds": 0, "ttlSecondsAfterFinished": 3600});
        case.execute_with(&format!("{name}-now"), short).await;
        let direct = json!({"command": "sleep-one", "machineRef": {"name": "direct"}, "startingDeadlineSeconds": 60});
        case.execute_with(&format!("{name}-direct"), direct).await;
        for kind in ["durable", "default", "now", "direct"] {
            let name = format!("{name}-{kind}");
            case.ends(&name, Phase::Succeeded, Reason::Completed).await;
            self.in_order(&name).await;
        }
        // Writ sends the latest start as an uptime of the machine. The remaining time until then is right.
        let status = self.in_order(&durable).await.status.expect("a status");
        let (claim, remote) = (status.claim.expect("a claim"), status.remote.expect("a record"));
        assert_eq!(claim.mode, ExecutionMode::Durable);
        let may_wait = claim.not_after_time.expect("a time").0.duration_since(claim.dispatched_time.0);
        assert!(may_wait > SignedDuration::from_secs(60) && may_wait <= SignedDuration::from_secs(121), "{may_wait}");
        let uptime = std::fs::read_to_string("/proc/uptime").expect("an uptime");
        let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok()).expect("seconds");
        let left = remote.not_after_uptime_ms / 1000 - uptime;
        assert!((60..=121).contains(&left), "{left} s are left");
        // Writ deletes an execution when its TTL expires, and not before.
        assert!(case.executions().get_opt(&format!("{name}-now")).await.expect("an answer").is_some());
        let gone = format!("{name}-gone");
        case.execute_with(&gone, json!({"command": "say hello", "ttlSecondsAfterFinished": 1})).await;
        case.gone(&gone).await;
        // A starting deadline ends at the right time.
        let late = format!("{name}-late");
        let spec = json!({"command": "say hello", "machineRef": {"name": "away"}, "startingDeadlineSeconds": 3});
        let began = Instant::now();
        case.execute_with(&late, spec).await;
        let expired = case.finished(&late).await;
        assert_eq!(expired.phase, Phase::Expired);
        assert!(began.elapsed() > Duration::from_secs(1), "it expired after {:?}", began.elapsed());
    }

    /// Applies a Machine for each mode, and a suspended one. The first two have a host key.
    async fn prepare(&self, host_key: &str) {
        let durable = json!({"execution": {"mode": "Durable"}, "maxConcurrent": 16, "hostKeys": [host_key]});
        self.case.apply_machine("web-1", durable).await;
        self.case.apply_machine("direct", json!({"hostKeys": [host_key]})).await;
        self.case.apply_machine("away", json!({"suspend": true})).await;
    }
}

#[tokio::test]
async fn a_controller_whose_clock_is_ten_minutes_off_runs_commands_and_says_so() {
    for (offset, seconds, side) in [("+10m", 600.0, "ahead of"), ("-10m", -600.0, "behind")] {
        // The certificate of this host is valid for five minutes before and after this moment.
        let keys = Keys::new();
        let (host, _) = (keys.make("host", "-t ed25519"), keys.make("authority", "-t ed25519"));
        let certificate = keys.sign("authority", "host", "c", "-h -n 127.0.0.1 -V -5m:+5m");
        let skewed = Skewed::by(offset, options_with(&[&host], &[&certificate])).await;
        skewed.prepare(&keys.line("host")).await;
        let authorities = json!({"hostKeys": [], "hostKeyAuthorities": [keys.line("authority")]});
        skewed.case.apply_machine("signed", authorities).await;
        skewed.case.execute_with("signed", json!({"command": "say hello", "machineRef": {"name": "signed"}})).await;
        skewed.case.ends("signed", Phase::Succeeded, Reason::Completed).await;
        skewed.works("x").await;
        skewed.events_are_in_time().await;
        skewed.measures(seconds).await;
        let log = skewed.case.whole_log();
        let warnings = log.lines().filter(|line| line.contains("the clock of this host differs from the API server's"));
        let warnings: Vec<&str> = warnings.collect();
        assert!(!warnings.is_empty() && warnings.len() <= 3, "{warnings:?}");
        assert!(warnings[0].contains("own_clock") && warnings[0].contains("api_server_clock"), "{warnings:?}");
        let (ready, body) = get(port(&skewed.case), "/readyz").await;
        assert_eq!(ready, 200, "{body}");
        let line = body.lines().find(|line| line.contains("clock:")).expect("a line about the clock");
        assert!(line.contains(side) && line.contains("the API server's clock counts"), "{line}");
    }
}

/// Writ reads the API server's clock from the objects that the API server writes. A proxy can change only a header.
#[tokio::test]
async fn a_proxy_that_puts_another_time_into_answers_changes_nothing() {
    let mut case = Case::durable_with(SshdOptions::default(), &LISTENING).await;
    let proxy = Proxy::start(&case.world, Vec::new()).await;
    for (name, date) in [("before", "Mon, 01 Jan 2001 00:00:00 GMT"), ("after", "Fri, 01 Jan 2100 00:00:00 GMT")] {
        proxy.says_that_it_is(date);
        let log = case.whole_log().len();
        case.restart_writ_through(proxy.port);
        let started = Instant::now();
        while !case.whole_log()[log..].contains("writ serves") {
            assert!(started.elapsed() < PATIENCE && case.writ_runs(), "writ does not start:\n{}", case.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for number in 0..8 {
            let name = format!("{name}-{number}");
            case.execute_with(&name, json!({"command": "say hello", "startingDeadlineSeconds": 60})).await;
            let status = case.ends(&name, Phase::Succeeded, Reason::Completed).await;
            let ended = status.completion_time.expect("an end").0;
            assert!(Timestamp::now().duration_since(ended).abs() < NEAR, "{name}: {ended}");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert!(metric(port(&case), "writ_clock_offset_seconds", "").await.abs() < 5.0);
    }
}

#[tokio::test]
async fn a_clock_that_is_set_while_it_runs_changes_nothing() {
    let skewed = Skewed::by("+0", SshdOptions::default()).await;
    skewed.prepare(&skewed.case.sshd.host_key().expect("a key")).await;
    let case = &skewed.case;
    let port = port(case);
    // A queued execution and a finished one with a TTL. Both must survive the changes of the clock.
    case.execute_with(
        "waits",
        json!({"command": "say hello", "machineRef": {"name": "away"}, "startingDeadlineSeconds": 900}),
    )
    .await;
    case.execute_with("kept", json!({"command": "say hello", "ttlSecondsAfterFinished": 1800})).await;
    case.ends("kept", Phase::Succeeded, Reason::Completed).await;
    case.in_phase("waits", Phase::Queued).await;
    for (name, offset, seconds) in [("ahead", "+3600", 3600.0), ("behind", "-3600", -3600.0)] {
        case.execute(&format!("{name}-across"), "sleep-eight").await;
        case.in_phase(&format!("{name}-across"), Phase::Running).await;
        let gaps = metric(port, "writ_lease_gaps_total", "").await;
        skewed.set(offset);
        skewed.measures(seconds).await;
        case.ends(&format!("{name}-across"), Phase::Succeeded, Reason::Completed).await;
        skewed.in_order(&format!("{name}-across")).await;
        skewed.works(name).await;
        assert_eq!(metric(port, "writ_lease_gaps_total", "").await, gaps, "the step was taken for a lost Lease");
        assert_eq!(case.in_phase("waits", Phase::Queued).await.phase, Phase::Queued);
        assert!(case.executions().get_opt("kept").await.expect("an answer").is_some());
    }
}
