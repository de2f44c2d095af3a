//! Passes the messages of a feed to a client.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::gateway::caller_sockets::SocketEnd;

/// Interval between signs of life. Many proxies end a connection that is silent for 60 s.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Time in which a client must take a message of at most 64 KiB.
pub const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Message of a feed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FeedItem {
    /// A message.
    Message(String),
    /// Bytes of the output of an interactive execution, at most 64 KiB.
    Output(Bytes),
    /// The last message.
    Last(String, Closing),
}

/// Reason why a stream ends, as the code of a WebSocket's close frame (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closing {
    /// The stream is complete.
    Complete,
    /// The process stops.
    GoingAway,
    /// The request was refused.
    Refused,
    /// The gateway, or a part that it needs, failed.
    Failed,
}

impl Closing {
    /// Returns the code.
    pub fn code(self) -> u16 {
        match self {
            Self::Complete => 1000,
            Self::GoingAway => 1001,
            Self::Refused => 1008,
            Self::Failed => 1011,
        }
    }

    /// Returns the reason for a socket that must end.
    pub fn for_end(end: SocketEnd) -> Self {
        match end {
            SocketEnd::Stopping => Self::GoingAway,
            SocketEnd::AccessLost => Self::Refused,
        }
    }

    /// Returns the reason for an error with this status.
    pub fn for_status(status: http::StatusCode) -> Self {
        if status.is_server_error() { Self::Failed } else { Self::Refused }
    }
}

/// Source of messages.
pub trait Feed: Send {
    /// Waits for the next message. Returns `None` after the last one.
    fn next(&mut self) -> impl Future<Output = Option<FeedItem>> + Send;
}

/// The client is gone, or did not take a message in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gone;

/// Connection to a client.
pub trait MessageSink: Send {
    /// Sends a message, and waits until the connection has taken it.
    fn message(&mut self, text: String) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends bytes, and waits until the connection has taken them. Sinks for text alone never receive any.
    fn output(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a sign of life.
    fn ping(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Ends the stream.
    fn close(&mut self, closing: Closing) -> impl Future<Output = ()> + Send;
}

/// Passes all messages, until the feed ends, the client is gone, or `ending` completes.
pub async fn pump(feed: &mut impl Feed, sink: &mut impl MessageSink, ending: impl Future<Output = SocketEnd> + Send) {
    pump_with(feed, sink, ending, PING_INTERVAL).await;
}

async fn pump_with(
    feed: &mut impl Feed,
    sink: &mut impl MessageSink,
    ending: impl Future<Output = SocketEnd> + Send,
    ping_interval: Duration,
) {
    tokio::select! {
        closing = pump_all(feed, sink, ping_interval) => {
            if let Ok(closing) = closing {
                sink.close(closing).await;
            }
        }
        end = ending => sink.close(Closing::for_end(end)).await,
    }
}

async fn pump_all(feed: &mut impl Feed, sink: &mut impl MessageSink, ping_interval: Duration) -> Result<Closing, Gone> {
    let mut pings = interval_at(Instant::now() + ping_interval, ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = feed.next();
        tokio::pin!(next);
        let item = loop {
            tokio::select! {
                item = &mut next => break item,
                _ = pings.tick() => sink.ping().await?,
            }
        };
        match item {
            Some(FeedItem::Message(text)) => sink.message(text).await?,
            Some(FeedItem::Output(bytes)) => sink.output(bytes).await?,
            Some(FeedItem::Last(text, closing)) => {
                sink.message(text).await?;
                return Ok(closing);
            }
            None => return Ok(Closing::Complete),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const PING: Duration = Duration::from_millis(100);

    /// Feed of prepared messages. An empty queue waits forever.
    struct Prepared(VecDeque<Option<FeedItem>>);

    impl Feed for Prepared {
        async fn next(&mut self) -> Option<FeedItem> {
            match self.0.pop_front() {
                Some(item) => item,
                None => std::future::pending().await,
            }
        }
    }

    #[derive(Default)]
    struct Recording(Vec<String>);

    impl MessageSink for Recording {
        async fn message(&mut self, text: String) -> Result<(), Gone> {
            self.0.push(text.clone());
            if text == "gone" { Err(Gone) } else { Ok(()) }
        }

        async fn output(&mut self, bytes: Bytes) -> Result<(), Gone> {
            self.0.push(format!("{bytes:?}"));
            Ok(())
        }

        async fn ping(&mut self) -> Result<(), Gone> {
            self.0.push("ping".to_owned());
            Ok(())
        }

        async fn close(&mut self, closing: Closing) {
            self.0.push(closing.code().to_string());
        }
    }

    async fn pumped(items: Vec<Option<FeedItem>>, stop_after: Duration) -> Vec<String> {
        let mut sink = Recording::default();
        let ending = async {
            tokio::time::sleep(stop_after).await;
            SocketEnd::Stopping
        };
        pump_with(&mut Prepared(items.into()), &mut sink, ending, PING).await;
        sink.0
    }

    fn message(text: &str) -> Option<FeedItem> {
        Some(FeedItem::Message(text.to_owned()))
    }

    #[tokio::test]
    async fn the_last_message_decides_the_code() {
        let last = Some(FeedItem::Last("b".to_owned(), Closing::Refused));
        assert_eq!(pumped(vec![message("a"), last, message("c")], SEND_DEADLINE).await, ["a", "b", "1008"]);
        assert_eq!(pumped(vec![message("a"), None], SEND_DEADLINE).await, ["a", "1000"]);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_receives_nothing_more() {
        assert_eq!(pumped(vec![message("gone"), message("b")], SEND_DEADLINE).await, ["gone"]);
    }

    #[tokio::test]
    async fn a_silent_stream_pings_until_the_process_stops() {
        let received = pumped(vec![message("a")], PING * 3).await;
        assert_eq!((received.first().unwrap().as_str(), received.last().unwrap().as_str()), ("a", "1001"));
        assert!(received.iter().filter(|text| *text == "ping").count() >= 2, "{received:?}");
    }
}
