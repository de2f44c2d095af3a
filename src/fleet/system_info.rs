//! System information of a machine, for users: host name, operating system, kernel, shell.

use std::time::Duration;

use crate::api::machine_status::SystemInfo;
use crate::launcher::{self, Answer, SystemInfoReply};
use crate::ssh::{Connection, Session};

use super::launcher_request::{LauncherError, request};
use super::pooled_connection::open_with_retry;

/// Maximum time for the answer of the machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Requests the system information in a new session.
///
/// # Errors
/// The machine opens no session, or the answer does not come from a launcher.
pub(crate) async fn request_system_info(connection: &Connection) -> Result<SystemInfo, LauncherError> {
    read_in(open_with_retry(connection).await?).await
}

/// Requests the system information in this session.
///
/// # Errors
/// The machine did not answer, or the answer does not come from a launcher.
pub(crate) async fn read_in(session: Session) -> Result<SystemInfo, LauncherError> {
    let described = match request(session, ANSWER_DEADLINE, launcher::system_info).await? {
        Answer::SystemInfo(described) => described,
        other => return Err(LauncherError::BadReply(format!("it answered {other:?}"))),
    };
    let SystemInfoReply { boot_id, hostname, architecture, kernel, shell, os } = described;
    let some = |word: String| (!word.is_empty()).then_some(word);
    Ok(SystemInfo {
        hostname: some(hostname),
        os: some(os),
        architecture: some(architecture),
        kernel: some(kernel),
        shell: some(shell),
        boot_id: some(boot_id),
    })
}
