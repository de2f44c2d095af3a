//! What all tests share: one control plane, started by the first test that needs it and ended with this process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::lab::{ControlPlane, ControlPlaneOptions, Reaper, Toolbox, User};

/// A control plane with the CRDs and the operator's role installed.
pub struct World {
    pub reaper: Arc<Reaper>,
    pub control_plane: ControlPlane,
}

static WORLD: OnceLock<World> = OnceLock::new();
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// The one that all tests share. A static is never dropped: the reaper ends its processes when this process is gone.
pub fn world() -> &'static World {
    WORLD.get_or_init(World::start)
}

impl World {
    /// One of a test's own, for what would disturb the others.
    pub fn start() -> Self {
        Self::start_with(quick())
    }

    /// One whose control plane is started so.
    pub fn start_with(options: ControlPlaneOptions) -> Self {
        let world = Self::without_stamping_with(options);
        let applied = Instant::now();
        world.apply_file("deploy/requester-1.36.yaml");
        world.wait_until_requesters_are_stamped();
        // Nobody is believed before that; the times are in whole seconds.
        std::thread::sleep(Duration::from_secs(7).saturating_sub(applied.elapsed()));
        world
    }

    /// One in which nothing says who asks.
    pub fn without_stamping() -> Self {
        Self::without_stamping_with(quick())
    }

    fn without_stamping_with(options: ControlPlaneOptions) -> Self {
        let reaper = Reaper::start().expect("a reaper");
        let toolbox = Toolbox::find_or_build().expect("the programs of the control plane");
        let control_plane = ControlPlane::start(&toolbox, &reaper, options).expect("a control plane");
        let world = Self { reaper, control_plane };
        world.apply_file("crds");
        world.apply_file("deploy/operator-role.yaml");
        world.apply_file("deploy/user-role.yaml");
        let role = "--clusterrole=writ-operator-admission";
        world.kubectl_succeeds(&[
            "create",
            "clusterrolebinding",
            "writ-operator-admission",
            role,
            "--user=writ-operator",
        ]);
        world.kubectl_succeeds(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        world
    }

    /// Admission policies are in force a moment after they are stored.
    fn wait_until_requesters_are_stamped(&self) {
        // Worlds may start at the same time, and each removes its own.
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

    fn apply_file(&self, path: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        self.kubectl_succeeds(&["apply", "-f", path.to_str().expect("a UTF-8 path")]);
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

    /// A client as the administrator. Made for each test: a client belongs to the runtime that it was made in.
    pub async fn client(&self) -> Client {
        client_of(&self.control_plane.kubeconfig(User::Admin)).await
    }

    /// A name that no other test of this process has.
    pub fn namespace_name(&self) -> String {
        format!("case-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed))
    }
}

/// Right for tests, where no power fails.
fn quick() -> ControlPlaneOptions {
    ControlPlaneOptions { unsafe_no_fsync: true, ..ControlPlaneOptions::default() }
}

/// A client as the user of a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}
