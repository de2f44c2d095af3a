//! The messages about one execution, from its first byte to its end.
//!
//! ```text
//! Live: events of the live registry --(another process runs it, or the bytes are deleted)--> Recorded: status, store
//!         |   the watch reports the end, also if this process does not run the execution        |
//!         +---------------------------------> last message <-----------------------------------+
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kube::ResourceExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::cluster::ClusterError;
use crate::gateway::ends::EndNotice;
use crate::gateway::error::ApiError;
use crate::gateway::names::command_id;
use crate::gateway::outcome::refusal;
use crate::gateway::state::Gateway;
use crate::output::{EndedStatus, GapReason, LiveEvent, StreamKind, StreamOffsets, SubscribeError, Viewer};

use super::message::{Form, Messages, error};
use super::pump::{Closing, Feed, FeedItem};
use super::recorded::{Recorded, RecordedPart};
use super::text::{Chunk, Holdback, take_piece};

/// First pause before the next read if the API server did not answer. Doubles up to [`MAX_READ_RETRY`].
const READ_RETRY: Duration = Duration::from_millis(250);
/// Maximum pause before the next read.
const MAX_READ_RETRY: Duration = Duration::from_secs(5);
/// Interval between reads of an execution that has not ended, in case a report of its end is lost.
const REREAD_AFTER: Duration = Duration::from_secs(60);
/// Pause before the next subscription, if the registry has no place or another execution with the same name.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(1);

/// Feed of one execution.
pub struct ExecutionFeed {
    gateway: Gateway,
    execution: ExecutionName,
    messages: Messages,
    /// Messages that are ready, and bytes that become messages one by one. At most the parts of one event.
    ready: VecDeque<Ready>,
    stdout: Position,
    stderr: Position,
    stage: Stage,
}

/// An execution. A later execution can have the same name, but never the same UID.
#[derive(Clone, Debug)]
struct ExecutionName {
    namespace: String,
    name: String,
    uid: String,
}

enum Ready {
    Item(FeedItem),
    Output { stream: StreamKind, chunk: Chunk },
}

/// Position in a stream.
#[derive(Default)]
struct Position {
    /// Offset of the next byte from the source.
    next: u64,
    holdback: Holdback,
}

enum Stage {
    Live(Box<Live>),
    Recorded(Box<Recorded>),
    Over,
}

/// State of a feed that follows the live registry.
struct Live {
    /// `None` while this process does not run the execution, or the registry has no place for a viewer.
    viewer: Option<Viewer>,
    /// Time of the next subscription if there is no viewer.
    subscribe_at: Instant,
    /// True if the viewer's events are about this execution.
    is_own: bool,
    /// Completes when the result is stored.
    end: BoxFuture<'static, Ended>,
    /// Result of `end`.
    ended: Option<Ended>,
}

/// Execution with its result, or the reason why there is none.
type Ended = Result<Box<CommandExecution>, ApiError>;

enum LiveStep {
    Event(Option<LiveEvent>),
    Ended(Ended),
    Subscribe,
}

impl ExecutionFeed {
    /// Returns the feed for the caller that created the execution. `is_replay` is true if an earlier call created it.
    pub fn for_run(gateway: &Gateway, execution: CommandExecution, is_replay: bool) -> Self {
        let mut feed = Self::new(gateway, &execution, Form::Run, StreamOffsets::default());
        feed.add_message(feed.messages.execution(is_replay));
        feed.begin(execution);
        feed
    }

    /// Returns the feed for the client of an interactive execution. If `names_execution` is true, the first message
    /// names the execution.
    pub fn for_client(gateway: &Gateway, execution: CommandExecution, names_execution: bool) -> Self {
        let mut feed = Self::new(gateway, &execution, Form::Exec, StreamOffsets::default());
        if names_execution {
            feed.add_message(feed.messages.execution(false));
        }
        feed.begin(execution);
        feed
    }

    /// Returns the feed for a viewer, from these offsets on.
    ///
    /// # Errors
    /// 503 if the execution has too many viewers.
    pub fn for_viewer(gateway: &Gateway, execution: CommandExecution, from: StreamOffsets) -> Result<Self, ApiError> {
        let mut feed = Self::new(gateway, &execution, Form::Watch, from);
        feed.add_message(feed.messages.execution(false));
        if feed.begin(execution) == Some(SubscribeError::TooManyViewers) {
            return Err(ApiError::unavailable("the command has too many viewers; repeat the call when one has left"));
        }
        Ok(feed)
    }

    fn new(gateway: &Gateway, execution: &CommandExecution, form: Form, from: StreamOffsets) -> Self {
        let (namespace, name) = (execution.namespace().unwrap_or_default(), execution.name_any());
        Self {
            gateway: gateway.clone(),
            messages: Messages::new(form, command_id(&namespace, &name)),
            execution: ExecutionName { namespace, name, uid: execution.uid().unwrap_or_default() },
            ready: VecDeque::new(),
            stdout: Position { next: from.stdout, ..Position::default() },
            stderr: Position { next: from.stderr, ..Position::default() },
            stage: Stage::Over,
        }
    }

    /// Begins with the record if the execution has ended. Otherwise subscribes, and returns the error of this.
    fn begin(&mut self, execution: CommandExecution) -> Option<SubscribeError> {
        if execution.phase().is_finished() {
            self.read_record(execution);
            return None;
        }
        // Subscribes before the next read of the execution, so that no end is missed.
        let (viewer, error) = match self.subscribe() {
            Ok(viewer) => (Some(viewer), None),
            Err(error) => (None, Some(error)),
        };
        let notice = self.gateway.ends().expect(&self.execution.namespace, &self.execution.name);
        let end = Box::pin(wait_recorded(self.gateway.clone(), self.execution.clone(), notice));
        let subscribe_at = Instant::now() + SUBSCRIBE_RETRY;
        self.stage = Stage::Live(Box::new(Live { viewer, subscribe_at, is_own: false, end, ended: None }));
        error
    }

    fn subscribe(&self) -> Result<Viewer, SubscribeError> {
        let ExecutionName { namespace, name, uid } = &self.execution;
        let from = StreamOffsets { stdout: self.stdout.next, stderr: self.stderr.next };
        let live = self.gateway.live();
        match live.subscribe_uid(uid, from) {
            Err(SubscribeError::NotHere) => live.subscribe(namespace, name, from),
            result => result,
        }
    }

    fn position(&mut self, stream: StreamKind) -> &mut Position {
        match stream {
            StreamKind::Stdout => &mut self.stdout,
            StreamKind::Stderr => &mut self.stderr,
        }
    }

    fn add_message(&mut self, text: String) {
        self.ready.push_back(Ready::Item(FeedItem::Message(text)));
    }

    fn add_output(&mut self, stream: StreamKind, offset: u64, bytes: Bytes) {
        let is_binary = self.messages.form() == Form::Exec;
        let position = self.position(stream);
        position.next = offset + bytes.len() as u64;
        if is_binary {
            return self.ready.push_back(Ready::Item(FeedItem::Output(bytes)));
        }
        let chunk = position.holdback.push(offset, bytes);
        self.ready.push_back(Ready::Output { stream, chunk });
    }

    /// Adds the held bytes of a stream, because other bytes than the next ones follow.
    fn flush(&mut self, stream: StreamKind) {
        if self.messages.form() == Form::Exec {
            return;
        }
        let chunk = self.position(stream).holdback.flush();
        self.ready.push_back(Ready::Output { stream, chunk });
    }

    fn add_gap(&mut self, stream: StreamKind, (offset, length): (u64, u64), reason: &str) {
        self.flush(stream);
        self.position(stream).next = offset + length;
        self.add_message(self.messages.gap(stream, offset, length, reason));
    }

    /// Adds the last message.
    fn finish(&mut self, text: String, closing: Closing) {
        StreamKind::ALL.into_iter().for_each(|stream| self.flush(stream));
        self.ready.push_back(Ready::Item(FeedItem::Last(text, closing)));
        self.stage = Stage::Over;
    }

    fn fail(&mut self, failed: ApiError) {
        let failed = failed.about(&self.execution.namespace, &self.execution.name);
        self.finish(error(&failed), Closing::for_status(failed.status));
    }

    /// Adds the last message for a result.
    fn finish_with(&mut self, status: &CommandExecutionStatus) {
        let (message, signal) = (status.message.as_deref(), status.signal.as_deref());
        match (self.messages.form(), refusal(status, 0)) {
            (Form::Run | Form::Exec, None) => {
                self.finish(self.messages.exit(status.exit_code, signal), Closing::Complete)
            }
            (Form::Run | Form::Exec, Some(refused)) => self.fail(refused),
            (Form::Watch, _) => {
                self.finish(self.messages.end(&EndedStatus::from(status), message, signal), Closing::Complete);
            }
        }
    }

    /// Continues with the record, from the current offsets on.
    fn read_record(&mut self, execution: CommandExecution) {
        let from = StreamOffsets { stdout: self.stdout.next, stderr: self.stderr.next };
        match Recorded::open(execution, from) {
            Ok(recorded) => self.stage = Stage::Recorded(Box::new(recorded)),
            Err(failed) => self.fail(failed),
        }
    }

    /// Returns the next ready item.
    fn next_ready(&mut self) -> Option<FeedItem> {
        loop {
            match self.ready.pop_front()? {
                Ready::Item(item) => return Some(item),
                Ready::Output { chunk, .. } if chunk.bytes.is_empty() => {}
                Ready::Output { stream, mut chunk } => {
                    let (offset, before) = (chunk.offset, chunk.bytes.len());
                    let piece = take_piece(&mut chunk.bytes, self.messages.max_json());
                    chunk.offset += (before - chunk.bytes.len()) as u64;
                    self.ready.push_front(Ready::Output { stream, chunk });
                    return Some(FeedItem::Message(self.messages.output(stream, offset, &piece)));
                }
            }
        }
    }

    async fn follow(&mut self) {
        let Stage::Live(live) = &mut self.stage else { return };
        match live.step().await {
            LiveStep::Subscribe => {
                let viewer = self.subscribe().ok();
                if let Stage::Live(live) = &mut self.stage {
                    (live.viewer, live.is_own) = (viewer, false);
                    live.subscribe_at = Instant::now() + SUBSCRIBE_RETRY;
                }
            }
            // The viewer still has output and the end.
            LiveStep::Ended(result) if live.is_own => live.ended = Some(result),
            LiveStep::Ended(Ok(execution)) => self.read_record(*execution),
            LiveStep::Ended(Err(failed)) => self.fail(failed),
            LiveStep::Event(event) => self.handle(event),
        }
    }

    fn handle(&mut self, event: Option<LiveEvent>) {
        match event {
            Some(LiveEvent::Claimed { uid, .. }) if uid == self.execution.uid => {
                if let Stage::Live(live) = &mut self.stage {
                    live.is_own = true;
                }
            }
            // An earlier execution of the same name, which has ended here a moment ago.
            Some(LiveEvent::Claimed { .. }) => self.leave(SUBSCRIBE_RETRY),
            Some(LiveEvent::Started) => {}
            Some(LiveEvent::Output { stream, offset, bytes }) => self.add_output(stream, offset, bytes),
            // The record perhaps has these bytes.
            Some(LiveEvent::Gap { reason: GapReason::Removed, .. }) => self.leave(SUBSCRIBE_RETRY),
            Some(LiveEvent::Gap { stream, offset, length, reason }) => {
                self.add_gap(stream, (offset, length), reason.as_str());
            }
            // A client of a session sees the terminal itself.
            Some(LiveEvent::Progress(_)) if self.messages.form() == Form::Exec => {}
            Some(LiveEvent::Progress(progress)) => self.add_message(self.messages.progress(&progress)),
            Some(LiveEvent::Restarted) => {
                for stream in StreamKind::ALL {
                    self.flush(stream);
                    self.position(stream).next = 0;
                }
                self.add_message(self.messages.restarted());
            }
            Some(LiveEvent::Ended(status)) => self.handle_end(&status),
            // Another process perhaps adopts the claim, or this process again.
            Some(LiveEvent::Released | LiveEvent::Expired) | None => self.leave(Duration::ZERO),
        }
    }

    /// Ends the viewer. Continues with the record if the execution has ended, otherwise subscribes after a pause.
    fn leave(&mut self, pause: Duration) {
        let Stage::Live(live) = &mut self.stage else { return };
        (live.viewer, live.is_own) = (None, false);
        live.subscribe_at = Instant::now() + pause;
        match live.ended.take() {
            Some(Ok(execution)) => self.read_record(*execution),
            Some(Err(failed)) => self.fail(failed),
            None => {}
        }
    }

    /// Handles the end, after which the status has the result.
    fn handle_end(&mut self, ended: &EndedStatus) {
        let EndedStatus { phase, reason, exit_code, duration_ms } = ended.clone();
        let status =
            CommandExecutionStatus { phase, reason, exit_code, duration_ms, ..CommandExecutionStatus::default() };
        if exit_code.is_some() && refusal(&status, 0).is_none() {
            return self.finish_with(&status);
        }
        // The last message has more than this event, for example the message of the status. All output was sent, so
        // the rest of the record is empty.
        let Stage::Live(live) = &mut self.stage else { return };
        (live.viewer, live.is_own) = (None, false);
        live.subscribe_at = Instant::now() + REREAD_AFTER;
        match live.ended.take() {
            Some(Ok(execution)) => self.read_record(*execution),
            Some(Err(_)) => self.finish_with(&status),
            None => {
                let notice = self.gateway.ends().expect(&self.execution.namespace, &self.execution.name);
                live.end = Box::pin(wait_recorded(self.gateway.clone(), self.execution.clone(), notice));
            }
        }
    }

    async fn read_on(&mut self) {
        let Stage::Recorded(recorded) = &mut self.stage else { return };
        match recorded.next(&self.gateway).await {
            Ok(Some(RecordedPart::Output { stream, offset, bytes })) => self.add_output(stream, offset, bytes),
            Ok(Some(RecordedPart::Gap { stream, offset, length, reason })) => {
                self.add_gap(stream, (offset, length), reason);
            }
            Ok(None) => {
                let status = recorded.execution.status.take().unwrap_or_default();
                self.finish_with(&status);
            }
            Err(failed) => self.fail(failed),
        }
    }
}

impl Feed for ExecutionFeed {
    async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(item) = self.next_ready() {
                return Some(item);
            }
            match &self.stage {
                Stage::Live(_) => self.follow().await,
                Stage::Recorded(_) => self.read_on().await,
                Stage::Over => return None,
            }
        }
    }
}

impl Live {
    /// Waits for the next step. The viewer comes first: as long as it has events, it has output that the end must not
    /// overtake.
    async fn step(&mut self) -> LiveStep {
        let Self { viewer, subscribe_at, end, ended, .. } = self;
        let has_viewer = viewer.is_some();
        let event = async {
            match viewer {
                Some(viewer) => viewer.next().await,
                None => None,
            }
        };
        tokio::select! {
            biased;
            event = event, if has_viewer => LiveStep::Event(event),
            result = end, if ended.is_none() => LiveStep::Ended(result),
            () = sleep_until(*subscribe_at), if !has_viewer => LiveStep::Subscribe,
        }
    }
}

/// Waits until the result of an execution is stored, and returns the execution.
async fn wait_recorded(gateway: Gateway, execution: ExecutionName, notice: EndNotice) -> Ended {
    let ExecutionName { namespace, name, uid } = execution;
    let not_found = || ApiError::command_not_found(&command_id(&namespace, &name));
    let mut pause = READ_RETRY;
    loop {
        match gateway.cluster().execution(&namespace, &name).await {
            Ok(found) if found.uid().as_deref() != Some(uid.as_str()) => return Err(not_found()),
            Ok(found) if found.phase().is_finished() => return Ok(Box::new(found)),
            Ok(_) => {
                pause = READ_RETRY;
                // Without a notice in this time, the next read decides.
                let _ = timeout(REREAD_AFTER, notice.wait()).await;
            }
            Err(ClusterError::NotFound { .. }) => return Err(not_found()),
            Err(ClusterError::Unavailable { .. }) => {
                sleep(pause).await;
                pause = (pause * 2).min(MAX_READ_RETRY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
