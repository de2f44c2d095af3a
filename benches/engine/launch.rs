//! A durable run of a short command, beside a plain exec of the same on the same connection.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use uuid::Uuid;
use writ::api::execution_status::DecisionRecord;
use writ::api::{CommandExecutionSpec, Whitelist};
use writ::launcher::{self, Answer, ExecRequest, Item, Launch, MachineFacts, Nonce, Reply, Uid};
use writ::policy::{self, Identity, Request, RuleSet, Verdict};
use writ::ssh::{self, ConnectError, Connection, Credentials, Event, HostTrust, Network, Session, Target, TrustParts};

use crate::lab::Sshd;
use crate::measure::{Row, Target as Bound, p50, shown};
use crate::site::sshd;
use crate::world::World;

const DEADLINE: Duration = Duration::from_secs(10);
/// Samples of each way, one at a time.
const ALONE: usize = 400;
/// Eight at a time, over two connections: turns, and samples of each in a turn.
const LANES: usize = 8;
const TURNS: usize = 12;
const IN_A_TURN: usize = 12;
const WAYS: [Way; 3] = [Way::Bare, Way::Plain, Way::Durable];

#[derive(Clone, Copy)]
enum Way {
    /// `/bin/true`, and nothing around it.
    Bare,
    /// What Writ executes, as one plain request: with the variables taken out of the way, as in Direct mode.
    Plain,
    /// The same, by the launcher.
    Durable,
}

pub async fn rows(world: &World) -> Vec<Row> {
    let sshd = sshd(world);
    let bench = Bench::new(&sshd).await;
    for way in WAYS.into_iter().cycle().take(30) {
        bench.once(0, way).await;
    }
    let alone = bench.one_at_a_time().await;
    let together = bench.eight_at_a_time().await;
    let mut rows = Vec::new();
    for (name, times, most) in [("one at a time", &alone, 2.0), ("8 at a time, 2 connections", &together, 2.5)] {
        let [bare, plain, durable] = times;
        let ratio = p50(durable) / p50(plain);
        let what = format!("durable run of `true` against a plain exec of the same, {name}");
        rows.push(Row::ratio(&what, shown(durable), shown(plain), ratio, Bound::AtMost(most)));
        let what = format!("(the same against a bare `/bin/true`, {name})");
        rows.push(Row::ratio(&what, shown(durable), shown(bare), p50(durable) / p50(bare), Bound::None));
    }
    rows
}

struct Bench {
    connections: Vec<Connection>,
    facts: MachineFacts,
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
            trust: HostTrust::parse(TrustParts { host_keys: &host_keys, ..TrustParts::default() }).expect("keys"),
        };
        let key = Credentials::parse(sshd.private_key().expect("a key").as_bytes(), None, None).expect("credentials");
        let network = Network::new(vec!["127.0.0.0/8".parse().expect("a range")], Vec::new(), Vec::new());
        let mut connections = Vec::new();
        for _ in 0..2 {
            connections.push(ssh::connect(&target, &key, &network, DEADLINE).await.expect("a connection"));
        }
        let nonce = nonce();
        let mut answered = None;
        let session = open(&connections[0]).await;
        converse(session, &launcher::probe(&nonce, None), Reply::new(&nonce), &mut |answer| answered = Some(answer))
            .await;
        let Some(Answer::Probed(facts)) = answered else { panic!("the machine answered {answered:?}") };
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
            Way::Durable => self.durable(connection).await,
        }
        started.elapsed()
    }

    async fn durable(&self, connection: &Connection) {
        let (nonce, uid) = (nonce(), Uid::new(&Uuid::new_v4().to_string()).expect("a UID"));
        let launch = Launch {
            uid: &uid,
            decision: &self.decision,
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
        converse(session, &request, Reply::new(&nonce), &mut hear).await;
        assert_eq!(code, Some(launcher::Outcome::Exited(0)));
    }

    /// Each way in turn, in an order that changes.
    async fn one_at_a_time(&self) -> [Vec<Duration>; 3] {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for turn in 0..ALONE {
            for step in 0..WAYS.len() {
                let which = (turn + step) % WAYS.len();
                times[which].push(self.once(0, WAYS[which]).await);
            }
        }
        times
    }

    /// All lanes go one way at a time, and the ways take turns.
    async fn eight_at_a_time(&self) -> [Vec<Duration>; 3] {
        let mut times: [Vec<Duration>; 3] = Default::default();
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

fn nonce() -> Nonce {
    Nonce::new(&Uuid::new_v4().simple().to_string()).expect("a nonce")
}

/// What Writ decides about `true`.
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

/// As the runner does: a machine that has no session to spare for a moment is asked again.
async fn open(connection: &Connection) -> Session {
    loop {
        match connection.open(DEADLINE).await {
            Ok(session) => return session,
            Err(ConnectError::Busy(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("no session: {error}"),
        }
    }
}

/// One exec request, until the machine has closed the channel.
async fn plain(connection: &Connection, line: &str) {
    let mut session = open(connection).await;
    session.start(line).await.expect("a request");
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

/// One request to the launcher, until its reply is complete.
async fn converse(mut session: Session, request: &ExecRequest, mut reply: Reply, hear: &mut dyn FnMut(Answer)) {
    session.start(&request.line).await.expect("a request");
    session.send(&request.stdin).await.expect("a request");
    let mut take = |item: Item<'_>| match item {
        Item::Answer(answer) => hear(answer),
        Item::Broken(broken) => panic!("{broken}"),
        Item::Stdout(_) | Item::Stderr(_) => {}
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
    session.hang_up().await;
}
