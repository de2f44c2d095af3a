//! Logins: every kind of key, certificates, addresses, and machines behind jump hosts.

use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use writ::ssh::{
    AddressPolicy, ConnectError, Connection, Credentials, CredentialsError, LoginRefusal, SessionEvent, Target,
    VerifiedBy, connect, connect_through,
};

use crate::keys::{DEADLINE, Keys, attempts, credentials, everywhere, log_in, options_with, pinned, start};
use crate::lab::{Sshd, SshdOptions};

/// Starts a server that accepts these keys.
fn letting_in(keys: &Keys, names: &[&str]) -> Sshd {
    let authorized_keys = names.iter().map(|name| keys.line(name)).collect();
    start(&SshdOptions { authorized_keys, ..options_with(&[], &[]) })
}

/// Starts a server that accepts no key, only certificates of this authority.
fn letting_in_by(keys: &Keys, authority: &str) -> Sshd {
    let trusted = format!("TrustedUserCAKeys {}.pub", keys.path(authority).display());
    start(&SshdOptions { config: vec![trusted], refuse_key: true, ..options_with(&[], &[]) })
}

/// Starts a server with these lines of configuration, and without a ledger.
fn plain(config: &[&str]) -> Sshd {
    let config = config.iter().map(|line| (*line).to_owned()).collect();
    start(&SshdOptions { config, ..options_with(&[], &[]) })
}

/// Returns the output of a command.
async fn says(connection: &Connection, command: &str) -> String {
    let mut session = connection.open(DEADLINE).await.expect("a session");
    session.exec(command).await.expect("sent");
    let mut said = Vec::new();
    loop {
        match session.next().await {
            SessionEvent::Stdout(bytes) => said.extend_from_slice(&bytes),
            SessionEvent::Closed => return String::from_utf8(said).expect("text"),
            SessionEvent::Lost => panic!("the connection is lost"),
            _ => {}
        }
    }
}

async fn enter(sshd: &Sshd, credentials: &Credentials) -> Result<Connection, ConnectError> {
    connect(&pinned(sshd), credentials, &everywhere(), DEADLINE).await
}

async fn go_through(outer: &Connection, inner: &Sshd) -> Result<Connection, ConnectError> {
    connect_through(outer, &pinned(inner), &credentials(inner), DEADLINE).await
}

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let keys = Keys::new();
    let kinds = [
        ("ed25519", "-t ed25519"),
        ("p256", "-t ecdsa -b 256"),
        ("p384", "-t ecdsa -b 384"),
        ("p521", "-t ecdsa -b 521"),
        ("rsa2048", "-t rsa -b 2048"),
        ("rsa3072", "-t rsa -b 3072"),
        ("rsa-pkcs8", "-t rsa -b 2048 -m PKCS8"),
        ("p256-pkcs8", "-t ecdsa -b 256 -m PKCS8"),
        ("p256-sec1", "-t ecdsa -b 256 -m PEM"),
    ];
    kinds.iter().for_each(|(name, kind)| drop(keys.make(name, kind)));
    let sshd = letting_in(&keys, &kinds.map(|(name, _)| name));
    for (name, _) in kinds {
        let credentials = Credentials::parse(&keys.private(name), None, None).expect(name);
        assert_eq!(credentials.fingerprint(), keys.fingerprint(name), "{name}");
        let before = sshd.log().expect("a log").len();
        let connection = enter(&sshd, &credentials).await.expect(name);
        assert_eq!(says(&connection, "echo in").await, "in\n", "{name}");
        assert!(!connection.login_time().is_zero());
        let log = sshd.log().expect("a log")[before..].to_owned();
        assert!(!log.contains("Failed publickey"), "{name}: {log}");
        assert!(!name.starts_with("rsa") || log.contains("pkalg rsa-sha2-512"), "{name}: {log}");
    }
}

#[tokio::test]
async fn an_encrypted_key_logs_in_with_its_passphrase() {
    let keys = Keys::new();
    let kinds = [
        ("ed25519", "-t ed25519"),
        ("rsa", "-t rsa -b 2048"),
        ("chacha", "-t ed25519 -Z chacha20-poly1305@openssh.com"),
        ("pkcs8", "-t ecdsa -b 256 -m PKCS8"),
    ];
    kinds.iter().for_each(|(name, kind)| drop(keys.make_encrypted(name, kind, "correct horse")));
    let sshd = letting_in(&keys, &kinds.map(|(name, _)| name));
    for (name, _) in kinds {
        let key = keys.private(name);
        let parse = |passphrase: Option<&'static str>| {
            Credentials::parse(&key, passphrase.map(str::as_bytes), None).map_err(|error| error.to_string())
        };
        // `echo` appends a line feed to the passphrase.
        let credentials = parse(Some("correct horse\n")).expect(name);
        assert_eq!(says(&enter(&sshd, &credentials).await.expect(name), "echo in").await, "in\n", "{name}");
        let (wrong, missing) = (parse(Some("battery staple")).unwrap_err(), parse(None).unwrap_err());
        assert!(wrong.contains("passphrase does not open ssh-privatekey"), "{name}: {wrong}");
        assert!(missing.contains("put its passphrase into"), "{name}: {missing}");
        assert!(!wrong.contains("battery"), "{wrong}");
    }
}

/// One P-256 key in 512 has a scalar of fewer than 32 bytes in its file.
#[tokio::test]
async fn a_key_whose_scalar_begins_with_a_zero_byte_logs_in() {
    let forms = [
        (&include_bytes!("../../src/ssh/credentials/short_scalar/p256")[..], None),
        (&include_bytes!("../../src/ssh/credentials/short_scalar/p256_encrypted")[..], Some(&b"correct horse"[..])),
    ];
    for (key, passphrase) in forms {
        let credentials = Credentials::parse(key, passphrase, None).expect("a key");
        let authorized_keys = vec![credentials.authorized_keys_line()];
        let sshd = start(&SshdOptions { authorized_keys, ..options_with(&[], &[]) });
        let connection = enter(&sshd, &credentials).await.expect("a connection");
        assert_eq!(says(&connection, "echo in").await, "in\n");
        assert!(!sshd.log().expect("a log").contains("Failed publickey"));
    }
}

#[tokio::test]
async fn a_certificate_logs_in_where_its_key_is_not_known() {
    let keys = Keys::new();
    keys.make("authority", "-t ed25519");
    let sshd = letting_in_by(&keys, "authority");
    for (name, kind) in [("a", "-t ed25519"), ("b", "-t ecdsa -b 256"), ("c", "-t rsa -b 2048")] {
        keys.make(name, kind);
        let options = format!("-n nobody,{} -V -1h:+1h", sshd.user());
        let certificate =
            std::fs::read(keys.sign("authority", name, &format!("{name}-signed"), &options)).expect("read");
        let credentials = Credentials::parse(&keys.private(name), None, Some(&certificate)).expect(name);
        let connection = enter(&sshd, &credentials).await.expect(name);
        assert_eq!(says(&connection, "echo in").await, "in\n", "{name}");
    }
    assert!(sshd.log().expect("a log").contains("rsa-sha2-512-cert-v01@openssh.com"));
}

#[tokio::test]
async fn a_certificate_that_the_machine_refuses_is_one_failed_attempt_and_said_so() {
    let keys = Keys::new();
    for name in ["authority", "other", "client"] {
        keys.make(name, "-t ed25519");
    }
    let sshd = letting_in_by(&keys, "authority");
    let user = sshd.user().to_owned();
    for (authority, principals) in [("authority", "nobody"), ("other", &*user)] {
        let options = format!("-n {principals}");
        let path = keys.sign(authority, "client", &format!("by-{authority}"), &options);
        let certificate = std::fs::read(path).expect("a certificate");
        let credentials = Credentials::parse(&keys.private("client"), None, Some(&certificate)).expect("credentials");
        let before = attempts(&sshd);
        let Err(refusal) = enter(&sshd, &credentials).await else { panic!("it was let in") };
        let fingerprint = keys.fingerprint("client");
        let expected =
            ConnectError::AuthenticationRefused { user: user.clone(), fingerprint, refusal: LoginRefusal::Certificate };
        assert_eq!(refusal, expected);
        assert!(refusal.to_string().contains("TrustedUserCAKeys"), "{refusal}");
        assert_eq!(attempts(&sshd) - before, 1, "one attempt, not one more with the bare key");
    }
}

#[test]
fn a_certificate_that_cannot_work_is_told_before_anything_is_sent() {
    let keys = Keys::new();
    for name in ["authority", "client", "other"] {
        keys.make(name, "-t ed25519");
    }
    let parse = |key: &str, name: &str, options: &str| {
        let certificate = std::fs::read(keys.sign("authority", "client", name, options)).expect("a certificate");
        Credentials::parse(&keys.private(key), None, Some(&certificate)).map_err(|error| error.to_string())
    };
    assert!(parse("client", "a", "-n deploy").is_ok());
    assert!(parse("client", "b", "-n deploy -h").unwrap_err().contains("ssh-certificate is a host certificate"));
    let other = parse("other", "c", "-n deploy").unwrap_err();
    assert!(other.contains(&keys.fingerprint("client")) && other.contains(&keys.fingerprint("other")), "{other}");
    assert!(
        parse("client", "d", "-n deploy -V 20200101:20210101").unwrap_err().contains("ssh-certificate expired at 20")
    );
    assert!(parse("client", "e", "-n deploy -V +1h:+2h").unwrap_err().contains("not valid before 20"));
    let key = keys.private("client");
    let garbage = Credentials::parse(&key, None, Some(b"ssh-ed25519 AAAA")).unwrap_err();
    assert_eq!(garbage, CredentialsError::CertificateUnparsable);
}

#[tokio::test]
async fn a_key_that_the_machine_does_not_know_is_named_with_its_user() {
    let keys = Keys::new();
    keys.make("client", "-t ed25519");
    let sshd = plain(&[]);
    let credentials = Credentials::parse(&keys.private("client"), None, None).expect("a key");
    let Err(refusal) = enter(&sshd, &credentials).await else { panic!("it was let in") };
    let said = format!("authentication failed for {} with key {};", sshd.user(), keys.fingerprint("client"));
    assert!(refusal.to_string().starts_with(&said), "{refusal}");
    assert_eq!(attempts(&sshd), 1);
}

#[tokio::test]
async fn a_machine_that_wants_a_second_method_says_so() {
    // If a setting occurs twice, sshd uses the first line.
    let sshd = plain(&["AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes"]);
    let Err(refusal) = log_in(&sshd, &pinned(&sshd)).await else { panic!("it was let in") };
    assert!(refusal.to_string().contains("AuthenticationMethods"), "{refusal}");
}

#[tokio::test]
async fn what_a_machine_says_before_a_login_is_in_no_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let banner = folder.path().join("banner");
    std::fs::write(&banner, "hello from the banner\n").expect("a file");
    let config = vec![format!("Banner {}", banner.display())];
    let sshd = start(&SshdOptions { config, refuse_key: true, ..options_with(&[], &[]) });
    let Err(refusal) = log_in(&sshd, &pinned(&sshd)).await else { panic!("it was let in") };
    assert!(!format!("{refusal} {refusal:?}").contains("banner"), "{refusal:?}");
}

#[tokio::test]
async fn an_ipv6_address_is_reached() {
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this host has no ::1, so it is not tried");
        return;
    }
    let listen_address = Some(Ipv6Addr::LOCALHOST.into());
    let sshd = start(&SshdOptions { listen_address, ..options_with(&[], &[]) });
    let target = Target { address: "::1".to_owned(), ..pinned(&sshd) };
    let connection = log_in(&sshd, &target).await.expect("a connection");
    assert_eq!(connection.peer(), format!("[::1]:{}", sshd.port()));
}

#[tokio::test]
async fn a_name_is_resolved_and_of_its_addresses_the_one_that_answers_is_used() {
    // `localhost` may resolve to ::1 first, where no server listens.
    let sshd = plain(&[]);
    let target = Target { address: "localhost".to_owned(), ..pinned(&sshd) };
    let connection = log_in(&sshd, &target).await.expect("a connection");
    assert_eq!(connection.peer(), format!("127.0.0.1:{}", sshd.port()));
}

#[tokio::test]
async fn an_address_that_is_not_permitted_is_not_connected_to() {
    let sshd = plain(&[]);
    for address in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let target = Target { address: address.to_owned(), ..pinned(&sshd) };
        let refused = connect(&target, &credentials(&sshd), &AddressPolicy::default(), DEADLINE).await;
        let Err(refusal @ ConnectError::AddressRefused { .. }) = refused else { panic!("{address} was connected to") };
        assert!(refusal.to_string().contains("--allow-cidr"), "{refusal}");
    }
    assert!(!sshd.log().expect("a log").contains("Connection from"));
}

#[tokio::test]
async fn a_machine_behind_others_is_reached_and_each_is_held_to_its_own_key() {
    let (first, second, third) = (plain(&[]), plain(&[]), plain(&[]));
    let outer = log_in(&first, &pinned(&first)).await.expect("the first");
    let middle = go_through(&outer, &second).await.expect("the second");
    let inner = go_through(&middle, &third).await.expect("the third");
    assert_eq!(says(&inner, "echo in").await, "in\n");
    let ports = [first.port(), second.port(), third.port()];
    assert_eq!(middle.peer(), format!("127.0.0.1:{} via 127.0.0.1:{}", ports[1], ports[0]));
    assert_eq!(inner.peer(), format!("127.0.0.1:{} via 127.0.0.1:{} via 127.0.0.1:{}", ports[2], ports[1], ports[0]));
    assert_eq!(inner.host_key().by, VerifiedBy::Pinned);
    // The second machine opens the connection to the third one.
    assert!(second.log().expect("a log").contains("server_request_direct_tcpip"));
    // The output is larger than one window of a channel, and passes through two other machines.
    let long = says(&inner, "head -c 6000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(long.len(), 6_000_000);
    inner.close().await;
    assert!(inner.is_closed());
    assert_eq!(says(&middle, "echo still").await, "still\n");
    drop(outer);
    let ended = async {
        while !middle.is_closed() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, ended).await.expect("what went through it ends with it");
}

#[tokio::test]
async fn an_inner_machine_with_another_key_is_told_nothing() {
    let (outer, inner, other) = (plain(&[]), plain(&[]), plain(&[]));
    let connection = log_in(&outer, &pinned(&outer)).await.expect("the outer one");
    let target = Target { port: inner.port(), ..pinned(&other) };
    let refused = connect_through(&connection, &target, &credentials(&inner), DEADLINE).await;
    let Err(refusal @ ConnectError::HostKeyMismatch { .. }) = refused else { panic!("it was logged in to") };
    assert!(refusal.to_string().contains("host key changed"), "{refusal}");
    assert_eq!(attempts(&inner), 0);
    assert!(inner.log().expect("a log").contains("Connection from"));
}

#[tokio::test]
async fn an_outer_machine_that_passes_nothing_on_is_named_with_the_setting() {
    let inner = plain(&[]);
    for setting in ["AllowTcpForwarding no", "PermitOpen none", "DisableForwarding yes"] {
        let outer = plain(&[setting]);
        let connection = log_in(&outer, &pinned(&outer)).await.expect("the outer one");
        let Err(refusal) = go_through(&connection, &inner).await else { panic!("it was passed on") };
        assert_eq!(refusal.category(), "forwarding_refused", "{refusal}");
        assert!(refusal.to_string().contains("AllowTcpForwarding"), "{refusal}");
        assert_eq!(says(&connection, "echo still").await, "still\n");
    }
    assert!(!inner.log().expect("a log").contains("Connection from"));
}

#[tokio::test]
async fn an_inner_machine_that_is_not_there_is_unreachable() {
    let (outer, inner) = (plain(&[]), plain(&[]));
    let connection = log_in(&outer, &pinned(&outer)).await.expect("the outer one");
    inner.stop();
    for address in ["127.0.0.1", "no-such-name.invalid"] {
        let target = Target { address: address.to_owned(), ..pinned(&inner) };
        let refused = connect_through(&connection, &target, &credentials(&inner), DEADLINE).await;
        let Err(ConnectError::Unreachable(message)) = refused else { panic!("{address} was reached") };
        assert!(message.contains("cannot connect to"), "{message}");
    }
}

/// Waits until at most `tasks` tasks are alive, because a task ends a moment after its last use.
async fn only_so_many_tasks_are_left(tasks: usize) {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let ended = async {
        while alive() > tasks {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, ended).await.unwrap_or_else(|_| panic!("{} tasks are left, {tasks} should be", alive()));
}

async fn no_session_is_left(sshd: &Sshd) {
    let ended = async {
        while sshd.sessions() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, ended).await.expect("sshd sees it closed");
}

/// Starts a host that accepts connections and sends nothing. The receiver gets one message for each connection that the
/// peer closed.
async fn silent() -> (u16, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, receiver) = mpsc::unbounded_channel();
    // A separate thread, so that the count of tasks does not include the host.
    std::thread::spawn(move || {
        let listener = listener.into_std().expect("a listener");
        listener.set_nonblocking(false).expect("a listener that waits");
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("a connection"), sender.clone());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                let _ = sender.send(());
            });
        }
    });
    (port, receiver)
}

#[tokio::test]
async fn a_deadline_leaves_no_task_and_no_connection_behind() {
    let outer = plain(&[]);
    let connection = log_in(&outer, &pinned(&outer)).await.expect("the outer one");
    let (port, mut closed) = silent().await;
    let target = Target { port, ..pinned(&outer) };
    let credentials = credentials(&outer);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..5 {
        let soon = Duration::from_millis(200);
        let Err(direct) = connect(&target, &credentials, &everywhere(), soon).await else { panic!("it said nothing") };
        let Err(through) = connect_through(&connection, &target, &credentials, soon).await else {
            panic!("it said nothing")
        };
        for refusal in [direct, through] {
            assert!(matches!(refusal, ConnectError::Unreachable(_)), "{refusal}");
            closed.recv().await.expect("the host sees it closed");
        }
    }
    only_so_many_tasks_are_left(tasks).await;
    assert_eq!(says(&connection, "echo still").await, "still\n");
}

#[tokio::test]
async fn a_connection_that_is_dropped_leaves_no_task_and_no_session_behind() {
    let (outer, inner) = (plain(&[]), plain(&[]));
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let connection = log_in(&outer, &pinned(&outer)).await.expect("the outer one");
    for _ in 0..3 {
        drop(go_through(&connection, &inner).await.expect("the inner one"));
        no_session_is_left(&inner).await;
    }
    // russh keeps one task for each open connection.
    only_so_many_tasks_are_left(tasks + 1).await;
    assert_eq!(says(&connection, "echo still").await, "still\n");
    drop(connection);
    only_so_many_tasks_are_left(tasks).await;
    no_session_is_left(&outer).await;
}

/// Returns the resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Not part of a normal run, because 500 pairs of sshd processes need a gigabyte of memory:
/// `cargo test --release --test cluster -- --ignored logins::an_idle_connection --nocapture`
#[tokio::test]
#[ignore = "500 connections; by hand"]
async fn an_idle_connection_costs_at_most_64_kib() {
    const MANY: u64 = 500;
    let sshd = plain(&[]);
    let (target, credentials) = (pinned(&sshd), credentials(&sshd));
    let mut connections = Vec::new();
    let mut before = 0;
    for number in 0..MANY + 20 {
        // The first 20 connections also allocate the memory that is needed only once.
        if number == 20 {
            before = resident_kib();
        }
        let connection = connect(&target, &credentials, &everywhere(), DEADLINE).await.expect("a connection");
        // One command per connection, because Writ uses every connection at least once.
        assert_eq!(says(&connection, "echo in").await, "in\n");
        connections.push(connection);
    }
    let each = resident_kib().saturating_sub(before) / MANY;
    println!("an idle connection costs {each} KiB");
    assert!(each <= 64, "{each} KiB");
}
