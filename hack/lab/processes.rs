//! The processes of the laboratory, and the reaper that ends them whatever happens to this one.
//!
//! ```text
//!  test or `lab` ----- pipe ----> sh reaper.sh          (a process group of its own: ctrl-C passes it by)
//!      |  spawn                      |
//!      +--> etcd, kube-apiserver, sshd --> sessions --> commands
//!                                    |
//!      killed with -9: the kernel closes the pipe ----> TERM, KILL, rm -rf folder
//! ```
//!
//! A destructor does not run in a killed process, nor for a `static`, so nothing here relies on one:
//! `Drop` only makes the usual end quicker.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::LabError;
use super::files;

/// The environment variable that marks every process of a run; reaper.sh looks for it.
pub const RUN_VARIABLE: &str = "WRIT_LAB_RUN";
/// How long dropping the [`Reaper`] waits for reaper.sh: its own bounds are 3 s for TERM and 5 s for KILL.
const REAPER_PATIENCE: Duration = Duration::from_secs(15);
/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(10);

/// One for each run of the laboratory, shared by all its servers. Owns the folder of the run.
#[derive(Debug)]
pub struct Reaper {
    /// The shell that runs reaper.sh; its standard input is the pipe.
    shell: Mutex<Child>,
    folder: PathBuf,
    run: String,
    folders_made: AtomicUsize,
}

impl Reaper {
    /// Makes the folder of the run (`writ-lab-*` in the system's temporary folder) and starts the reaper.
    pub fn start() -> Result<Arc<Self>, LabError> {
        let parent = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("writ-lab-")
            .tempdir_in(&parent)
            .map_err(LabError::file("make a folder in", parent))?
            .keep();
        // 0711: the SSH server's user passes through to its own files; its neighbours are 0700.
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .map_err(LabError::file("open up", &folder))?;
        let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("reaper.sh"), "writ-lab-reaper", &run]).arg(&folder);
        shell.current_dir("/").env_remove(RUN_VARIABLE).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = Mutex::new(shell.spawn().map_err(LabError::run("sh"))?);
        Ok(Arc::new(Self { shell, folder, run, folders_made: AtomicUsize::new(0) }))
    }

    /// The folder of the run. Removed at the end with all that is in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The mark that every process of the run has in its environment: `WRIT_LAB_RUN` and this value.
    pub fn run_mark(&self) -> &str {
        &self.run
    }

    /// Makes a folder for one server, `<name>-<number>`.
    pub fn make_folder(&self, name: &str, mode: u32) -> Result<PathBuf, LabError> {
        let number = self.folders_made.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("{name}-{number}"));
        files::make_folder(&folder, mode)?;
        Ok(folder)
    }

    /// Leaves the folder behind at the end, for its logs. The servers are ended all the same.
    pub fn keep_folder(&self) {
        // Without a reaper nobody removes the folder anyway.
        let _ = self.tell("keep");
    }

    /// Starts a server in a process group of its own, its output appended to `log`, and has the reaper watch it.
    ///
    /// # Errors
    /// When it cannot be started, or there is no reaper any more (then the server is ended again).
    pub fn spawn(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process, LabError> {
        let open = || OpenOptions::new().create(true).append(true).open(log).map_err(LabError::file("open", log));
        command.env(RUN_VARIABLE, &self.run).process_group(0);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(LabError::run(command.get_program().display()))?;
        let process = Process { name: name.to_owned(), pid: child.id(), child: Mutex::new(child) };
        // Until `wait` its entry in /proc stays, as a zombie at the least: the number is certainly its own.
        let start = Stat::read(process.pid).map(|stat| stat.start).unwrap_or_default();
        self.tell(&format!("watch {} {start}", process.pid))?;
        Ok(process)
    }

    fn tell(&self, line: &str) -> Result<(), LabError> {
        let mut shell = lock(&self.shell);
        let gone = |source| LabError::ReaperGone { source };
        let pipe = shell.stdin.as_mut().ok_or_else(|| gone(std::io::ErrorKind::BrokenPipe.into()))?;
        pipe.write_all(format!("{line}\n").as_bytes()).map_err(gone)
    }
}

impl Drop for Reaper {
    /// Closes the pipe and waits until the reaper has done its work, so that nothing is left when this returns.
    fn drop(&mut self) {
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(shell.stdin.take());
        // After the patience it goes on by itself.
        wait(shell, REAPER_PATIENCE);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    /// Its process id. Not to be used after the end: the number may be another's by then.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, when it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Asks it to end (TERM), and makes it (KILL) when it has not after `patience`.
    pub fn end(&self, patience: Duration) {
        let mut child = lock(&self.child);
        if matches!(child.try_wait(), Ok(None)) {
            signal("TERM", &[self.pid]);
            if !wait(&mut child, patience) {
                // Fails only when it ended in between.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Ends it at once (KILL), as a power cut would.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        // Both fail only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a child's end; whether it came in time.
fn wait(child: &mut Child, patience: Duration) -> bool {
    let started = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if started.elapsed() > patience {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// A panic in another test must not hide the server from this one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal by the `kill` program: the standard library has only KILL, and only for children.
pub fn signal(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"signal=$1; shift; kill -s "$signal" "$@""#, "kill", signal]);
    kill.args(pids.iter().map(u32::to_string));
    // A process that ended in between is what was wanted.
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// What is read from /proc/PID/stat.
#[derive(Debug, Clone)]
pub struct Stat {
    /// The process.
    pub pid: u32,
    /// Its name, at most 15 bytes: `sshd`.
    pub name: String,
    /// Its parent.
    pub parent: u32,
    /// When it started, in clock ticks since boot: with the pid, this names a process for good.
    pub start: u64,
}

impl Stat {
    /// Reads one process; `None` when it is gone, or a zombie that has yet to be collected has no number.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc(5): `pid (name) state ppid ... start`, the start being field 22. The name may hold anything.
    fn parse(pid: u32, line: &str) -> Option<Self> {
        let (before, after) = line.rsplit_once(") ")?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split(' ').collect();
        // `after` starts with field 3.
        let field = |number: usize| fields.get(number - 3);
        Some(Self { pid, name: name.to_owned(), parent: field(4)?.parse().ok()?, start: field(22)?.parse().ok()? })
    }
}

/// All processes of this machine, as far as /proc shows them.
fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Stat::read).collect()
}

/// The descendants of a process, without itself, parents before children.
pub fn descendants(pid: u32) -> Vec<Stat> {
    let all = all();
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|each| each.parent == parent && each.pid != pid) {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

/// The processes that have `variable=value` in their environment, as far as this user may see that.
pub fn marked(variable: &str, value: &str) -> Vec<u32> {
    let entry = format!("{variable}={value}");
    let has_it = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|each| each == entry.as_bytes())
    };
    all().into_iter().map(|stat| stat.pid).filter(|pid| has_it(*pid)).collect()
}
