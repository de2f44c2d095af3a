//! The cluster of the demo. The demo uses it only through kubectl, as a user does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{ControlPlane, LabError, Sshd, User, files, say};

/// Preferred name of the namespace. If the name is taken, the demo adds a number.
const NAMESPACE: &str = "writ-demo";
/// File of the admission policies that record the requester in each execution.
const STAMPING: &str = "deploy/requester-1.36.yaml";
/// Files of the other objects that Writ needs in a cluster: the ServiceAccount of `writ serve`, its rights and guards,
/// and the roles of users.
const OPERATOR: [&str; 4] =
    ["deploy/operator-role.yaml", "deploy/cluster-wide.yaml", "deploy/guards.yaml", "deploy/people-roles.yaml"];
/// Namespace and name of the ServiceAccount of `writ serve`.
pub const ACCOUNT: (&str, &str) = ("writ-system", "writ");
/// Maximum number of names to try for the namespace.
const NAMES: usize = 20;
/// Maximum time until the API server serves established CRDs, and until it enforces the admission policy. On loopback
/// this takes less than a second.
const SERVED_PATIENCE: Duration = Duration::from_secs(20);
/// Interval between two checks of the API server.
const POLL: Duration = Duration::from_millis(100);

/// The cluster of the demo, with the kubeconfigs of its users and the name of its namespace.
pub struct Cluster {
    kubectl: PathBuf,
    /// Directory of kubectl's cache. It is in the directory of the run, not in the user's home.
    kubectl_cache: PathBuf,
    /// Kubeconfig of the administrator.
    pub admin: PathBuf,
    /// Kubeconfig of `writ serve`.
    pub operator: PathBuf,
    /// Name of the user of `writ serve`, for messages.
    pub operator_name: String,
    /// Kubeconfig of the requester.
    pub caller: PathBuf,
    /// Name of the requester, for messages.
    pub caller_name: String,
    /// The namespace of the demo.
    pub namespace: String,
    /// True for the cluster of `--kubeconfig`. The administrator, `writ serve` and the requester then use the same
    /// kubeconfig.
    existing: bool,
}

impl Cluster {
    /// Prepares the cluster of the laboratory's own control plane. The administrator, `writ serve` and the requester
    /// are different users.
    pub fn of_our_own(kubectl: &Path, control_plane: &ControlPlane, folder: &Path) -> Result<Self, LabError> {
        let caller = User::Jane;
        let cluster = Self {
            kubectl: kubectl.to_owned(),
            kubectl_cache: folder.join("kubectl-cache"),
            admin: control_plane.kubeconfig(User::Admin),
            operator: PathBuf::new(),
            operator_name: format!("the service account {} of {}", ACCOUNT.1, ACCOUNT.0),
            caller: control_plane.kubeconfig(caller),
            caller_name: format!("{} of the group {}", caller.name(), caller.group().unwrap_or_default()),
            namespace: String::new(),
            existing: false,
        };
        cluster.enter()
    }

    /// Prepares an existing cluster: installs the CRDs and the admission policies that record requesters, and creates a
    /// namespace. The user of the kubeconfig is administrator, operator and requester.
    pub fn existing(kubectl: &Path, kubeconfig: &Path, folder: &Path) -> Result<Self, LabError> {
        let mut cluster = Self {
            kubectl: kubectl.to_owned(),
            kubectl_cache: folder.join("kubectl-cache"),
            admin: kubeconfig.to_owned(),
            operator: kubeconfig.to_owned(),
            operator_name: String::new(),
            caller: kubeconfig.to_owned(),
            caller_name: String::new(),
            namespace: String::new(),
            existing: true,
        };
        // kubectl would treat a missing file as an empty file, so the file is checked first.
        std::fs::File::open(kubeconfig).map_err(LabError::file("read", kubeconfig))?;
        let context = files::run(cluster.as_user(&cluster.admin).args(["config", "current-context"]))?;
        let name = format!("the user of the context {}", context.trim());
        (cluster.operator_name, cluster.caller_name) = (name.clone(), name);
        cluster.enter()
    }

    /// Installs the CRDs and the admission policies, and creates the namespace. Returns when the CRDs and the policies
    /// are in effect. If the API server refuses the policies, continues without them.
    fn enter(mut self) -> Result<Self, LabError> {
        let step = say::step("installing crds/ and deploy/requester-1.36.yaml, making a namespace");
        files::run(self.as_admin().args(["apply", "--server-side", "-f"]).arg(in_repository("crds")))?;
        let wait = ["wait", "--for=condition=Established", "--timeout=30s", "-f"];
        files::run(self.as_admin().args(wait).arg(in_repository("crds")))?;
        let stamps = files::run(self.as_admin().args(["apply", "-f"]).arg(in_repository(STAMPING))).is_ok();
        self.make_namespace()?;
        self.wait_until_served()?;
        if stamps {
            self.wait_until_stamped()?;
        } else {
            say::note(
                "this cluster does not take deploy/requester-1.36.yaml (Kubernetes 1.36): nobody will be stamped",
            );
        }
        step.done();
        Ok(self)
    }

    /// Creates a namespace with a free name. An existing namespace is left unchanged.
    fn make_namespace(&mut self) -> Result<(), LabError> {
        for number in 1..=NAMES {
            let name = if number == 1 { NAMESPACE.to_owned() } else { format!("{NAMESPACE}-{number}") };
            match files::run(self.as_admin().args(["create", "namespace", &name])) {
                Ok(_) => {
                    self.namespace = name;
                    return Ok(());
                }
                Err(LabError::Failed { tail, .. }) if tail.contains("AlreadyExists") && number < NAMES => {
                    say::note(format_args!("there is a namespace {name} already; it is left alone"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the API server serves the CRDs. The API server serves a CRD only a moment after the condition
    /// Established is true.
    fn wait_until_served(&self) -> Result<(), LabError> {
        let started = Instant::now();
        let look = || files::run(self.as_admin().args(["get", "machines,whitelists,commandexecutions"]));
        while let Err(error) = look() {
            if started.elapsed() > SERVED_PATIENCE {
                return Err(error);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until the API server enforces the admission policy. Enforcement starts a moment after the policy is
    /// stored.
    fn wait_until_stamped(&self) -> Result<(), LabError> {
        let started = Instant::now();
        loop {
            let create = ["create", "--dry-run=server", "-o", "jsonpath={.spec.requestedBy.username}", "-f"];
            let look = files::run(self.as_admin().args(create).arg(in_repository("examples/say-hello.yaml")));
            match look {
                Ok(printed) if !printed.trim().is_empty() => return Ok(()),
                Err(error) if started.elapsed() > SERVED_PATIENCE => return Err(error),
                Ok(_) if started.elapsed() > SERVED_PATIENCE => {
                    say::note("the API server does not stamp who asks yet");
                    return Ok(());
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Gives `writ serve` and the requester the rights of `deploy/`. Does nothing in an existing cluster.
    pub fn give_rights(&mut self, control_plane: Option<&ControlPlane>) -> Result<(), LabError> {
        let Some(control_plane) = control_plane else { return Ok(()) };
        let (home, account) = ACCOUNT;
        files::run(self.as_admin().args(["create", "namespace", home]))?;
        let mut apply = Command::new(&self.kubectl);
        apply.arg("--kubeconfig").arg(&self.admin).arg("--cache-dir").arg(&self.kubectl_cache).arg("apply");
        let all = OPERATOR.into_iter().chain(super::gateway::FILES);
        all.for_each(|file| _ = apply.arg("-f").arg(in_repository(file)));
        files::run(&mut apply)?;
        self.operator = control_plane.service_account_kubeconfig(home, account)?;
        let account = format!("--serviceaccount={home}:{account}");
        let gateway = format!("--serviceaccount={home}:writ-gateway");
        let group = format!("--group={}", User::Jane.group().unwrap_or_default());
        // No controller fills aggregated roles here, so the demo binds the parts of these roles.
        for (name, role, to) in [
            ("writ-credentials", "writ-operator-credentials", &account),
            ("writ-viewers", "writ-base-viewer", &group),
            ("writ-requesters", "writ-base-requester", &group),
            ("writ-gateway-actions", "writ-gateway-actions", &gateway),
        ] {
            let role = format!("--clusterrole={role}");
            files::run(self.as_admin().args(["create", "rolebinding", name, &role, to]))?;
        }
        Ok(())
    }

    /// Returns true if the cluster is the laboratory's own. Only there does the demo install the gateway.
    pub fn has_gateway(&self) -> bool {
        !self.existing
    }

    /// Returns the namespace of the Lease of `writ serve`, or `None` if the Lease is in the namespace of the demo.
    pub fn lease_namespace(&self) -> Option<&'static str> {
        (!self.existing).then_some(ACCOUNT.0)
    }

    /// Writes two Machines to `file` and applies them. `web-1` is the SSH server. `web-2` is the same server, with a
    /// wrong pinned key.
    pub fn apply_machines(&self, sshd: &Sshd, file: &Path) -> Result<(), LabError> {
        let host_key = sshd.host_key().map_err(LabError::file("read", "the host key"))?;
        let private_key = sshd.private_key().map_err(LabError::file("read", sshd.private_key_path()))?;
        // `web-2` pins the client's public key, which has the right type but is not the host's key.
        let public_path = sshd.private_key_path().with_extension("pub");
        let wrong_key = std::fs::read_to_string(&public_path).map_err(LabError::file("read", public_path))?;
        let (user, port) = (sshd.user(), sshd.port());
        let text = format!(
            "{}---\n{}---\n{}",
            secret(&private_key),
            machine("web-1", user, port, &host_key),
            machine("web-2", user, port, wrong_key.trim())
        );
        files::write(file, text, 0o600)?;
        files::run(self.as_admin().args(["apply", "-f"]).arg(file)).map(drop)
    }

    /// Applies `examples/whitelist.yaml`.
    pub fn apply_whitelist(&self) -> Result<(), LabError> {
        files::run(self.as_admin().args(["apply", "-f"]).arg(in_repository("examples/whitelist.yaml"))).map(drop)
    }

    /// Applies executions of `examples/`, as the requester.
    pub fn apply_executions(&self, names: &[&str]) -> Result<(), LabError> {
        let mut apply = self.as_user(&self.caller);
        apply.arg("apply");
        for name in names {
            apply.arg("-f").arg(in_repository(&format!("examples/{name}.yaml")));
        }
        files::run(&mut apply).map(drop)
    }

    /// Returns all executions of the namespace, as a Kubernetes List.
    pub fn executions(&self) -> Result<Value, LabError> {
        let printed = files::run(self.as_user(&self.caller).args(["get", "cmdexec", "-o", "json"]))?;
        serde_json::from_str(&printed).map_err(|error| LabError::Failed {
            program: "kubectl get cmdexec -o json".to_owned(),
            tail: error.to_string(),
        })
    }

    /// Runs kubectl as the requester. Prints the command and its output.
    pub fn print(&self, arguments: &[&str]) -> Result<(), LabError> {
        let printed = files::run(self.as_user(&self.caller).args(arguments))?;
        println!("\n$ kubectl -n {} {}\n{}", self.namespace, arguments.join(" "), printed.trim_end());
        Ok(())
    }

    fn as_admin(&self) -> Command {
        self.as_user(&self.admin)
    }

    fn as_user(&self, kubeconfig: &Path) -> Command {
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(&self.kubectl_cache);
        // The limit is for a server that never answers. All requests of the demo take less than 30 s.
        kubectl.arg("--request-timeout=30s");
        if !self.namespace.is_empty() {
            kubectl.args(["--namespace", &self.namespace]);
        }
        kubectl
    }

    /// Deletes the objects of the namespace, then the namespace. The Secret with the private key is thus deleted even
    /// if no controller empties the namespace. Only for the cluster of `--kubeconfig`.
    fn remove_namespace(&self) {
        let step = say::step(format_args!("removing the namespace {}", self.namespace));
        let empty = ["delete", "--all", "commandexecutions,machines,whitelists,secrets,leases,events"];
        let delete = ["delete", "namespace", &self.namespace, "--wait=false"];
        let outcome = files::run(self.as_admin().args(empty).arg("--wait=false"))
            .and_then(|_| self.release_executions())
            .and_then(|()| files::run(self.as_admin().args(delete)));
        if let Err(error) = outcome {
            say::note(format_args!("please remove it yourself: {}", error.chain()));
        }
        step.done();
        say::note(
            "the CRDs and the admission policies stay in the cluster; `kubectl delete -f crds/ -f deploy/requester-1.36.yaml` \
             removes them, with every object of their kinds",
        );
    }
}

impl Cluster {
    /// Removes the finalizers of the remaining executions, because `writ serve` has already ended.
    fn release_executions(&self) -> Result<(), LabError> {
        let names = files::run(self.as_admin().args(["get", "commandexecutions", "-o", "name"]))?;
        for name in names.split_whitespace() {
            let none = r#"{"metadata":{"finalizers":null}}"#;
            let released = files::run(self.as_admin().args(["patch", name, "--type=merge", "-p", none]));
            // If the execution is already deleted, it needs no change.
            if let Err(error) = released
                && !error.chain().contains("NotFound")
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.existing && !self.namespace.is_empty() {
            self.remove_namespace();
        }
    }
}

/// Returns the path of a file or directory of this repository.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn machine(name: &str, user: &str, port: u16, host_key: &str) -> String {
    format!(
        "\
apiVersion: writ.dev/v1alpha1
kind: Machine
metadata:
  name: {name}
spec:
  address: 127.0.0.1
  port: {port}
  user: {user}
  credentialsRef:
    name: web-1-ssh
  hostKeys:
    - {host_key}
"
    )
}

fn secret(private_key: &str) -> String {
    let key: String = private_key.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "\
apiVersion: v1
kind: Secret
metadata:
  name: web-1-ssh
  labels:
    writ.dev/credentials: \"true\"
type: kubernetes.io/ssh-auth
stringData:
  ssh-privatekey: |
{key}"
    )
}
