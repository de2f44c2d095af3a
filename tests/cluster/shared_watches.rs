//! The watches that one `writ serve` keeps open, which its controllers share.

use std::time::{Duration, Instant};

use writ::api::{Phase, Reason};

use crate::case::Case;
use crate::proxy::Proxy;

#[tokio::test]
async fn controllers_share_one_watch_of_each_kind() {
    let mut case = Case::new().await;
    let proxy = Proxy::start(&case.world, Vec::new()).await;
    case.restart_writ_through(proxy.port);
    case.writ_serves().await;
    case.execute("x", "say hello").await;
    case.ends("x", Phase::Succeeded, Reason::Completed).await;
    // Unfinished and finished executions have one watch each, because they are different objects.
    let expected = [("commandexecutions", 2), ("machines", 1), ("whitelists", 1)];
    let expected = expected.into_iter().map(|(resource, open)| (resource.to_owned(), open)).collect();
    let (since, mut in_a_row) = (Instant::now(), 0);
    // A watch ends after 30 s and the next one starts, so a single sample may differ.
    while in_a_row < 20 {
        let open = proxy.open_watches();
        in_a_row = if open == expected { in_a_row + 1 } else { 0 };
        assert!(since.elapsed() < Duration::from_secs(60), "{open:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
