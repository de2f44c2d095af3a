use super::*;
use crate::api::execution_status::Encoding;

mod bucket;

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn owner() -> OutputKey {
    OutputKey { namespace: "team".to_owned(), uid: "0-1".to_owned() }
}

fn record(bytes: i64, sha256: &str) -> StreamRecord {
    let (redacted, not_stored) = (false, None);
    let sha256 = sha256.to_owned();
    StreamRecord { bytes, sha256, truncated: true, redacted, stored: true, not_stored, encoding: Encoding::Utf8 }
}

fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("made/here");
    let store = Store::open(inside.to_str().unwrap(), []).unwrap();
    (folder, store)
}

fn names(store: &Store) -> Vec<String> {
    let folder = file_of(store.inner.directory.as_deref().unwrap(), &owner());
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_folder_is_made_for_its_owner_alone_and_gives_back_what_was_put() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, store) = folder();
    let mode = std::fs::metadata(store.to_string()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    store.put(&owner(), HELLO, b"hello".to_vec().into()).await.unwrap();
    let mut read = Vec::new();
    store.fetch(&owner(), &record(5, HELLO), &mut read).await.unwrap();
    assert_eq!(read, b"hello");
    let same = Store::open_to_read(&format!("file://{store}"), []).unwrap();
    same.fetch(&owner(), &record(5, HELLO), &mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_was_changed_is_damaged_and_what_is_not_there_is_missing() {
    let (_folder, store) = folder();
    let fetch = async |record: StreamRecord| store.fetch(&owner(), &record, &mut Vec::new()).await;
    assert!(matches!(fetch(record(5, HELLO)).await, Err(StoreError::Missing)));
    for wrong in ["hallo", "hell", "hello!"] {
        store.put(&owner(), HELLO, wrong.into()).await.unwrap();
        assert!(matches!(fetch(record(5, HELLO)).await, Err(StoreError::Corrupt { .. })), "{wrong}");
    }
}

#[tokio::test]
async fn a_part_is_read_up_to_the_recorded_size() {
    let (_folder, store) = folder();
    store.put(&owner(), HELLO, b"hello".to_vec().into()).await.unwrap();
    let read = async |offset, max| store.read_at(&owner(), &record(5, HELLO), offset, max).await.unwrap();
    assert_eq!((read(0, 2).await, read(3, usize::MAX).await), ("he".into(), "lo".into()));
    assert_eq!((read(5, 1).await, read(u64::MAX, 1).await, read(1, 0).await), ("".into(), "".into(), "".into()));
    let shorter = store.read_at(&owner(), &record(9, HELLO), 3, 9).await;
    assert!(matches!(shorter, Err(StoreError::Corrupt { .. } | StoreError::Failed { .. })), "{shorter:?}");
    let missing = store.read_at(&OutputKey { uid: "0-11".to_owned(), ..owner() }, &record(5, HELLO), 0, 1).await;
    assert!(matches!(missing, Err(StoreError::Missing)), "{missing:?}");
}

#[tokio::test]
async fn all_of_an_execution_is_removed_and_nothing_of_another() {
    let (_folder, store) = folder();
    let other = OutputKey { uid: "0-10".to_owned(), ..owner() };
    store.put(&other, HELLO, b"hello".to_vec().into()).await.unwrap();
    store.remove(&owner()).await.unwrap();
    store.put(&owner(), HELLO, b"hello".to_vec().into()).await.unwrap();
    let partial = store.begin(&owner(), "stdout").await.unwrap();
    std::mem::forget(partial);
    assert_eq!(names(&store).len(), 2);
    store.remove_partials(&owner(), "recording").await.unwrap();
    assert_eq!(names(&store).len(), 2, "another upload is in progress");
    store.remove_partials(&owner(), "stdout").await.unwrap();
    assert_eq!(names(&store), [HELLO]);
    store.remove(&owner()).await.unwrap();
    assert_eq!(names(&store), Vec::<String>::new());
    store.fetch(&other, &record(5, HELLO), &mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn names_that_lead_elsewhere_stay_inside() {
    let (folder, store) = folder();
    let hostile = OutputKey { namespace: "..".to_owned(), uid: "../../x".to_owned() };
    store.put(&hostile, "../y", b"hello".to_vec().into()).await.unwrap();
    store.remove(&hostile).await.unwrap();
    assert!(folder.path().join("made/here").exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn locations_that_are_none_are_refused_with_what_to_give() {
    for location in ["", "ftp://x/y", "memory:///", "file://host/path", "s3://", "s3:///x"] {
        let error = Store::open(location, []).unwrap_err().to_string();
        assert!(error.contains("s3://BUCKET/PREFIX"), "{location}: {error}");
    }
    assert!(matches!(Store::open("/proc/none", []), Err(StoreError::Directory { .. })));
    assert!(matches!(Store::open_to_read("/no/such/folder", []), Err(StoreError::Directory { .. })));
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_is_given_up() {
    // The listener accepts connections, and sends nothing. The call must therefore end at its deadline.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let environment = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "here"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let store = Store::open("s3://bucket/prefix", environment).unwrap();
    assert!(store.to_string().contains("bucket") && store.to_string().ends_with("prefix"), "{store}");
    let started = std::time::Instant::now();
    let name = Path::from("x");
    let put = store.inner.objects.put(&name, PutPayload::new());
    let put = within(Duration::from_millis(300), "write", put).await;
    assert!(matches!(put, Err(StoreError::TooSlow { .. })));
    assert!(started.elapsed() < Duration::from_secs(600));
}

#[test]
fn the_folder_is_the_services_own_else_that_of_the_user() {
    let with = |variables: &[(&str, &str)]| {
        state_directory(|name| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned()))
            .map(|folder| folder.display().to_string())
    };
    let home = ("HOME", "/home/jane");
    assert_eq!(with(&[home]).as_deref(), Some("/home/jane/.local/state/writ"));
    assert_eq!(with(&[home, ("XDG_STATE_HOME", "/state")]).as_deref(), Some("/state/writ"));
    assert_eq!(with(&[home, ("STATE_DIRECTORY", "/var/lib/writ:/other")]).as_deref(), Some("/var/lib/writ"));
    assert_eq!(with(&[("XDG_STATE_HOME", "relative")]), None);
}
