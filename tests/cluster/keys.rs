//! Helpers for tests of `writ::ssh` itself: keys and certificates by the real ssh-keygen, and servers that have them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use writ::ssh::{
    AddressPolicy, ConnectError, Connection, Credentials, HostKeyConfig, HostKeyVerifier, Target, connect,
};

use crate::lab::openssh::Openssh;
use crate::lab::{Reaper, Sshd, SshdOptions};

/// Deadline of each connection, far longer than any of them takes. These tests do not measure time.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Returns a policy that allows all addresses, including those of this host.
pub fn everywhere() -> AddressPolicy {
    let allow = ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128"].map(|range| range.parse().expect("a range"));
    AddressPolicy::new(allow.to_vec(), Vec::new(), Vec::new())
}

/// Returns a server as a target, with these settings for its host key.
pub fn target(sshd: &Sshd, parts: HostKeyConfig<'_>) -> Target {
    Target {
        address: "127.0.0.1".to_owned(),
        port: sshd.port(),
        user: sshd.user().to_owned(),
        host_keys: HostKeyVerifier::parse(parts).expect("something to trust"),
        prefer: None,
        namespace: "lab".to_owned(),
        admission: None,
    }
}

/// Returns a server as a target that is known by its own ed25519 key.
pub fn pinned(sshd: &Sshd) -> Target {
    pinned_by(sshd, &[sshd.host_key().expect("a host key")])
}

pub fn pinned_by(sshd: &Sshd, keys: &[String]) -> Target {
    target(sshd, HostKeyConfig { host_keys: keys, name: "127.0.0.1", ..HostKeyConfig::default() })
}

/// Returns the login key that a server of the lab accepts.
pub fn credentials(sshd: &Sshd) -> Credentials {
    Credentials::parse(sshd.private_key().expect("a key").as_bytes(), None, None).expect("a key that can be used")
}

/// Logs in with the key that the server accepts.
pub async fn log_in(sshd: &Sshd, target: &Target) -> Result<Connection, ConnectError> {
    connect(target, &credentials(sshd), &everywhere(), DEADLINE).await
}

/// Starts a server without a control plane.
pub fn start(options: &SshdOptions) -> Sshd {
    static REAPER: OnceLock<Arc<Reaper>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| Reaper::start().expect("a reaper"));
    Sshd::start(reaper, options).expect("an sshd")
}

/// Returns the number of authentication requests in the log of the server.
pub fn attempts(sshd: &Sshd) -> usize {
    sshd.log().expect("a log").matches("userauth-request").count()
}

/// A directory of keys.
pub struct Keys {
    folder: tempfile::TempDir,
    keygen: PathBuf,
}

impl Keys {
    pub fn new() -> Self {
        let keygen = Openssh::find_or_install().expect("OpenSSH").ssh_keygen;
        Self { folder: tempfile::tempdir().expect("a folder"), keygen }
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new(&self.keygen).arg("-q").args(arguments).output().expect("ssh-keygen runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path in ASCII").to_owned()
    }

    /// Makes a key pair. `kind` has the options of ssh-keygen, for example `-t rsa -b 2048`. Returns the path of the
    /// private key.
    pub fn make(&self, name: &str, kind: &str) -> PathBuf {
        self.make_encrypted(name, kind, "")
    }

    pub fn make_encrypted(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let path = self.text_path(name);
        let mut arguments = vec!["-N", passphrase, "-C", "", "-f", &path];
        arguments.extend(kind.split(' '));
        self.run(&arguments);
        self.path(name)
    }

    /// Returns the line of a public key.
    pub fn line(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a .pub file").trim().to_owned()
    }

    pub fn private(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a key")
    }

    /// Returns the fingerprint, as ssh-keygen prints it.
    pub fn fingerprint(&self, name: &str) -> String {
        let output = Command::new(&self.keygen).arg("-lf").arg(self.path(name)).output().expect("ssh-keygen runs");
        let printed = String::from_utf8(output.stdout).expect("text");
        printed.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// Signs a key with an authority, and returns the path of the certificate. `options` are those of ssh-keygen. Each
    /// certificate has its own file.
    pub fn sign(&self, authority: &str, key: &str, certificate: &str, options: &str) -> PathBuf {
        // ssh-keygen names the certificate after the key file.
        let copy = format!("{certificate}.pub");
        std::fs::copy(self.path(&format!("{key}.pub")), self.path(&copy)).expect("a copy");
        let (authority, copy) = (self.text_path(authority), self.text_path(&copy));
        let mut arguments = vec!["-s", &authority, "-I", "writ-lab"];
        arguments.extend(options.split(' '));
        arguments.push(&copy);
        self.run(&arguments);
        self.path(&format!("{certificate}-cert.pub"))
    }
}

/// Starts a server with these host keys and these certificates for them.
pub fn start_with(host_keys: &[&Path], certificates: &[&Path]) -> Sshd {
    start(&options_with(host_keys, certificates))
}

pub fn options_with(host_keys: &[&Path], certificates: &[&Path]) -> SshdOptions {
    SshdOptions {
        host_keys: host_keys.iter().map(|path| path.to_path_buf()).collect(),
        config: certificates.iter().map(|path| format!("HostCertificate {}", path.display())).collect(),
        plain: true,
        ..SshdOptions::default()
    }
}
