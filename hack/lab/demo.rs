//! The demo: starts real servers and `writ serve`, and shows the main function of Writ on them.
//!
//! 1. It finds kubectl, sshd, and the `writ` of the same build as this program. Without `--kubeconfig` it also finds
//!    the programs of the control plane.
//! 2. It starts a control plane, or uses the cluster of `--kubeconfig`, and starts an SSH server.
//! 3. It applies the CRDs, a namespace, the rights, two Machines and the Whitelist of `examples/`.
//! 4. It starts `writ serve`.
//! 5. It applies the four executions of `examples/`, as a user with few rights.
//! 6. It compares the results with the expected results.
//!
//! The lab's reaper ends all processes and removes all files, even after kill -9. After kill -9, however, the demo's
//! namespace stays in a cluster of `--kubeconfig`.

mod cluster;
mod gateway;
mod signals;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::openssh::Openssh;
use crate::lab::processes::Process;
use crate::lab::{
    ControlPlane, ControlPlaneOptions, LabError, Reaper, Sshd, SshdOptions, Toolbox, files, say, toolbox,
};

use cluster::Cluster;
use gateway::DemoGateway;
use signals::Signals;

/// Maximum time for the four executions. They usually take about 1 s. On a busy machine, a connection alone can take
/// 10 s.
const EXECUTIONS_PATIENCE: Duration = Duration::from_secs(45);
/// Interval between two reads of the executions.
const POLL: Duration = Duration::from_millis(150);
/// Seconds that `writ serve` waits for a missing Machine or rule before it rejects an execution. A short wait is
/// enough, because all Machines and rules exist before `writ serve` starts.
const MISSING_GRACE_SECONDS: &str = "3";
/// Seconds for which running commands may continue after `writ serve` receives TERM.
const DRAIN_SECONDS: &str = "5";
/// Maximum time for `writ serve` to end: [`DRAIN_SECONDS`], and some time to record the results.
const WRIT_PATIENCE: Duration = Duration::from_secs(10);

/// Name of the directory for stored outputs, in the directory of the run.
const OUTPUTS: &str = "outputs";

/// Options of the demo.
#[derive(Debug)]
pub struct DemoOptions {
    /// True to end after the four executions.
    pub once: bool,
    /// Kubeconfig of an existing cluster to use.
    pub kubeconfig: Option<PathBuf>,
}

/// Runs the demo to its end.
///
/// # Errors
/// A step failed, or an execution has an unexpected result.
pub fn run(options: &DemoOptions) -> Result<(), LabError> {
    let started = Instant::now();
    let tools = Tools::find(options)?;
    let reaper = Reaper::start()?;
    // From now on servers can run, and the demo must stop them at its end. Therefore ctrl-C ends the demo only after
    // the current step.
    let signals = Signals::listen();
    let outcome = play(options, &tools, &reaper, &signals);
    let outcome = outcome.map_err(|error| if signals.received() { LabError::Interrupted } else { error });
    // Waits until the reaper has ended all processes and removed the directory.
    drop(reaper);
    say::note(format_args!("the demo took {:.1} s in all", started.elapsed().as_secs_f64()));
    outcome
}

/// The programs that the demo needs.
struct Tools {
    writ: PathBuf,
    kubectl: PathBuf,
    /// `None` for an existing cluster.
    control_plane: Option<Toolbox>,
}

impl Tools {
    fn find(options: &DemoOptions) -> Result<Self, LabError> {
        let own = std::env::current_exe().map_err(LabError::run("this program's own path"))?;
        // This program is target/<profile>/examples/lab. The same build creates target/<profile>/writ.
        let writ = own.ancestors().nth(2).unwrap_or(Path::new("/")).join("writ");
        if !files::is_program(&writ) {
            return Err(LabError::WritMissing { path: writ });
        }
        let (kubectl, control_plane) = match &options.kubeconfig {
            Some(_) => (toolbox::find_or_build_kubectl()?, None),
            None => Toolbox::find_or_build().map(|toolbox| (toolbox.kubectl.clone(), Some(toolbox)))?,
        };
        Openssh::find_or_install()?;
        Ok(Self { writ, kubectl, control_plane })
    }
}

/// Starts the servers, runs the demo on them, and ends them, even after an error.
fn play(options: &DemoOptions, tools: &Tools, reaper: &Arc<Reaper>, signals: &Signals) -> Result<(), LabError> {
    let start = |toolbox| ControlPlane::start(toolbox, reaper, ControlPlaneOptions::default());
    let control_plane = tools.control_plane.as_ref().map(start).transpose()?;
    signals.check()?;
    let sshd = Sshd::start(reaper, &SshdOptions::default())?;
    signals.check()?;

    let mut cluster = match (&control_plane, &options.kubeconfig) {
        (Some(control_plane), _) => Cluster::of_our_own(&tools.kubectl, control_plane, reaper.folder())?,
        (None, kubeconfig) => {
            Cluster::existing(&tools.kubectl, kubeconfig.as_deref().unwrap_or(Path::new("")), reaper.folder())?
        }
    };
    let step = say::step(format_args!(
        "applying to {}: {}two Machines, examples/whitelist.yaml",
        cluster.namespace,
        if control_plane.is_some() { "rights, " } else { "" }
    ));
    cluster.give_rights(control_plane.as_ref())?;
    cluster.apply_machines(&sshd, &reaper.folder().join("machines.yaml"))?;
    cluster.apply_whitelist()?;
    step.done();
    signals.check()?;

    let log = reaper.folder().join("writ.log");
    let (operator, namespace) = (&cluster.operator_name, &cluster.namespace);
    let what =
        format_args!("starting writ serve as {operator}, for the namespace {namespace} only (log: {})", log.display());
    let step = say::step(what);
    let writ = start_writ(tools, &cluster, reaper, &log)?;
    step.done();
    let outcome = show(&cluster, &sshd, &writ, &log, signals);
    let outcome = outcome.and_then(|()| {
        let gateway = cluster.has_gateway().then(|| DemoGateway::start(&cluster, &tools.writ, &log)).transpose()?;
        if !options.once {
            invite(&cluster, tools, &reaper.folder().join(OUTPUTS), &log);
            if let Some(gateway) = gateway {
                println!("{}", gateway.commands());
            }
            signals.wait();
        }
        Ok(())
    });
    if outcome.is_err() && !signals.received() {
        reaper.keep_folder();
    }
    let step = say::step("stopping writ serve");
    writ.end(WRIT_PATIENCE);
    step.done();
    drop(cluster);
    let step = say::step("stopping the servers");
    drop((sshd, control_plane));
    step.done();
    outcome
}

fn start_writ(tools: &Tools, cluster: &Cluster, reaper: &Reaper, log: &Path) -> Result<Process, LabError> {
    let mut writ = Command::new(&tools.writ);
    writ.arg("serve").arg("--kubeconfig").arg(&cluster.operator).args(["--namespace", &cluster.namespace]);
    if let Some(home) = cluster.lease_namespace() {
        writ.args(["--lease-namespace", home, gateway::LISTEN, gateway::COMPAT_ROUTES]);
    }
    writ.args(super::lab::LOOPBACK);
    writ.args(["--missing-grace-seconds", MISSING_GRACE_SECONDS, "--drain-seconds", DRAIN_SECONDS]);
    writ.env("WRIT_OUTPUT_STORE", reaper.folder().join(OUTPUTS));
    reaper.spawn("writ", &mut writ, log)
}

/// Applies the four executions, waits until they have finished, prints them, and compares them with the expected
/// results.
fn show(cluster: &Cluster, sshd: &Sshd, writ: &Process, log: &Path, signals: &Signals) -> Result<(), LabError> {
    let step = say::step(format_args!(
        "applying four CommandExecutions as {}, and waiting for their end",
        cluster.caller_name
    ));
    cluster.apply_executions(&verdict::EXPECTED.map(|expected| expected.name))?;
    let waiting = Instant::now();
    let executions = loop {
        let executions = cluster.executions()?;
        if verdict::all_finished(&executions) || waiting.elapsed() > EXECUTIONS_PATIENCE {
            break executions;
        }
        if let Some(status) = writ.ended() {
            let (name, what) = ("writ serve".to_owned(), format!("ended ({status})"));
            return Err(LabError::NotReady { name, what, log: log.to_owned(), tail: files::tail(log) });
        }
        signals.pause(POLL)?;
    };
    step.done();

    cluster.print(&["get", "cmdexec", "-o", "wide"])?;
    cluster.print(&["get", "cmdexec", "say-hello", "-o", "yaml"])?;
    let ledger = sshd.ledger().map_err(LabError::file("read", sshd.ledger_path()))?;
    let differences = verdict::judge(&executions, &ledger);
    if differences.is_empty() {
        return Ok(());
    }
    Err(LabError::DemoDiffers { differences: differences.join("\n"), log: log.to_owned(), tail: files::tail(log) })
}

/// Returns the text that a user types to call a program: the name if the program is in `$PATH`, else the path.
fn called(name: &str, path: &Path) -> String {
    let is_found = files::find_program(name, &[]).as_deref() == Some(path);
    if is_found { name.to_owned() } else { path.display().to_string() }
}

/// Prints commands for a second terminal. The lines have no indentation, so that a user can copy them.
fn invite(cluster: &Cluster, tools: &Tools, outputs: &Path, log: &Path) {
    let (caller, admin, namespace) = (cluster.caller.display(), cluster.admin.display(), &cluster.namespace);
    let (kubectl, writ) = (called("kubectl", &tools.kubectl), called("writ", &tools.writ));
    println!(
        "
It stays up until ctrl-C, and serves the namespace {namespace}: an execution in another one stays Pending.
Try it from a second terminal, as {name}:

export KUBECONFIG={caller}
export WRIT_OUTPUT_STORE={outputs}
{writ} explain -n {namespace} --machine web-1 -- /usr/bin/id
{kubectl} -n {namespace} apply -f - <<'END'
apiVersion: writ.dev/v1alpha1
kind: CommandExecution
metadata:
  name: who-am-i
spec:
  machineRef:
    name: web-1
  command: /usr/bin/id
END
{kubectl} -n {namespace} wait --for=condition=Finished --timeout=30s cmdexec/who-am-i
{writ} output -n {namespace} who-am-i
{kubectl} -n {namespace} get cmdexec who-am-i -o yaml
{writ} explain -n {namespace} --execution not-listed
{kubectl} explain cmdexec.spec

The Whitelist lists the commands that may run:

{kubectl} --kubeconfig {admin} -n {namespace} edit whitelist examples
{writ} lint {whitelist}

Check whether Writ can use the machine (web-2 pins a wrong host key on purpose):

{writ} machine check web-1 --kubeconfig {admin} -n {namespace} {loopback}
{writ} machine check web-2 --kubeconfig {admin} -n {namespace} {loopback}

To give another user rights, bind writ-base-requester and writ-base-viewer: this cluster has no controller that fills
writ-requester.

{kubectl} --kubeconfig {admin} -n {namespace} create rolebinding bob --clusterrole=writ-base-requester --user=bob
{kubectl} --kubeconfig {admin} -n {namespace} create rolebinding bob-view --clusterrole=writ-base-viewer --user=bob

The log of writ serve:

tail -f {log}
",
        name = cluster.caller_name,
        whitelist = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/whitelist.yaml").display(),
        loopback = super::lab::LOOPBACK.join(" "),
        outputs = outputs.display(),
        log = log.display()
    );
}
