//! Starts a Kubernetes control plane on loopback: only etcd and kube-apiserver, with RBAC and admission.
//!
//! There is no scheduler and no kubelet, because Writ needs only the API server. [`super::Controllers`] starts the
//! controller manager, if a test needs it. Without the controller manager, deleted namespaces stay in `Terminating`,
//! and nothing is garbage collected.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::certificates::{self, Authority, Identity, User};
use super::error::LabError;
use super::processes::{Process, Reaper, lock};
use super::toolbox::Toolbox;
use super::{files, kubeconfig, readiness, say};

/// Maximum time for the start of a control plane. On two idle cores, a start takes 2 to 3 s.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Maximum time for a server to end after TERM. The API server completes requests in progress, but not watches.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Maximum number of attempts to start both servers. An attempt fails if another process takes a chosen port before the
/// server binds the port.
const PORT_ATTEMPTS: usize = 5;
/// Message of etcd and of the API server if another process has the port.
const PORT_TAKEN: &str = "address already in use";

/// Options for the start of a control plane.
#[derive(Debug, Clone, Default)]
pub struct ControlPlaneOptions {
    /// True to run etcd without fsync. Tests are then faster, and only a power failure could damage the data. The demo
    /// uses fsync, so that its times are realistic.
    pub unsafe_no_fsync: bool,
    /// Further flags of kube-apiserver, for example `--v=4`.
    pub api_server_flags: Vec<String>,
}

/// A running control plane. It ends when this value is dropped. If this process dies first, the [`Reaper`] ends the
/// control plane.
#[derive(Debug)]
pub struct ControlPlane {
    setup: Setup,
    authority: Authority,
    ports: Ports,
    etcd: Mutex<Process>,
    /// `None` while the API server is stopped.
    api_server: Mutex<Option<Process>>,
}

/// Inputs of etcd and of the API server. They are the same for every attempt and every restart.
#[derive(Debug)]
struct Setup {
    toolbox: Toolbox,
    options: ControlPlaneOptions,
    reaper: Arc<Reaper>,
    /// Directory for keys, data, logs and kubeconfigs, mode 0700.
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    etcd_client: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl ControlPlane {
    /// Starts etcd and the API server. Returns when the API server answers requests.
    ///
    /// # Errors
    /// Returns [`LabError::NotReady`] with the end of the log if a server ends, or if the API server is not ready after
    /// 60 s. In both cases, the reaper keeps the directory of the run, with the logs.
    pub fn start(toolbox: &Toolbox, reaper: &Arc<Reaper>, options: ControlPlaneOptions) -> Result<Self, LabError> {
        let step = say::step("starting etcd and kube-apiserver");
        let folder = reaper.make_folder("control-plane", 0o700)?;
        let setup = Setup { toolbox: toolbox.clone(), options, reaper: Arc::clone(reaper), folder };
        let authority = Authority::new()?;
        setup.write_keys(&authority)?;
        let mut attempt = 1;
        let control_plane = loop {
            let ports = Ports::choose()?;
            setup.write_kubeconfigs(&authority, ports)?;
            match setup.start_both(ports) {
                Ok((etcd, api_server)) => {
                    break Self {
                        setup,
                        authority,
                        ports,
                        etcd: Mutex::new(etcd),
                        api_server: Mutex::new(Some(api_server)),
                    };
                }
                Err(LabError::NotReady { tail, .. }) if tail.contains(PORT_TAKEN) && attempt < PORT_ATTEMPTS => {
                    say::note("a port was taken by another process in the meantime; trying others");
                    setup.forget_attempt()?;
                    attempt += 1;
                }
                Err(error) => {
                    reaper.keep_folder();
                    return Err(error);
                }
            }
        };
        step.done();
        Ok(control_plane)
    }

    /// Returns the path of a user's kubeconfig file.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.setup.kubeconfig(user.name())
    }

    /// Writes a kubeconfig for another user. Returns its path.
    pub fn kubeconfig_for(&self, name: &str, group: Option<&str>) -> Result<PathBuf, LabError> {
        self.setup.write_kubeconfig(&self.authority, self.ports, name, group)
    }

    /// Writes a kubeconfig for an existing service account, with a token that is valid for a day. Returns its path.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf, LabError> {
        let create = ["create", "token", name, "--duration=24h", "--namespace", namespace];
        let token = files::run(self.kubectl(User::Admin).args(create))?;
        let path = self.setup.kubeconfig(&format!("{namespace}-{name}"));
        let text = kubeconfig::with_token(&self.server(), &self.authority.pem(), name, token.trim());
        files::write(&path, text, 0o600)?;
        Ok(path)
    }

    /// Returns the reaper, which ends the processes of this run.
    pub fn reaper(&self) -> &Arc<Reaper> {
        &self.setup.reaper
    }

    /// Returns the API server's address: `https://127.0.0.1:40123`.
    pub fn server(&self) -> String {
        self.ports.server()
    }

    /// Returns the certificate of the authority that signed the API server's certificate, PEM.
    pub fn certificate_authority(&self) -> String {
        self.authority.pem()
    }

    /// Returns the directory with the data, the keys and the logs (`etcd.log`, `kube-apiserver.log`).
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// Returns a kubectl command that acts as this user.
    pub fn kubectl(&self, user: User) -> Command {
        let mut kubectl = Command::new(&self.setup.toolbox.kubectl);
        kubectl.arg("--kubeconfig").arg(self.kubeconfig(user));
        kubectl
    }

    /// Stops the API server, as an upgrade does, while etcd continues. Does nothing if the API server is stopped
    /// already.
    pub fn stop_api_server(&self) {
        if let Some(process) = lock(&self.api_server).take() {
            process.end(END_PATIENCE);
        }
    }

    /// Kills the API server, while etcd continues.
    pub fn kill_api_server(&self) {
        if let Some(process) = lock(&self.api_server).take() {
            process.kill();
        }
    }

    /// Starts the API server again, with the same port and data. Returns when the API server answers requests.
    pub fn start_api_server(&self) -> Result<(), LabError> {
        self.start_api_server_with(&[])
    }

    /// Starts the API server like [`Self::start_api_server`], with further flags. The next start does not have them.
    pub fn start_api_server_with(&self, flags: &[&str]) -> Result<(), LabError> {
        let mut slot = lock(&self.api_server);
        if slot.is_none() {
            let process = self.setup.spawn_api_server(self.ports, flags)?;
            self.setup.wait_until_ready(&process, &lock(&self.etcd))?;
            *slot = Some(process);
        }
        Ok(())
    }

    /// Kills both servers. No process reads their data again, so a clean stop is not needed.
    pub fn stop(&self) {
        self.kill_api_server();
        lock(&self.etcd).kill();
    }

    /// Copies the data of etcd, for a later [`Self::restore`]. Restarts both servers.
    pub fn back_up(&self) -> Result<(), LabError> {
        self.swap_data("etcd", "etcd-backup")
    }

    /// Restores the data of etcd from the last [`Self::back_up`], as after a disaster. Later changes are lost. Restarts
    /// both servers.
    pub fn restore(&self) -> Result<(), LabError> {
        self.swap_data("etcd-backup", "etcd")
    }

    fn swap_data(&self, from: &str, to: &str) -> Result<(), LabError> {
        self.stop_api_server();
        let mut etcd = lock(&self.etcd);
        etcd.end(END_PATIENCE);
        let (from, to) = (self.setup.path(from), self.setup.path(to));
        if to.exists() {
            std::fs::remove_dir_all(&to).map_err(LabError::file("remove", &to))?;
        }
        files::run(Command::new("cp").arg("-a").arg(from).arg(to))?;
        *etcd = self.setup.spawn_etcd(self.ports)?;
        drop(etcd);
        self.start_api_server()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Ports {
    /// Chooses three free ports. Each port stays bound until all are chosen, so that all ports differ.
    fn choose() -> Result<Self, LabError> {
        let free = || TcpListener::bind("127.0.0.1:0").map_err(LabError::run("a server on 127.0.0.1"));
        let number = |held: &TcpListener| Ok(held.local_addr().map_err(LabError::run("a server on 127.0.0.1"))?.port());
        let (first, second, third) = (free()?, free()?, free()?);
        Ok(Self { etcd_client: number(&first)?, etcd_peer: number(&second)?, api_server: number(&third)? })
    }

    fn server(self) -> String {
        format!("https://127.0.0.1:{}", self.api_server)
    }
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.path(&format!("{user}.kubeconfig"))
    }

    /// Returns `--FLAG=PATH`. PATH is the file `name` in the directory of the control plane.
    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    fn write_keys(&self, authority: &Authority) -> Result<(), LabError> {
        let write = |name: &str, identity: &Identity| {
            files::write(&self.path(&format!("{name}.crt")), &identity.certificate, 0o600)?;
            files::write(&self.path(&format!("{name}.key")), &identity.key, 0o600)
        };
        files::write(&self.path("ca.crt"), authority.pem(), 0o600)?;
        write("etcd", &authority.server("etcd")?)?;
        write("kube-apiserver", &authority.server("kube-apiserver")?)?;
        write("etcd-client", &authority.client("kube-apiserver", None)?)?;
        write("service-accounts", &certificates::service_account_key()?)
    }

    fn write_kubeconfigs(&self, authority: &Authority, ports: Ports) -> Result<(), LabError> {
        User::ALL
            .iter()
            .try_for_each(|user| self.write_kubeconfig(authority, ports, user.name(), user.group()).map(drop))
    }

    fn write_kubeconfig(
        &self,
        authority: &Authority,
        ports: Ports,
        name: &str,
        group: Option<&str>,
    ) -> Result<PathBuf, LabError> {
        let path = self.kubeconfig(name);
        let identity = authority.client(name, group)?;
        files::write(&path, kubeconfig::text(&ports.server(), &authority.pem(), name, &identity), 0o600)?;
        Ok(path)
    }

    /// Deletes the data and the logs of an attempt whose port was taken. Otherwise the next attempt would read the old
    /// port from the data, and the old error from the logs.
    fn forget_attempt(&self) -> Result<(), LabError> {
        for log in ["etcd.log", "kube-apiserver.log"] {
            files::write(&self.path(log), "", 0o600)?;
        }
        let data = self.path("etcd");
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::file("remove", data)(error)),
            _ => Ok(()),
        }
    }

    /// Starts both servers concurrently. The API server retries until etcd answers.
    fn start_both(&self, ports: Ports) -> Result<(Process, Process), LabError> {
        let etcd = self.spawn_etcd(ports)?;
        let api_server = self.spawn_api_server(ports, &[])?;
        self.wait_until_ready(&api_server, &etcd)?;
        Ok((etcd, api_server))
    }

    fn spawn_etcd(&self, ports: Ports) -> Result<Process, LabError> {
        let (client, peer) =
            (format!("https://127.0.0.1:{}", ports.etcd_client), format!("https://127.0.0.1:{}", ports.etcd_peer));
        let mut etcd = Command::new(&self.toolbox.etcd);
        etcd.args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")]);
        etcd.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
        etcd.args([format!("--initial-cluster=lab={peer}"), "--name=lab".into(), self.flag("data-dir", "etcd")]);
        // Every user of this machine can reach the port, so etcd requires a client certificate of this run.
        for prefix in ["", "peer-"] {
            etcd.args([
                self.flag(&format!("{prefix}cert-file"), "etcd.crt"),
                self.flag(&format!("{prefix}key-file"), "etcd.key"),
                self.flag(&format!("{prefix}trusted-ca-file"), "ca.crt"),
                format!("--{prefix}client-cert-auth=true"),
            ]);
        }
        if self.options.unsafe_no_fsync {
            etcd.arg("--unsafe-no-fsync");
        }
        self.reaper.spawn("etcd", &mut etcd, &self.path("etcd.log"))
    }

    fn spawn_api_server(&self, ports: Ports, flags: &[&str]) -> Result<Process, LabError> {
        let mut api_server = Command::new(&self.toolbox.kube_apiserver);
        api_server.args([
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", ports.api_server),
            // A Service must not have a loopback endpoint, so the API server registers no endpoint for `kubernetes`.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd_client),
            self.flag("etcd-cafile", "ca.crt"),
            self.flag("etcd-certfile", "etcd-client.crt"),
            self.flag("etcd-keyfile", "etcd-client.key"),
            self.flag("tls-cert-file", "kube-apiserver.crt"),
            self.flag("tls-private-key-file", "kube-apiserver.key"),
            self.flag("client-ca-file", "ca.crt"),
            "--anonymous-auth=false".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // This plugin would wait for the service account `default`, which exists only with the controller manager.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            self.flag("service-account-key-file", "service-accounts.crt"),
            self.flag("service-account-signing-key-file", "service-accounts.key"),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--profiling=false".to_owned(),
        ]);
        api_server.args(&self.options.api_server_flags).args(flags);
        self.reaper.spawn("kube-apiserver", &mut api_server, &self.path("kube-apiserver.log"))
    }

    fn wait_until_ready(&self, api_server: &Process, etcd: &Process) -> Result<(), LabError> {
        let not_ready = |name: &str, what: String| {
            let log = self.path(&format!("{name}.log"));
            LabError::NotReady { name: name.to_owned(), what, tail: files::tail(&log), log }
        };
        let started = Instant::now();
        let check = readiness::Check::new(&self.kubeconfig(User::Admin.name()))?;
        while !check.is_ready()? {
            for (name, process) in [("etcd", etcd), ("kube-apiserver", api_server)] {
                if let Some(status) = process.ended() {
                    return Err(not_ready(name, format!("ended ({status})")));
                }
            }
            if started.elapsed() > START_PATIENCE {
                let what = format!("was not ready after {} s", START_PATIENCE.as_secs());
                return Err(not_ready("kube-apiserver", what));
            }
        }
        Ok(())
    }
}
