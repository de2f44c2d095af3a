//! The demo: Writ at its main job, from nothing, on real servers.
//!
//! 1. tools: kubectl (and, without `--kubeconfig`, the control plane's programs), sshd, the `writ` beside this program;
//! 2. a control plane, or the cluster of `--kubeconfig`; an SSH server;
//! 3. the CRDs, a namespace, the rights, two Machines, the Whitelist of `examples/`;
//! 4. `writ serve`;
//! 5. the four executions of `examples/`, applied as somebody who may do nothing else;
//! 6. what became of them, held against what must have.
//!
//! Everything is ended and removed by the lab's reaper, however this program ends. Only the namespace in a cluster of
//! `--kubeconfig` is out of its reach: kill -9 leaves that behind.

mod cluster;
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
use signals::Signals;

/// The four take about a second; the rest is room for a busy machine. Within it is what `writ serve` waits for a
/// connection, 10 s.
const EXECUTIONS_PATIENCE: Duration = Duration::from_secs(45);
/// How often the executions are looked at.
const POLL: Duration = Duration::from_millis(150);
/// What `writ serve` is told to wait for a Machine or rule that is missing: everything is there before it starts, so
/// this only has the Rejected one come sooner.
const MISSING_GRACE_SECONDS: &str = "3";
/// What it is told to give running commands after TERM: somebody may have started one from another terminal.
const DRAIN_SECONDS: &str = "5";
/// How long it may take to end: that, and a little to write down what came of it.
const WRIT_PATIENCE: Duration = Duration::from_secs(10);

/// What the person asked for.
#[derive(Debug)]
pub struct DemoOptions {
    /// End after the four executions.
    pub once: bool,
    /// A cluster that is there already.
    pub kubeconfig: Option<PathBuf>,
}

/// Runs the demo to its end.
///
/// # Errors
/// Also where an execution did not come out as it must.
pub fn run(options: &DemoOptions) -> Result<(), LabError> {
    let started = Instant::now();
    let tools = Tools::find(options)?;
    let reaper = Reaper::start()?;
    // From here on ctrl-C ends it in good order. Before, it just ends it: nothing has been started yet.
    let signals = Signals::listen();
    let outcome = play(options, &tools, &reaper, &signals);
    let outcome = outcome.map_err(|error| if signals.received() { LabError::Interrupted } else { error });
    // The reaper has the last word: when it is gone, so are all processes and the folder.
    drop(reaper);
    say::note(format_args!("the demo took {:.1} s in all", started.elapsed().as_secs_f64()));
    outcome
}

/// The programs that the demo is made of.
struct Tools {
    writ: PathBuf,
    kubectl: PathBuf,
    /// `None` where there is a cluster already.
    control_plane: Option<Toolbox>,
}

impl Tools {
    fn find(options: &DemoOptions) -> Result<Self, LabError> {
        let own = std::env::current_exe().map_err(LabError::run("this program's own path"))?;
        // target/<profile>/examples/lab and target/<profile>/writ come out of the same build.
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

/// Starts the servers, plays the demo on them, and ends them: all that is dropped here, in reverse order.
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
    if outcome.is_ok() && !options.once {
        invite(&cluster, tools, &log);
        signals.wait();
    }
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
        writ.args(["--lease-namespace", home]);
    }
    writ.args(super::lab::LOOPBACK);
    writ.args(["--missing-grace-seconds", MISSING_GRACE_SECONDS, "--drain-seconds", DRAIN_SECONDS]);
    writ.env("WRIT_OUTPUT_STORE", reaper.folder().join("outputs"));
    reaper.spawn("writ", &mut writ, log)
}

/// Applies the four executions, waits until they have finished, prints them, and says whether they are as they must be.
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

/// A program as a person calls it: by its name if that leads to it.
fn called(name: &str, path: &Path) -> String {
    let is_found = files::find_program(name, &[]).as_deref() == Some(path);
    if is_found { name.to_owned() } else { path.display().to_string() }
}

/// Says how to go on from a second terminal. The lines start at the margin, to be copied as they are.
fn invite(cluster: &Cluster, tools: &Tools, log: &Path) {
    let (caller, admin, namespace) = (cluster.caller.display(), cluster.admin.display(), &cluster.namespace);
    let (kubectl, writ) = (called("kubectl", &tools.kubectl), called("writ", &tools.writ));
    println!(
        "
It stays up until ctrl-C, and serves the namespace {namespace}: an execution in another one stays Pending.
Try it from a second terminal, as {name}:

export KUBECONFIG={caller}
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
{kubectl} -n {namespace} wait --for=jsonpath='{{.status.phase}}'=Succeeded --timeout=30s cmdexec/who-am-i
{writ} output -n {namespace} who-am-i
{kubectl} -n {namespace} get cmdexec who-am-i -o yaml
{writ} explain -n {namespace} --execution not-listed
{kubectl} explain cmdexec.spec

What may run is said by the Whitelist:

{kubectl} --kubeconfig {admin} -n {namespace} edit whitelist examples
{writ} lint {whitelist}

Whether the machine can be used (web-2 pins a wrong host key on purpose):

{writ} machine check web-1 --kubeconfig {admin} -n {namespace} {loopback}
{writ} machine check web-2 --kubeconfig {admin} -n {namespace} {loopback}

What writ does:

tail -f {log}
",
        name = cluster.caller_name,
        whitelist = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/whitelist.yaml").display(),
        loopback = super::lab::LOOPBACK.join(" "),
        log = log.display()
    );
}
