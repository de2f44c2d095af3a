use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use tokio::task::JoinHandle;

use super::*;
use crate::api::Machine;

type Watched = PartialObjectMeta<Machine>;

fn machine(name: &str, uid: &str, generation: i64) -> Watched {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("team".to_owned()),
        uid: Some(uid.to_owned()),
        generation: Some(generation),
        ..ObjectMeta::default()
    };
    Watched { types: None, metadata, _phantom: std::marker::PhantomData }
}

/// A shared watch whose events the test sends.
struct Fixture {
    events: UnboundedSender<watcher::Result<Event<Watched>>>,
    shared: SharedWatch<Watched>,
    watch: JoinHandle<()>,
}

impl Fixture {
    fn new() -> Self {
        let (events, received) = unbounded();
        let (shared, keep_up_to_date) = share(Watch::Machines, received);
        Self { events, shared, watch: tokio::spawn(keep_up_to_date) }
    }

    async fn send(&self, events: impl IntoIterator<Item = Event<Watched>>) {
        for event in events {
            self.events.unbounded_send(Ok(event)).unwrap();
        }
        // Lets the watch process all events. All tasks of a test run on one thread, so the watch runs while this task
        // yields.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the changes that a new subscription yields, as text. Only a new generation counts as a change.
    fn subscribe(&self) -> impl Stream<Item = String> + Unpin + use<> {
        let changes = self.shared.subscribe(|before, after| before.meta().generation != after.meta().generation);
        let text = |change: Change<Watched>| match change {
            Change::Applied(object) => format!("apply {} {}", object.name_any(), object.meta().generation.unwrap()),
            Change::Deleted(object) => format!("delete {} {}", object.name_any(), object.uid().unwrap()),
            Change::Listed(_) => "list".to_owned(),
        };
        Box::pin(changes.map(text))
    }
}

/// Returns everything that a subscription yields without waiting.
fn yielded(subscription: &mut (impl Stream<Item = String> + Unpin)) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(Some(change)) = futures::FutureExt::now_or_never(subscription.next()) {
        all.push(change);
    }
    all
}

fn list(objects: impl IntoIterator<Item = Watched>) -> Vec<Event<Watched>> {
    let objects = objects.into_iter().map(Event::InitApply);
    [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).collect()
}

#[tokio::test]
async fn subscribers_get_the_list_once_complete_then_each_change_they_asked_for() {
    let fixture = Fixture::new();
    let (mut first, mut other) = (fixture.subscribe(), fixture.subscribe());
    fixture.send([Event::Init, Event::InitApply(machine("a", "1", 1))]).await;
    assert!(yielded(&mut first).is_empty(), "the list is not complete");
    fixture.send([Event::InitDone]).await;
    assert_eq!(yielded(&mut first), ["list"]);
    let changes = [machine("a", "1", 1), machine("b", "2", 1)].map(Event::Apply);
    fixture.send(changes.into_iter().chain([Event::Apply(machine("a", "1", 2))])).await;
    assert_eq!(yielded(&mut first), ["apply a 2", "apply b 1"]);
    fixture.send([Event::Delete(machine("a", "1", 2))]).await;
    assert_eq!(yielded(&mut first), ["delete a 1"]);
    // The first poll of the second subscriber yields the current list. The late poll did not delay the first
    // subscriber.
    assert_eq!(yielded(&mut other), ["list"]);
    let mut late = fixture.subscribe();
    assert_eq!(yielded(&mut late), ["list"]);
    fixture.send([Event::Delete(machine("b", "2", 1))]).await;
    for subscriber in [&mut first, &mut other, &mut late] {
        assert_eq!(yielded(subscriber), ["delete b 2"]);
    }
}

#[tokio::test]
async fn object_recreated_between_two_turns_is_deleted_first() {
    let fixture = Fixture::new();
    let mut subscriber = fixture.subscribe();
    fixture.send(list([machine("a", "1", 1)])).await;
    assert_eq!(yielded(&mut subscriber), ["list"]);
    fixture.send([Event::Delete(machine("a", "1", 1)), Event::Apply(machine("a", "2", 1))]).await;
    assert_eq!(yielded(&mut subscriber), ["delete a 1", "apply a 1"]);
}

#[tokio::test]
async fn new_list_yields_missed_deletions_and_changes_before_it() {
    let fixture = Fixture::new();
    let mut subscriber = fixture.subscribe();
    fixture.send(list([machine("a", "1", 1), machine("b", "2", 1), machine("c", "3", 1)])).await;
    assert_eq!(yielded(&mut subscriber), ["list"]);
    fixture.send(list([machine("b", "2", 5), machine("c", "3", 1), machine("new", "4", 1)])).await;
    assert_eq!(yielded(&mut subscriber), ["delete a 1", "apply b 5", "list"]);
}

#[tokio::test]
async fn slow_subscriber_compares_the_store_and_loses_no_deletion() {
    let fixture = Fixture::new();
    let mut subscriber = fixture.subscribe();
    let many = 3 * MAX_QUEUED_NAMES;
    let all = |generation| (0..many).map(move |index| machine(&format!("m{index}"), &index.to_string(), generation));
    fixture.send(list(all(1))).await;
    assert_eq!(yielded(&mut subscriber), ["list"]);
    fixture.send(all(2).map(Event::Apply)).await;
    fixture.send(all(2).take(many / 2).map(Event::Delete)).await;
    {
        let feeds = lock(&fixture.shared.feeds);
        let feed = feeds.feeds[0].upgrade().unwrap();
        assert!(lock(&feed.queue).names.len() <= MAX_QUEUED_NAMES);
    }
    let changes = yielded(&mut subscriber);
    let count = |kind: &str| changes.iter().filter(|change| change.starts_with(kind)).count();
    assert_eq!((count("delete"), count("apply"), count("list")), (many / 2, many - many / 2, 1));
    fixture.send([Event::Apply(machine("m9999", "x", 1))]).await;
    assert_eq!(yielded(&mut subscriber), ["apply m9999 1"]);
}

#[tokio::test]
async fn streams_end_with_the_watch_and_a_dropped_subscriber_is_forgotten() {
    let fixture = Fixture::new();
    let (mut subscriber, dropped) = (fixture.subscribe(), fixture.subscribe());
    drop(dropped);
    fixture.send(list([machine("a", "1", 1)])).await;
    assert_eq!(lock(&fixture.shared.feeds).feeds.len(), 1);
    fixture.watch.abort();
    assert!(fixture.watch.await.unwrap_err().is_cancelled());
    assert_eq!((subscriber.next().await, subscriber.next().await), (Some("list".to_owned()), None));
    let mut late = fixture.shared.subscribe(|_, _| true).boxed();
    assert!(matches!(late.next().await, Some(Change::Listed(_))) && late.next().await.is_none());
}

#[tokio::test]
async fn failed_watch_goes_on_with_the_next_event() {
    let fixture = Fixture::new();
    let mut subscriber = fixture.subscribe();
    fixture.events.unbounded_send(Err(watcher::Error::NoResourceVersion)).unwrap();
    fixture.send(list([machine("a", "1", 1)])).await;
    assert_eq!(yielded(&mut subscriber), ["list"]);
}
