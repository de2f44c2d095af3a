//! Starts kube-controller-manager with the controllers that matter to custom resources. These controllers do the
//! following:
//!
//! - empty deleted namespaces,
//! - delete objects of deleted owners,
//! - fill aggregated roles,
//! - create the service account `default` of each namespace.
//!
//! Deployments, Jobs and Pods do nothing, because other controllers and nodes are missing.

use std::process::Command;
use std::time::{Duration, Instant};

use super::control_plane::ControlPlane;
use super::error::LabError;
use super::processes::Process;
use super::toolbox::Toolbox;
use super::{User, files, say};

/// Maximum time from the start to the first result of the controllers.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// kube-controller-manager with a few of its controllers. The process ends when this value is dropped.
#[derive(Debug)]
pub struct Controllers {
    process: Process,
}

impl Controllers {
    /// Starts the controllers. Returns when they work. Each controller uses its own service account, as on most
    /// clusters.
    ///
    /// # Errors
    /// Returns [`LabError::NotReady`] with the end of the log.
    pub fn start(control_plane: &ControlPlane) -> Result<Self, LabError> {
        let program = Toolbox::kube_controller_manager()?;
        let step = say::step("starting kube-controller-manager");
        let log = control_plane.folder().join("kube-controller-manager.log");
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(control_plane.kubeconfig(User::Admin)).args([
            "--controllers=namespace-controller,garbage-collector-controller,clusterrole-aggregation-controller,serviceaccount-controller",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            "--profiling=false",
        ]);
        let process = control_plane.reaper().spawn("kube-controller-manager", &mut command, &log)?;
        let controllers = Self { process };
        let started = Instant::now();
        // The controllers work as soon as one of them has created this service account.
        let look = ["get", "serviceaccount", "default", "--namespace", "default"];
        while files::run(control_plane.kubectl(User::Admin).args(look)).is_err() {
            let ended = controllers.process.ended();
            if ended.is_some() || started.elapsed() > START_PATIENCE {
                let what = ended.map_or_else(|| "did nothing".to_owned(), |status| format!("ended ({status})"));
                let name = "kube-controller-manager".to_owned();
                return Err(LabError::NotReady { name, what, tail: files::tail(&log), log });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        step.done();
        Ok(controllers)
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.process.kill();
    }
}
