//! Control plane with the chart installed, which all tests share. The first test that needs the control plane starts
//! it. The control plane ends with this process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::lab::{ControlPlane, ControlPlaneOptions, Controllers, Reaper, Toolbox, User};

/// Path of the chart in the repository.
pub const CHART: &str = "charts/writ";
/// Chart values of these tests. The control plane has no node for a Pod.
const STANDARD_VALUES: [&str; 10] = [
    "--set",
    "replicaCount=0",
    // Tests cannot wait for a day. Tests of the retention set another value.
    "--set",
    "serve.minimumRetentionSeconds=0",
    "--set-json",
    r#"admission.exemptUsers=["admin"]"#,
    "--set-json",
    r#"admission.operators=["limited-operator"]"#,
    // The ServiceAccount of the gateway and its rights. A gateway of a test is a process of that test.
    "--set",
    "gateway.enabled=true,gateway.behindTlsProxy=true",
];

/// Control plane with the chart installed, except for the process: CRDs, admission policies, roles, the ServiceAccount.
pub struct World {
    // Dropped first, because the controllers use the control plane.
    _controllers: Controllers,
    pub control_plane: ControlPlane,
    pub reaper: Arc<Reaper>,
    /// Kubeconfig with a token of the chart's ServiceAccount, for `writ serve`.
    pub operator: PathBuf,
    helm: PathBuf,
}

/// Namespace of the release, where `writ serve` would run in a Pod.
pub const HOME: &str = "writ-system";
/// Name of the chart's ServiceAccount.
pub const ACCOUNT: &str = "writ";
/// Name of the gateway's ServiceAccount.
pub const GATEWAY_ACCOUNT: &str = "writ-gateway";

static WORLD: OnceLock<Arc<World>> = OnceLock::new();
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// Returns the world that all tests share. Rust never drops a static, so the reaper ends its processes after this
/// process.
pub fn world() -> Arc<World> {
    WORLD.get_or_init(World::start).clone()
}

impl World {
    /// Starts a separate world, for a test that would disturb the others.
    pub fn start() -> Arc<Self> {
        Self::start_with(quick())
    }

    /// Starts a world with these options of its control plane.
    pub fn start_with(options: ControlPlaneOptions) -> Arc<Self> {
        let mut world = Self::bare(options);
        world.install(&[]);
        let installed = Instant::now();
        world.wait_until_requesters_are_stamped();
        // Writ trusts requesters only five seconds after the last policy was stored, and the times are whole seconds.
        std::thread::sleep(Duration::from_secs(7).saturating_sub(installed.elapsed()));
        Arc::new(world)
    }

    /// Starts a world in which the API server does not record the requester.
    pub fn without_stamping() -> Arc<Self> {
        let mut world = Self::bare(quick());
        world.install(&["--set", "admission.install=false"]);
        Arc::new(world)
    }

    /// Starts a world without objects of Writ.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::bare(quick()))
    }

    fn bare(options: ControlPlaneOptions) -> Self {
        let reaper = Reaper::start().expect("a reaper");
        let toolbox = Toolbox::find_or_build().expect("the programs of the control plane");
        let helm = Toolbox::helm().expect("Helm");
        let control_plane = ControlPlane::start(&toolbox, &reaper, options).expect("a control plane");
        let controllers = Controllers::start(&control_plane).expect("the controllers of Kubernetes");
        Self { _controllers: controllers, control_plane, reaper, operator: PathBuf::new(), helm }
    }

    /// Installs the chart as the administrator. The administrator may do what otherwise only Writ may do, because tests
    /// forge records.
    fn install(&mut self, values: &[&str]) {
        let create = ["install", "writ", CHART, "--namespace", HOME, "--create-namespace"];
        self.helm_succeeds(&[&create, &STANDARD_VALUES[..], values].concat());
        self.kubectl_succeeds(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        self.operator = self.control_plane.service_account_kubeconfig(HOME, ACCOUNT).expect("a token");
    }

    /// Changes values of the release that [`World`] installed.
    pub fn upgrade(&self, values: &[&str]) {
        let upgrade = ["upgrade", "writ", CHART, "--namespace", HOME];
        self.helm_succeeds(&[&upgrade, &STANDARD_VALUES[..], values].concat());
    }

    /// Runs Helm as the administrator. Helm's own files go into the directory of the test run.
    pub fn helm(&self, arguments: &[&str]) -> Output {
        let own = self.reaper.folder().join("helm");
        let mut command = Command::new(&self.helm);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, own.join(folder));
        }
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig(User::Admin));
        command.args(arguments).output().expect("helm runs")
    }

    #[track_caller]
    pub fn helm_succeeds(&self, arguments: &[&str]) -> String {
        let output = self.helm(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the admission policies take effect, which is a moment after they are stored.
    fn wait_until_requesters_are_stamped(&self) {
        // Worlds may start concurrently, and each one removes its own file.
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let probe = std::env::temp_dir().join(format!("writ-probe-{}-{number}.yaml", std::process::id()));
        let text = "apiVersion: writ.dev/v1alpha1\nkind: CommandExecution\nmetadata: {name: probe}\n\
                    spec: {machineRef: {name: none}, command: none}\n";
        std::fs::write(&probe, text).expect("a manifest");
        let path = probe.to_str().expect("a UTF-8 path");
        let create = [
            "create",
            "--dry-run=server",
            "-f",
            path,
            "-o",
            "jsonpath={.spec.requestedBy.username}{.spec.cancelledBy}",
        ];
        let is_stamped = (0..300).any(|_| {
            let output = self.kubectl(&create);
            let is_stamped = String::from_utf8_lossy(&output.stdout) == "admin";
            if !is_stamped {
                std::thread::sleep(Duration::from_millis(100));
            }
            is_stamped
        });
        let _ = std::fs::remove_file(&probe);
        assert!(is_stamped, "requesters are not stamped");
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command: Command = self.control_plane.kubectl(User::Admin);
        command.args(arguments).output().expect("kubectl runs")
    }

    #[track_caller]
    pub fn kubectl_succeeds(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns a client of the administrator. Each test needs its own, because a client belongs to the runtime that
    /// created it.
    pub async fn client(&self) -> Client {
        client_of(&self.control_plane.kubeconfig(User::Admin)).await
    }

    /// Returns a namespace name that no other test of this process uses.
    pub fn namespace_name(&self) -> String {
        format!("case-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed))
    }
}

/// Returns options without fsync, because the data need not survive a power failure.
fn quick() -> ControlPlaneOptions {
    ControlPlaneOptions { unsafe_no_fsync: true, ..ControlPlaneOptions::default() }
}

/// Returns a client for the user of a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}
