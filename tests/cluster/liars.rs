//! Machines that lie in the launcher's own protocol. Each one is a fake SSH server that knows the nonce of each request
//! and sends valid frames, but breaks the guarantees. No lie holds an execution past its deadline or past a cancel. The
//! record contains only facts that Writ observed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use serde_json::json;
use tokio::time::sleep;
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::fake_sshd;
use crate::lab::SshdOptions;

/// Purpose of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Probe,
    Launch,
    Attach,
    Poll,
    Stop,
    Close,
    Other,
}

/// Request, as the launcher's script would read it.
#[derive(Clone, Debug)]
struct Request {
    kind: Kind,
    nonce: String,
}

impl Request {
    /// Parses standard input: `WRIT2 NONCE LENGTH SEPARATOR`, then the script. The script sets its arguments first.
    fn read(stdin: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(stdin);
        let nonce = text.strip_prefix("WRIT2 ")?.split(' ').next()?.to_owned();
        let arguments = text.lines().find_map(|line| line.strip_prefix("set -- "))?;
        let words: Vec<&str> = arguments.strip_prefix('\'')?.strip_suffix('\'')?.split("' '").skip(1).collect();
        let kind = match words.as_slice() {
            [_] => Kind::Probe,
            [_, _, _] => Kind::Close,
            [_, _, "-", ..] | [] | [_, _] => Kind::Other,
            [_, _, _, "follow", ..] => Kind::Attach,
            [_, _, _, "poll", ..] => Kind::Poll,
            [_, _, _, _] => Kind::Stop,
            _ => Kind::Launch,
        };
        Some(Self { kind, nonce })
    }
}

/// Behaviour of a fake machine.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Answers every request with "it runs", and closes the session.
    RunsAndCloses,
    /// Answers "it runs", keeps the session open, and sends no other answer.
    RunsAndIsSilent,
    /// After "it runs", sends one byte of output per second, each in its own frame.
    Trickles,
    /// After "it runs", sends output as fast as it can.
    Floods,
    /// Sends a frame that never becomes complete, one byte per second.
    HalfFrame,
    /// Sends lines without content forever.
    Chatters,
    /// Answers forever that the command is about to start.
    Starting,
    /// Answers every request as if it did not know the execution, even after several launches.
    Forgets,
    /// Answers in turn: it runs, it is about to start, it is unknown.
    ToAndFro,
    /// Refuses every request after the launch.
    Refuses,
    /// Opens the session and sends nothing.
    Silent,
    /// Closes the session immediately.
    Closes,
    /// Sends bytes that are not a reply of the launcher.
    Noise,
    /// Reports the end of the command, with more output than it ever sends.
    PromisesOutput,
}

const LIES: [Lie; 14] = [
    Lie::RunsAndCloses,
    Lie::RunsAndIsSilent,
    Lie::Trickles,
    Lie::Floods,
    Lie::HalfFrame,
    Lie::Chatters,
    Lie::Starting,
    Lie::Forgets,
    Lie::ToAndFro,
    Lie::Refuses,
    Lie::Silent,
    Lie::Closes,
    Lie::Noise,
    Lie::PromisesOutput,
];

/// Fake machine.
#[derive(Clone)]
struct Liar {
    lie: Lie,
    logins: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// Connection to a fake machine.
struct Connection {
    liar: Liar,
    stdin: HashMap<ChannelId, Vec<u8>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.liar.logins.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        self.stdin.entry(channel).or_default().extend_from_slice(data);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(stdin) = self.stdin.remove(&channel) else { return Ok(()) };
        let Some(request) = Request::read(&stdin) else { return Ok(()) };
        let (liar, handle) = (self.liar.clone(), session.handle());
        // The answer needs the session's own loop, which must not wait. So a separate task writes the answer.
        tokio::spawn(async move { liar.answer(Voice { handle, channel, nonce: request.nonce }, request.kind).await });
        Ok(())
    }
}

/// Sender of a fake machine's lines in one session.
struct Voice {
    handle: Handle,
    channel: ChannelId,
    nonce: String,
}

impl Voice {
    /// Sends a line after the marker. Returns false if the session is closed.
    async fn say(&self, line: &str) -> bool {
        self.raw(format!("WRIT2:{}:{line}\n", self.nonce).into_bytes()).await
    }

    async fn raw(&self, bytes: Vec<u8>) -> bool {
        self.handle.data(self.channel, bytes).await.is_ok()
    }

    async fn reply(&self, line: &str) {
        self.say(line).await;
        self.say(".").await;
        self.close().await;
    }

    async fn close(&self) {
        let _ = self.handle.exit_status_request(self.channel, 0).await;
        let _ = self.handle.close(self.channel).await;
    }

    /// Sends frames of `bytes` bytes until the session is closed.
    async fn frames(&self, bytes: usize, pause: Duration) {
        let mut offset = 0;
        loop {
            let frame = [format!("WRIT2:{}:C {offset} {bytes}\n", self.nonce).into_bytes(), vec![b'x'; bytes]].concat();
            if !self.raw(frame).await || !self.say("+").await {
                return;
            }
            offset += bytes;
            sleep(pause).await;
        }
    }
}

const RUNS: &str = "A S 0 0 100 200 4711";
const SECOND: Duration = Duration::from_secs(1);

impl Liar {
    async fn answer(self, voice: Voice, kind: Kind) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Probe => {
                let facts = "P 0f0e0d0c-0b0a-4908-8706-050403020100 100000 00112233445566778899aabbccddeeff 1 0 /home/liar/writ";
                return voice.reply(facts).await;
            }
            // Writ must not discover the lie too early, so the fake answers no other request.
            Kind::Other => return voice.close().await,
            Kind::Launch | Kind::Attach | Kind::Poll | Kind::Stop | Kind::Close => {}
        }
        let is_followed = matches!(kind, Kind::Launch | Kind::Attach);
        match self.lie {
            Lie::RunsAndCloses => {
                voice.say(RUNS).await;
                voice.say("+").await;
                voice.close().await;
            }
            Lie::Starting => voice.reply("B").await,
            Lie::Forgets => voice.reply("N").await,
            Lie::ToAndFro => match count % 3 {
                0 => {
                    voice.say(RUNS).await;
                    voice.say("+").await;
                    voice.close().await;
                }
                1 => voice.reply("B").await,
                _ => voice.reply("N").await,
            },
            // The launch gets no answer, so Writ does not know if the command started.
            Lie::Refuses if kind == Kind::Launch => voice.close().await,
            Lie::Refuses => voice.reply("R directory").await,
            Lie::Silent => {}
            Lie::Closes => voice.close().await,
            Lie::Noise => {
                voice.raw(b"I am no launcher\n".repeat(8000)).await;
                voice.close().await;
            }
            Lie::PromisesOutput if is_followed => {
                voice.say("D S 0 0 100 0 - 5000 0 200 - -").await;
                voice.say(".").await;
                voice.close().await;
            }
            Lie::PromisesOutput => {}
            _ if !is_followed => {}
            Lie::RunsAndIsSilent | Lie::Trickles | Lie::Floods | Lie::HalfFrame | Lie::Chatters => {
                voice.say(RUNS).await;
                self.go_on(&voice).await;
            }
        }
    }

    /// Sends the lines that follow "it runs".
    async fn go_on(&self, voice: &Voice) {
        match self.lie {
            Lie::Trickles => voice.frames(1, SECOND).await,
            Lie::Floods => voice.frames(32 << 10, Duration::from_millis(1)).await,
            Lie::HalfFrame => {
                voice.say("C 0 100000").await;
                while voice.raw(b"x".to_vec()).await {
                    sleep(SECOND).await;
                }
            }
            Lie::Chatters => {
                while voice.say("+").await {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {
                voice.say("+").await;
            }
        }
    }

    /// Starts the fake with a host key, and returns the fake and its port.
    async fn start(lie: Lie, key: PrivateKey) -> (Self, u16) {
        let liar = Self { lie, logins: Arc::default(), requests: Arc::default() };
        let kept = liar.clone();
        let config = Config { keys: vec![key], ..Config::default() };
        let port = fake_sshd::start(config, move || Connection { liar: kept.clone(), stdin: HashMap::new() }).await;
        (liar, port)
    }
}

/// Returns a case with one machine for each lie, and one execution on each machine.
async fn lied_to(lies: &[Lie], flags: &[&str], timeout_seconds: u32) -> (Case, Vec<(String, Liar)>) {
    let case = Case::durable_with(SshdOptions::default(), &[&["--lease-seconds", "3"], flags].concat()).await;
    let rule = json!({"name": "anything", "match": "anything", "run": ["/bin/true"],
        "timeoutSeconds": {"default": 30, "maximum": 600}, "output": {"maximumBytes": 65536}});
    case.apply_whitelist("liars", json!([rule])).await;
    let (key, public) = fake_sshd::host_key(&case);
    let mut liars = Vec::new();
    for &lie in lies {
        let name = format!("{lie:?}").to_lowercase();
        let (liar, port) = Liar::start(lie, key.clone()).await;
        let machine = json!({"port": port, "hostKeys": [public], "execution": {"mode": "Durable"}});
        case.apply_machine(&name, machine).await;
        let spec = json!({"machineRef": {"name": name}, "command": "anything", "timeoutSeconds": timeout_seconds});
        case.execute_with(&name, spec).await;
        liars.push((name, liar));
    }
    (case, liars)
}

/// Checks that the record contains nothing that only an honest machine could report.
#[track_caller]
fn makes_nothing_up(name: &str, status: &CommandExecutionStatus) {
    assert_eq!((status.exit_code, status.signal.as_deref()), (None, None), "{name}: {status:?}");
    let output = status.output.as_ref();
    let bytes = output.map_or(0, |output| output.stdout.bytes + output.stderr.bytes);
    assert!(bytes <= 65_536, "{name}: {bytes} bytes");
    assert_ne!(status.phase, Phase::Succeeded, "{name}");
}

/// Checks that the fake received at most the logins that `execution::Pace` allows. The limit leaves room for other
/// logins (acknowledgements, tidying, stop requests).
#[track_caller]
fn logged_in_seldom(name: &str, liar: &Liar, within: Duration) {
    let logins = liar.logins.load(Ordering::Relaxed) as u64;
    let most = 20 + within.as_secs() / 10 + 12;
    assert!(logins <= most, "{name}: {logins} logins within {within:?}");
}

#[tokio::test]
async fn no_lie_holds_an_execution_past_its_cancel() {
    let (case, liars) = lied_to(&LIES, &["--stop-seconds", "20"], 600).await;
    let began = Instant::now();
    for (name, _) in &liars {
        case.until(name, "claimed", |status| status.claim.is_some()).await;
    }
    for (name, _) in &liars {
        // If Writ has already found the lie, the execution has ended and refuses the change.
        let _ = case.change_spec(name, json!({"cancelRequested": true})).await;
    }
    let cancelled = Instant::now();
    for (name, liar) in &liars {
        let status = case.finished(name).await;
        makes_nothing_up(name, &status);
        let message = status.message.clone().unwrap_or_default();
        let expected = [Phase::Cancelled, Phase::OutcomeUnknown, Phase::Failed, Phase::LaunchFailed];
        assert!(expected.contains(&status.phase), "{name}: {:?} {message}", status.phase);
        if status.phase == Phase::Cancelled {
            let reasons = [Some(Reason::RemoteMayStillRun), Some(Reason::CancelledBeforeStart)];
            assert!(reasons.contains(&status.reason), "{name}: {:?} {message}", status.reason);
        }
        logged_in_seldom(name, liar, began.elapsed());
    }
    // 20 s is `--stop-seconds`. The rest is for a busy host.
    assert!(cancelled.elapsed() < Duration::from_secs(80), "{:?}", cancelled.elapsed());
}

#[tokio::test]
async fn no_lie_holds_an_execution_past_its_deadline() {
    let (case, liars) = lied_to(&LIES, &["--stop-seconds", "20", "--unreachable-seconds", "1"], 1).await;
    let began = Instant::now();
    for (name, liar) in &liars {
        let status = case.finished(name).await;
        makes_nothing_up(name, &status);
        let expected = [Phase::TimedOut, Phase::OutcomeUnknown, Phase::Failed, Phase::LaunchFailed];
        assert!(expected.contains(&status.phase), "{name}: {:?} {:?}", status.phase, status.message);
        logged_in_seldom(name, liar, began.elapsed());
    }
}

/// The holder dies after the cancel. The next holder counts from the same moment.
#[tokio::test]
async fn the_time_of_a_cancel_outlives_its_holder() {
    let (mut case, _liars) = lied_to(&[Lie::RunsAndCloses], &["--stop-seconds", "300"], 600).await;
    let name = "runsandcloses";
    case.until(name, "claimed", |status| status.claim.is_some()).await;
    case.change_spec(name, json!({"cancelRequested": true})).await.expect("cancelling is allowed");
    let before = case.until(name, "being stopped", |status| status.stop_requested_time.is_some()).await;
    case.kill_writ();
    case.start_writ();
    let holder = before.claim.as_ref().expect("a claim").holder.clone();
    let is_taken_over =
        |status: &CommandExecutionStatus| status.claim.as_ref().is_some_and(|claim| claim.holder != holder);
    let after = case.until(name, "taken over", is_taken_over).await;
    assert_eq!(before.stop_requested_time, after.stop_requested_time);
}
