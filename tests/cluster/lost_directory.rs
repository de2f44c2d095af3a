//! The launcher's directory is removed while a connection is open: what was known of it is of no use any more.

use writ::api::{Phase, Reason};

use crate::case::Case;

#[tokio::test]
async fn a_directory_that_somebody_removed_is_made_anew() {
    let case = Case::durable().await;
    case.execute("first", "say hello").await;
    let status = case.finished("first").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:?}");
    std::fs::remove_dir_all(case.sshd.home().join(".local/state/writ")).expect("a directory to remove");
    // Nothing has started: it may fail, but the ones after it do not.
    case.execute("second", "say hello").await;
    let status = case.finished("second").await;
    assert!(
        status.phase == Phase::Succeeded || status.reason == Some(Reason::MachineUnfit),
        "{status:?}\n{}",
        case.log()
    );
    for name in ["third", "fourth"] {
        case.execute(name, "say hello").await;
        let status = case.finished(name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{status:?}\n{}", case.log());
    }
}
