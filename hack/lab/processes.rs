//! The processes of the laboratory, and the reaper that ends them even if this process is killed.
//!
//! ```text
//!  test or `lab` ----- pipe ----> sh reaper.sh          (own process group, so ctrl-C does not reach it)
//!      |  spawn                      |
//!      +--> etcd, kube-apiserver, sshd --> sessions --> commands
//!                                    |
//!      killed with -9: the kernel closes the pipe ----> TERM, KILL, rm -rf directory
//! ```
//!
//! The clean-up does not depend on `Drop`, because Rust drops nothing in a killed process, and never drops a `static`.
//! `Drop` only makes a normal end faster.

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

/// Environment variable that marks every process of a run of the laboratory. reaper.sh searches for this variable.
pub const RUN_VARIABLE: &str = "WRIT_LAB_RUN";
/// Maximum time for reaper.sh to end. reaper.sh waits about 3 s after TERM, and about 5 s after KILL.
const REAPER_PATIENCE: Duration = Duration::from_secs(15);
/// Interval between two checks of an ending process.
const POLL: Duration = Duration::from_millis(10);

/// The reaper of one run of the laboratory: a shell process that ends all servers of the run and removes the directory
/// of the run.
#[derive(Debug)]
pub struct Reaper {
    /// The shell that runs reaper.sh. Its standard input is the pipe.
    shell: Mutex<Child>,
    folder: PathBuf,
    run: String,
    folders_made: AtomicUsize,
}

impl Reaper {
    /// Creates the directory of the run (`writ-lab-*` in the system's temporary directory) and starts the reaper.
    pub fn start() -> Result<Arc<Self>, LabError> {
        let parent = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("writ-lab-")
            .tempdir_in(&parent)
            .map_err(LabError::file("make a folder in", parent))?
            .keep();
        // Mode 0711 lets the SSH server's user reach the user's own files. Each directory below has its own mode.
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

    /// Returns the directory of the run. The reaper removes the directory at the end of the run, with its content.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the value of `WRIT_LAB_RUN` in the environment of every process of the run.
    pub fn run_mark(&self) -> &str {
        &self.run
    }

    /// Creates a directory for one server, `<name>-<number>`.
    pub fn make_folder(&self, name: &str, mode: u32) -> Result<PathBuf, LabError> {
        let number = self.folders_made.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("{name}-{number}"));
        files::make_folder(&folder, mode)?;
        Ok(folder)
    }

    /// Makes the reaper keep the directory of the run, for the logs. The reaper still ends the servers.
    pub fn keep_folder(&self) {
        // The call fails only if the reaper has ended. The directory then stays in any case.
        let _ = self.tell("keep");
    }

    /// Starts a server in its own process group, appends its output to `log`, and registers it with the reaper.
    ///
    /// # Errors
    /// The server cannot be started, or the reaper has ended. If the reaper has ended, the new server is killed.
    pub fn spawn(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process, LabError> {
        let open = || OpenOptions::new().create(true).append(true).open(log).map_err(LabError::file("open", log));
        command.env(RUN_VARIABLE, &self.run).process_group(0);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(LabError::run(command.get_program().display()))?;
        let process = Process { name: name.to_owned(), pid: child.id(), child: Mutex::new(child) };
        // Until `wait`, an ended server stays in /proc as a zombie, so no other process can have this process id.
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
    /// Closes the pipe, and waits up to 15 s until the reaper has ended all processes.
    fn drop(&mut self) {
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(shell.stdin.take());
        // If the reaper needs more time, it continues after the end of this process.
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
    /// Returns the process id. After the end of the process, another process can get the same id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Sends TERM. Sends KILL if the process has not ended after `patience`.
    pub fn end(&self, patience: Duration) {
        let mut child = lock(&self.child);
        if matches!(child.try_wait(), Ok(None)) {
            signal("TERM", &[self.pid]);
            if !wait(&mut child, patience) {
                // The call fails only if the process has ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Sends KILL, and waits for the end of the process.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        // Both calls fail only if the process has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits up to `patience` for a child's end. Returns true if the child has ended.
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

/// Locks a mutex, even if another test panicked while it held the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal by the program `kill`. The standard library can only send KILL, and only to children.
pub fn signal(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"signal=$1; shift; kill -s "$signal" "$@""#, "kill", signal]);
    kill.args(pids.iter().map(u32::to_string));
    // The error is ignored, because a process can have ended meanwhile.
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Fields of /proc/PID/stat.
#[derive(Debug, Clone)]
pub struct Stat {
    /// The process id.
    pub pid: u32,
    /// Name of the process, at most 15 bytes, for example `sshd`.
    pub name: String,
    /// Process id of the parent.
    pub parent: u32,
    /// Start time, in clock ticks since boot. Together with the process id it identifies a process uniquely.
    pub start: u64,
}

impl Stat {
    /// Reads one process. Returns `None` if the process has ended, or a number in its entry is missing.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Parses a line of the form `pid (name) state ppid ... start` (proc(5)). The name can contain any character, and
    /// ends at the last `) `.
    fn parse(pid: u32, line: &str) -> Option<Self> {
        let (before, after) = line.rsplit_once(") ")?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split(' ').collect();
        // `after` starts with field 3.
        let field = |number: usize| fields.get(number - 3);
        Some(Self { pid, name: name.to_owned(), parent: field(4)?.parse().ok()?, start: field(22)?.parse().ok()? })
    }
}

/// Returns all processes of this machine that /proc shows.
fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Stat::read).collect()
}

/// Returns the descendants of a process, without the process itself, parents before children.
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

/// Returns the ids of processes with `variable=value` in their environment. Skips processes that this user may not
/// read.
pub fn marked(variable: &str, value: &str) -> Vec<u32> {
    let entry = format!("{variable}={value}");
    let has_it = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|each| each == entry.as_bytes())
    };
    all().into_iter().map(|stat| stat.pid).filter(|pid| has_it(*pid)).collect()
}
