//! An SSH server in Python, for tests of Writ with a server other than OpenSSH.

use std::path::PathBuf;
use std::process::Command;

use super::error::LabError;
use super::files::{self, Lock};
use super::{say, toolbox};

const VERSION: &str = "2.24.1";
const SERVER: &str = include_str!("asyncssh-server.py");

/// Returns the command that starts the server. The caller appends the arguments of the Python script. If the cache
/// directory lacks the library asyncssh, pip installs it from PyPI.
///
/// # Errors
/// Python with pip is missing, or PyPI is unreachable.
pub fn server() -> Result<Command, LabError> {
    let python = files::find_program("python3", &[]).ok_or(LabError::ProgramMissing {
        program: "python3",
        advice: "install Python 3.9 or newer, with pip".into(),
    })?;
    let library = library(&python)?;
    let mut server = Command::new(python);
    server.env("PYTHONPATH", library).args(["-c", SERVER]);
    Ok(server)
}

fn library(python: &PathBuf) -> Result<PathBuf, LabError> {
    // Compiled parts of the library fit only one Python version and one processor type. The directory's name contains
    // both.
    let tag = "import sys, platform; print(sys.implementation.cache_tag + '-' + platform.machine())";
    let tag = files::run(Command::new(python).args(["-c", tag]))?;
    let cache = toolbox::cache_folder()?;
    let folder = cache.join(format!("asyncssh-{VERSION}-{}", tag.trim()));
    if folder.exists() {
        return Ok(folder);
    }
    let _lock = Lock::take(&cache.join("asyncssh.lock"), "installing asyncssh")?;
    if !folder.exists() {
        let step = say::step(format_args!("installing asyncssh {VERSION} from PyPI (about 8 s)"));
        let unfinished = folder.with_extension("part");
        let _ = std::fs::remove_dir_all(&unfinished);
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&unfinished);
        files::run(pip.arg(format!("asyncssh=={VERSION}")))?;
        std::fs::rename(&unfinished, &folder).map_err(LabError::file("rename", &unfinished))?;
        step.done();
    }
    Ok(folder)
}
