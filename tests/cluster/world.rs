//! What all tests share: one control plane, started by the first test that needs it and ended with this process.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

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
        let reaper = Reaper::start().expect("a reaper");
        let toolbox = Toolbox::find_or_build().expect("the programs of the control plane");
        let options = ControlPlaneOptions { unsafe_no_fsync: true, ..ControlPlaneOptions::default() };
        let control_plane = ControlPlane::start(&toolbox, &reaper, options).expect("a control plane");
        let world = Self { reaper, control_plane };
        world.apply_file("crds");
        world.apply_file("deploy/operator-role.yaml");
        world.kubectl_succeeds(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        world
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
        let kubeconfig = Kubeconfig::read_from(self.control_plane.kubeconfig(User::Admin)).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
        Client::try_from(config).expect("a client")
    }

    /// A name that no other test of this process has.
    pub fn namespace_name(&self) -> String {
        format!("case-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed))
    }
}
