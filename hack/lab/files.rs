//! Helpers for files and short-lived programs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LabError;
use super::say;

/// Maximum number of log lines in an error. 20 lines hold a Go fatal error with its context, and fit on a screen.
pub const TAIL_LINES: usize = 20;
/// Number of bytes that are read at the end of a log to find its last lines.
const TAIL_BYTES: u64 = 64 * 1024;

/// Writes a file with exactly this mode. The mode is set before the content is written, so that other users cannot read
/// a private key (0600).
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), LabError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        // The umask can clear bits of the mode, and an existing file keeps its own mode.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_ref())
    };
    write().map_err(LabError::file("write", path))
}

/// Creates a directory with exactly this mode. Does not create its parents.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), LabError> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(LabError::file("make the folder", path))
}

/// Returns the last lines of a log, for an error message. If the log is unreadable, returns the reason instead.
pub fn tail(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(last_lines(&String::from_utf8_lossy(&bytes), TAIL_LINES))
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}

/// Returns the last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

/// Runs a short program to its end. Returns its standard output.
///
/// # Errors
/// Returns [`LabError::Run`] if the program cannot be started, [`LabError::Failed`] if its exit code is not 0.
pub fn run(command: &mut Command) -> Result<String, LabError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().map_err(LabError::run(&program))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = format!("{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    Err(LabError::Failed { program: format!("{program} ({})", output.status), tail: last_lines(&said, TAIL_LINES) })
}

/// Finds a program in `$PATH`, then in the directories of `also_in`.
pub fn find_program(name: &str, also_in: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(also_in.iter().map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

/// Returns true if the path is a file with an execute permission.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// An exclusive lock between processes, held until this value is dropped. If the process dies, the kernel releases the
/// lock.
#[derive(Debug)]
#[must_use = "the lock is given up when this is dropped"]
pub struct Lock(File);

impl Lock {
    /// Takes the lock. If another process holds the lock, prints `what_for`, the work of that process, and waits.
    pub fn take(path: &Path, what_for: &str) -> Result<Self, LabError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(LabError::file("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let waiting = say::step(format_args!("waiting for another process, which is {what_for}"));
                file.lock().map_err(LabError::file("lock", path))?;
                waiting.done();
                Ok(Self(file))
            }
            Err(TryLockError::Error(source)) => Err(LabError::file("lock", path)(source)),
        }
    }
}
