use super::*;

use StreamKind::{Stderr, Stdout};

fn viewer(hub: &Hub) -> Viewer {
    hub.view("uid", Offsets::default()).expect("it runs here")
}

async fn rest(mut viewer: Viewer) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(seen) = viewer.next().await {
        all.push(seen);
    }
    all
}

fn bytes_of(seen: &[Seen], stream: StreamKind) -> Vec<u8> {
    let chunks = seen.iter().filter_map(|seen| match seen {
        Seen::Chunk(chunk) if chunk.stream == stream => Some(chunk.bytes.to_vec()),
        _ => None,
    });
    chunks.flatten().collect()
}

fn chunk(stream: StreamKind, end_offset: u64, bytes: &'static [u8]) -> Seen {
    Seen::Chunk(Chunk { stream, end_offset, bytes: Bytes::from_static(bytes) })
}

#[tokio::test]
async fn viewers_see_both_streams_in_order_and_then_the_end() {
    let hub = Hub::default();
    let publisher = hub.publish("uid");
    let early = viewer(&hub);
    publisher.push(Stdout, b"one");
    publisher.push(Stderr, b"two");
    publisher.push(Stdout, b"three");
    let late = viewer(&hub);
    drop(publisher);
    let expected = [chunk(Stdout, 3, b"one"), chunk(Stderr, 3, b"two"), chunk(Stdout, 8, b"three")];
    assert_eq!(rest(early).await, expected);
    assert_eq!(rest(late).await, expected);
    assert!(hub.view("uid", Offsets::default()).is_none(), "it runs no more");
}

#[tokio::test]
async fn a_viewer_waits_for_what_comes() {
    let hub = Hub::default();
    let publisher = hub.publish("uid");
    let watching = tokio::spawn(rest(viewer(&hub)));
    for _ in 0..100 {
        publisher.push(Stdout, b"x");
        tokio::task::yield_now().await;
    }
    drop(publisher);
    assert_eq!(bytes_of(&watching.await.unwrap(), Stdout).len(), 100);
}

#[tokio::test]
async fn a_viewer_begins_at_its_offset_also_in_the_middle_of_a_chunk() {
    let hub = Hub::default();
    let publisher = hub.publish("uid");
    publisher.push(Stdout, b"0123456789");
    let at_four = hub.view("uid", Offsets { stdout: 4, stderr: 0 }).unwrap();
    drop(publisher);
    assert_eq!(rest(at_four).await, [chunk(Stdout, 10, b"456789")]);
}

#[tokio::test]
async fn a_viewer_that_is_too_slow_is_told_what_it_missed() {
    let hub = Hub::default();
    let publisher = hub.publish("uid");
    let mut slow = viewer(&hub);
    publisher.push(Stderr, b"lost");
    publisher.push(Stdout, b"first");
    assert_eq!(slow.next().await, Some(chunk(Stderr, 4, b"lost")));
    publisher.push(Stderr, b"lost too");
    let much = vec![b'x'; 1 << 20];
    publisher.push(Stdout, &much);
    drop(publisher);
    let seen = rest(slow).await;
    let Seen::Skipped { stream: Stdout, from: 0, to } = seen[0] else { panic!("{:?}", seen[0]) };
    assert_eq!(to as usize + bytes_of(&seen, Stdout).len(), 5 + much.len());
    assert_eq!(seen.last(), Some(&Seen::Skipped { stream: Stderr, from: 4, to: 12 }));
}

#[tokio::test]
async fn one_that_begins_anew_keeps_its_viewers_and_repeats_nothing_to_them() {
    let hub = Hub::default();
    let old = hub.publish("uid");
    let mut viewer = viewer(&hub);
    old.push(Stdout, b"abcdef");
    assert_eq!(viewer.next().await, Some(chunk(Stdout, 6, b"abcdef")));
    let new = hub.publish("uid");
    old.push(Stdout, b"never shown");
    drop(old);
    new.push(Stdout, b"abcd");
    new.push(Stdout, b"efgh");
    drop(new);
    assert_eq!(rest(viewer).await, [chunk(Stdout, 8, b"gh")]);
}

#[test]
fn what_is_held_is_bounded_for_one_and_for_all_and_given_back() {
    let hub = Hub::default();
    let publishers: Vec<_> = (0..400).map(|index| hub.publish(&format!("uid-{index}"))).collect();
    let watched = hub.view("uid-0", Offsets::default());
    for publisher in &publishers {
        publisher.push(Stdout, &vec![b'x'; 300_000]);
        for _ in 0..100 {
            publisher.push(Stderr, b"y");
        }
        assert!(lock(&publisher.command.ring).held <= COMMAND_BYTES);
        assert!(hub.inner.held.load(Ordering::Relaxed) <= TOTAL_BYTES);
    }
    assert!(hub.inner.held.load(Ordering::Relaxed) > TOTAL_BYTES - COMMAND_BYTES);
    drop(publishers);
    assert!(hub.inner.held.load(Ordering::Relaxed) <= COMMAND_BYTES, "only what is still viewed");
    drop(watched);
    assert_eq!(hub.inner.held.load(Ordering::Relaxed), 0);
    assert!(lock(&hub.inner.commands).is_empty());
}

#[test]
fn there_is_a_bound_on_viewers_and_one_that_leaves_makes_room() {
    let hub = Hub::default();
    let _publisher = hub.publish("uid");
    let mut viewers: Vec<_> = (0..VIEWERS).map(|_| viewer(&hub)).collect();
    assert!(hub.view("uid", Offsets::default()).is_none());
    viewers.pop();
    assert!(hub.view("uid", Offsets::default()).is_some());
}
