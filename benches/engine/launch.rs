//! Measures the duration of a short command in Durable mode. The comparison is a plain exec request on the same
//! connection.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use uuid::Uuid;
use writ::api::execution_status::DecisionRecord;
use writ::api::{CommandExecutionSpec, Whitelist};
use writ::launcher::{self, Answer, ExecRequest, Launch, LauncherFacts, Nonce, Reply, ReplyEvent, Uid};
use writ::policy::{self, Identity, Request, RuleSet, Verdict};
use writ::ssh::{
    self, AddressPolicy, ConnectError, Connection, Credentials, HostKeyConfig, HostKeyVerifier, Session,
    SessionEvent as Event, Target,
};

use crate::lab::Sshd;
use crate::measure::{Row, Target as Bound, p50, shown};
use crate::site::sshd;
use crate::world::World;

const DEADLINE: Duration = Duration::from_secs(10);
/// Number of samples of each [`Way`], one command at a time.
const ALONE: usize = 400;
/// Number of lanes. A lane is a task that runs commands one after another. All lanes run concurrently and share two
/// connections.
const LANES: usize = 8;
/// Number of turns. In each turn, the lanes measure every way.
const TURNS: usize = 12;
/// Number of samples per way, lane and turn.
const IN_A_TURN: usize = 12;
const WAYS: [Way; 4] = [Way::Bare, Way::Plain, Way::FirstEdition, Way::Durable];
/// Command with 1 GiB of output.
const BULK: [&str; 4] = ["/usr/bin/head", "-c", "1073741824", "/dev/zero"];
const BULK_BYTES: u64 = 1 << 30;
const BULK_TURNS: usize = 5;
/// Request of the launcher's first edition for the command `true`. Writ sent exactly this text until November 2026.
const FIRST_EDITION: &str = include_str!("first-edition.txt");

#[derive(Clone, Copy)]
enum Way {
    /// A plain exec request for `/bin/true`.
    Bare,
    /// A plain exec request for `/bin/true`, as in Direct mode. It clears the same environment variables as the
    /// launcher.
    Plain,
    /// `/bin/true`, run by the first edition of the launcher, for comparison.
    FirstEdition,
    /// `/bin/true`, run by the launcher.
    Durable,
}

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let bench = Bench::new(&sshd).await;
    for way in WAYS.into_iter().cycle().take(30) {
        bench.once(0, way).await;
    }
    let bulk = bench.bulk().await;
    let alone = bench.one_at_a_time().await;
    let together = bench.eight_at_a_time().await;
    let mut rows = Vec::new();
    for (name, times, most) in [("one at a time", &alone, 2.0), ("8 at a time, 2 connections", &together, 2.5)] {
        let [bare, plain, first, durable] = times;
        let ratio = p50(durable) / p50(plain);
        let what = format!("durable run of `true` against a plain exec of the same, {name}");
        rows.push(Row::ratio(&what, shown(durable), shown(plain), ratio, Bound::AtMost(most)));
        let what = format!("(the same against the launcher's first edition, {name})");
        rows.push(Row::ratio(&what, shown(durable), shown(first), p50(durable) / p50(first), Bound::None));
        let what = format!("(the same against a bare `/bin/true`, {name})");
        rows.push(Row::ratio(&what, shown(durable), shown(bare), p50(durable) / p50(bare), Bound::None));
    }
    let [first, durable] = &bulk;
    let what = "1 GiB of output by a durable run against the launcher's first edition";
    rows.push(Row::ratio(what, shown(durable), shown(first), p50(durable) / p50(first), Bound::None));
    rows
}

struct Bench {
    connections: Vec<Connection>,
    facts: LauncherFacts,
    decision: DecisionRecord,
    line: String,
}

impl Bench {
    async fn new(sshd: &Sshd) -> Self {
        let host_keys = [sshd.host_key().expect("a host key")];
        let target = Target {
            address: "127.0.0.1".to_owned(),
            port: sshd.port(),
            user: sshd.user().to_owned(),
            host_keys: HostKeyVerifier::parse(HostKeyConfig { host_keys: &host_keys, ..HostKeyConfig::default() })
                .expect("keys"),
            prefer: None,
            namespace: "bench".to_owned(),
            admission: None,
        };
        let key = Credentials::parse(sshd.private_key().expect("a key").as_bytes(), None, None).expect("credentials");
        let network = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a range")], Vec::new(), Vec::new());
        let mut connections = Vec::new();
        for _ in 0..2 {
            connections.push(ssh::connect(&target, &key, &network, DEADLINE).await.expect("a connection"));
        }
        let nonce = nonce();
        let mut answered = None;
        let session = open(&connections[0]).await;
        converse(session, &launcher::inspect(&nonce, None), Reply::new(&nonce), &mut |answer| answered = Some(answer))
            .await;
        let Some(Answer::Inspected(facts)) = answered else { panic!("the machine answered {answered:?}") };
        let decision = decision();
        let line = policy::command_line(&decision);
        Self { connections, facts, decision, line }
    }

    async fn once(&self, lane: usize, way: Way) -> Duration {
        let connection = &self.connections[lane % self.connections.len()];
        let started = Instant::now();
        match way {
            Way::Bare => plain(connection, "/bin/true").await,
            Way::Plain => plain(connection, &self.line).await,
            Way::FirstEdition => drop(self.first_edition(connection, &["/bin/true"]).await),
            Way::Durable => self.durable(connection).await,
        }
        started.elapsed()
    }

    /// Measures the time for 1 GiB of output, alternately with the first edition and with the launcher.
    async fn bulk(&self) -> [Vec<Duration>; 2] {
        let connection = &self.connections[0];
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..BULK_TURNS {
            let started = Instant::now();
            assert!(self.first_edition(connection, &BULK).await >= BULK_BYTES);
            times[0].push(started.elapsed());
            let started = Instant::now();
            let mut decision = self.decision.clone();
            decision.argv = BULK.map(str::to_owned).to_vec();
            decision.output.maximum_bytes = 1 << 40;
            assert_eq!(self.launched(connection, &decision).await, BULK_BYTES);
            times[1].push(started.elapsed());
        }
        times
    }

    /// Runs a command with the first edition of the launcher. Returns the number of received bytes.
    async fn first_edition(&self, connection: &Connection, words: &[&str]) -> u64 {
        let (nonce, uid) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().to_string());
        let facts = &self.facts;
        let line = [
            ("@NONCE@", nonce.as_str()),
            ("@DIRECTORY@", &facts.directory),
            ("@DIRECTORY_ID@", &facts.directory_id),
            ("@UID@", &uid),
            ("@BOOT_ID@", &facts.boot_id),
            ("'/bin/true'", &words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")),
        ]
        .into_iter()
        .fold(first_edition(facts.login_shell_is_posix), |line, (name, value)| line.replace(name, value));
        let mut session = open(connection).await;
        session.exec(&line).await.expect("a request");
        // The line with `end` reports the end of the command, after all output.
        let (mut last, mut bytes, end) = (Vec::new(), 0, format!("WRIT:{nonce}:D "));
        while !(last.ends_with(b"\n") && String::from_utf8_lossy(&last).contains(&end)) {
            match session.next().await {
                Event::Stdout(more) => {
                    bytes += more.len() as u64;
                    last.extend_from_slice(&more);
                    last.drain(..last.len().saturating_sub(400));
                }
                Event::Closed | Event::Lost | Event::Refused => panic!("no answer of the first edition"),
                _ => {}
            }
        }
        session.close().await;
        bytes
    }

    async fn durable(&self, connection: &Connection) {
        self.launched(connection, &self.decision).await;
    }

    /// Runs the command of a decision with the launcher. Returns the number of received bytes.
    async fn launched(&self, connection: &Connection, decision: &DecisionRecord) -> u64 {
        let (nonce, uid) = (nonce(), Uid::new(&Uuid::new_v4().to_string()).expect("a UID"));
        let launch = Launch {
            uid: &uid,
            decision,
            boot_id: &self.facts.boot_id,
            not_after_centiseconds: self.facts.uptime_centiseconds + 100 * 3600,
            grace_centiseconds: 500,
        };
        let request = launcher::launch(&nonce, &self.facts, &launch);
        let session = open(connection).await;
        let mut code = None;
        let mut hear = |answer| {
            if let Answer::Ended(ended) = answer {
                code = Some(ended.outcome);
            }
        };
        let bytes = converse(session, &request, Reply::new(&nonce), &mut hear).await;
        assert_eq!(code, Some(launcher::ExitOutcome::Exited(0)));
        bytes
    }

    /// Measures one command at a time. Each turn measures every way once. The order of the ways rotates from turn to
    /// turn.
    async fn one_at_a_time(&self) -> [Vec<Duration>; 4] {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for turn in 0..ALONE {
            for step in 0..WAYS.len() {
                let which = (turn + step) % WAYS.len();
                times[which].push(self.once(0, WAYS[which]).await);
            }
        }
        times
    }

    /// Measures all lanes concurrently. In each step, all lanes use the same way.
    async fn eight_at_a_time(&self) -> [Vec<Duration>; 4] {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for turn in 0..TURNS {
            for step in 0..WAYS.len() {
                let which = (turn + step) % WAYS.len();
                let lane = async |lane: usize| {
                    let mut times = Vec::new();
                    for _ in 0..IN_A_TURN {
                        times.push(self.once(lane, WAYS[which]).await);
                    }
                    times
                };
                let all = futures::future::join_all((0..LANES).map(lane)).await;
                times[which].extend(all.into_iter().flatten());
            }
        }
        times
    }
}

/// Returns the request of the launcher's first edition for this login shell. If the login shell is not POSIX, the
/// request starts /bin/sh.
fn first_edition(login_shell_is_posix: bool) -> String {
    let line = FIRST_EDITION.trim_end();
    let parts = line.strip_prefix("exec /bin/sh -c '").and_then(|rest| rest.split_once("' writ "));
    match parts.filter(|_| login_shell_is_posix) {
        Some((script, words)) => format!("set -- {words}; {script}"),
        None => line.to_owned(),
    }
}

fn nonce() -> Nonce {
    Nonce::new(&Uuid::new_v4().simple().to_string()).expect("a nonce")
}

/// Returns a decision of Writ that allows the command `true`.
fn decision() -> DecisionRecord {
    let whitelist: Value = json!({"apiVersion": "writ.dev/v1alpha1", "kind": "Whitelist", "metadata": {"name": "w"},
        "spec": {"rules": [{"name": "true", "match": "true", "run": ["/bin/true"]}]}});
    let whitelist: Whitelist = serde_json::from_value(whitelist).expect("a Whitelist");
    let rules = RuleSet::new(vec![std::sync::Arc::new(policy::compile(&whitelist))]);
    let spec = json!({"machineRef": {"name": "m0"}, "command": "true"});
    let spec: CommandExecutionSpec = serde_json::from_value(spec).expect("a spec");
    let request = Request::parse(&spec).expect("a request");
    let verdict = policy::decide(&rules, &request, &Default::default(), Identity::Unknown);
    let Verdict::Allow(decision) = verdict else { panic!("`true` is not allowed") };
    decision.record(MicroTime(jiff::Timestamp::now()))
}

/// Opens a session as the runner does. Retries while the machine has no free session.
async fn open(connection: &Connection) -> Session {
    loop {
        match connection.open(DEADLINE).await {
            Ok(session) => return session,
            Err(ConnectError::Busy(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("no session: {error}"),
        }
    }
}

/// Sends one exec request, and waits until the machine has closed the channel.
async fn plain(connection: &Connection, line: &str) {
    let mut session = open(connection).await;
    session.exec(line).await.expect("a request");
    let mut code = None;
    loop {
        match session.next().await {
            Event::ExitCode(exited) => code = Some(exited),
            Event::Closed => break,
            Event::Lost | Event::Refused => panic!("no answer to {line}"),
            _ => {}
        }
    }
    assert_eq!(code, Some(0));
}

/// Sends one request to the launcher, and waits until its reply is complete. Returns the number of bytes of output.
async fn converse(mut session: Session, request: &ExecRequest, mut reply: Reply, hear: &mut dyn FnMut(Answer)) -> u64 {
    session.exec(&request.command).await.expect("a request");
    session.feed(bytes::Bytes::copy_from_slice(&request.stdin));
    let mut bytes = 0;
    let mut take = |item: ReplyEvent<'_>| match item {
        ReplyEvent::Answer(answer) => hear(answer),
        ReplyEvent::Malformed(broken) => panic!("{broken}"),
        ReplyEvent::Stdout(part) | ReplyEvent::Stderr(part) => bytes += part.len() as u64,
    };
    loop {
        match session.next().await {
            Event::Stdout(bytes) => reply.stdout(&bytes, &mut take),
            Event::Stderr(bytes) => reply.stderr(&bytes, &mut take),
            Event::Closed => break,
            Event::Lost | Event::Refused => panic!("no answer of the launcher"),
            _ => {}
        }
        if reply.is_complete() {
            break;
        }
    }
    session.close().await;
    bytes
}
