//! Live output with the real API server and sshd. The test process is the controller, because only the planned gateway
//! will let other processes watch.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use writ::api::{Phase, Reason};
use writ::cluster::{ClientOptions, Cluster, EventPublisher, Membership, OwnLease, PolicyCache, RequesterTrustChecker};
use writ::controllers::{Watches, command_execution};
use writ::output::{LiveEvent, LiveOptions, LiveOutput, Progress, StreamKind, StreamOffsets, Viewer};
use writ::runner::{FollowLimits, OutputSinks, Runner, RunnerConfig};
use writ::ssh::AddressPolicy;

use crate::case::{Case, sh};
use crate::lab::SshdOptions;
use crate::world::HOME;

/// Maximum wait for one event. A command may be slow on a busy host.
const EVENT_DEADLINE: Duration = Duration::from_secs(90);

/// Controller in this process.
struct Controller {
    live: LiveOutput,
    runner: Runner,
    stop: CancellationToken,
}

impl Controller {
    /// Starts the controller in place of the case's `writ serve`.
    async fn start(case: &mut Case) -> Self {
        case.kill_writ();
        let options = ClientOptions {
            kubeconfig: Some(case.kubeconfig.clone()),
            namespaces: vec![case.namespace.clone()],
            own_namespace: Some(HOME.to_owned()),
            is_person: false,
        };
        let cluster = Cluster::connect(&options).await.expect("a client");
        cluster.check_access().await.expect("the rights of the chart");
        let holder = format!("writ-live-{}", case.namespace);
        let own = OwnLease { namespace: HOME, name: &holder, duration: Duration::from_secs(15), address: None };
        let holders = Arc::new(Membership::join(&cluster, own).await.expect("a Lease"));
        let keeping = Arc::clone(&holders);
        tokio::spawn(async move { keeping.run().await });
        let (events, _publishing) = EventPublisher::start(&cluster, &holder);
        let stamping = RequesterTrustChecker::new(cluster.clone(), Duration::from_secs(60));
        let policies = Arc::new(PolicyCache::new(cluster.clone(), false));
        let live = LiveOutput::start(&spill(case)).expect("a directory for spill files");
        let loopback = ["127.0.0.0/8", "127.0.0.1/32"].map(|range| range.parse().expect("a range"));
        let (runner, wakes, _machines) = Runner::new(RunnerConfig {
            cluster: cluster.clone(),
            policies: Arc::clone(&policies),
            stamping: stamping.clone(),
            events: events.clone(),
            holders: Arc::clone(&holders),
            outputs: OutputSinks { live: live.clone(), store: None },
            spool: None,
            limits: FollowLimits {
                unreachable: Duration::from_secs(60),
                stop: Duration::from_secs(60),
                idle: Duration::from_secs(60),
            },
            network: AddressPolicy::new(loopback.to_vec(), Vec::new(), cluster.addresses().await),
        });
        let stop = CancellationToken::new();
        let (watches, follow) = Watches::new(&cluster);
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
        let context = command_execution::Context {
            cluster,
            policies,
            stamping,
            runner: runner.clone(),
            holders,
            events,
            grace_for_missing: Duration::from_secs(1),
        };
        tokio::spawn(command_execution::run(context, watches, wakes, stop.clone()));
        Self { live, runner, stop }
    }

    async fn end(self) {
        self.runner.shut_down(Duration::from_secs(30)).await;
        self.stop.cancel();
    }
}

fn spill(case: &Case) -> LiveOptions {
    LiveOptions { directory: case.folder().join("spill"), spill_bytes: 64 << 20 }
}

async fn next(viewer: &mut Viewer) -> LiveEvent {
    let event = tokio::time::timeout(EVENT_DEADLINE, viewer.next()).await.expect("an event in time");
    event.expect("an event")
}

/// Follows an execution from before its creation to its stored result.
async fn follow_one(mode: &str) {
    let mut case = Case::with(crate::world::world(), SshdOptions::default(), &[]).await;
    let controller = Controller::start(&mut case).await;
    case.apply_machine("web-1", json!({"execution": {"mode": mode}})).await;
    case.apply_whitelist("line", json!([sh("line", "seq 1 200000; seq 1 20 >&2; sleep 1; echo end")])).await;
    let mut viewer =
        controller.live.subscribe(&case.namespace, "followed", StreamOffsets::default()).expect("a viewer");
    assert!(tokio::time::timeout(Duration::from_millis(200), viewer.next()).await.is_err(), "it does not exist yet");
    let created = case.execute("followed", "line").await;
    let LiveEvent::Claimed { uid, is_adopted: false } = next(&mut viewer).await else { panic!("{mode}: Claimed") };
    assert_eq!(Some(&uid), created.metadata.uid.as_ref());
    let mut late = controller.live.subscribe_uid(&uid, StreamOffsets::default()).expect("by its UID");
    assert_eq!(next(&mut viewer).await, LiveEvent::Started, "{mode}");
    let (mut digests, mut lengths) = ([Sha256::new(), Sha256::new()], [0; 2]);
    let ended = loop {
        match next(&mut viewer).await {
            LiveEvent::Output { stream, offset, bytes } => {
                let stream = usize::from(stream == StreamKind::Stderr);
                assert_eq!(offset, lengths[stream], "{mode}");
                lengths[stream] += bytes.len() as u64;
                digests[stream].update(&bytes);
            }
            LiveEvent::Ended(ended) => break ended,
            other => panic!("{mode}: {other:?}"),
        }
    };
    // The result is stored before its event arrives.
    let stored = case.executions().get("followed").await.expect("the execution").status.expect("a status");
    assert_eq!((stored.phase, stored.reason), (Phase::Succeeded, Some(Reason::Completed)), "{:?}", stored.message);
    assert_eq!((ended.phase, ended.exit_code), (stored.phase, Some(0)));
    let output = stored.output.expect("a record of the output");
    for (record, (digest, length)) in [&output.stdout, &output.stderr].into_iter().zip(digests.into_iter().zip(lengths))
    {
        let sha256: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&sha256, length as i64), (&record.sha256, record.bytes), "{mode}");
    }
    assert_eq!(viewer.next().await, None);
    assert!(matches!(next(&mut late).await, LiveEvent::Claimed { .. }));
    drop((viewer, late));
    let is_empty = || std::fs::read_dir(spill(&case).directory).expect("the directory").next().is_none();
    let deleted = async {
        while !is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(EVENT_DEADLINE, deleted).await.expect("the spill files are deleted after the end");
    controller.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_follows_a_direct_execution_from_before_its_creation() {
    follow_one("Direct").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_follows_a_durable_execution_from_before_its_creation() {
    follow_one("Durable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_receives_progress_and_unchanged_output() {
    let mut case = Case::with(crate::world::world(), SshdOptions::default(), &[]).await;
    let controller = Controller::start(&mut case).await;
    case.apply_machine("web-1", json!({})).await;
    let line = "printf 'Unpacking web (1.2) ...\\n45%% of it'; sleep 2; printf '\\rcopying  9%%'; sleep 2; echo ' end'";
    case.apply_whitelist("copy", json!([sh("copy", line)])).await;
    let mut viewer = controller.live.subscribe(&case.namespace, "copied", StreamOffsets::default()).expect("a viewer");
    case.execute("copied", "copy").await;
    let (mut reports, mut output) = (Vec::new(), Vec::new());
    let ended = loop {
        match next(&mut viewer).await {
            LiveEvent::Progress(progress) => reports.push(progress),
            LiveEvent::Output { bytes, .. } => output.extend_from_slice(&bytes),
            LiveEvent::Ended(ended) => break ended,
            _ => {}
        }
    };
    assert_eq!(ended.phase, Phase::Succeeded);
    assert_eq!(String::from_utf8_lossy(&output), "Unpacking web (1.2) ...\n45% of it\rcopying  9% end\n");
    // The machine may be slow enough for both parts to arrive together. The viewer then receives the last report only.
    assert_eq!(reports.last(), Some(&Progress { percent: Some(9), label: "copying".to_owned() }), "{reports:?}");
    controller.end().await;
}
