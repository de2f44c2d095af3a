//! Sentences for users about the launcher's reasons for a refused request.

use crate::launcher::RequestRefusal;
use crate::policy::command_path;

/// Explanation and remedy for a login with too low a limit of open files.
pub(crate) const FILES: &str = "the login's limit of open files is too low for the launcher, which needs about 20: see to `ulimit -n` in its \
    start-up files, limits.conf and sshd's service on the machine";

/// Returns the reason why the machine refused a request, and the remedy.
pub(crate) fn explain_refusal(refusal: &RequestRefusal) -> String {
    let why = match refusal {
        RequestRefusal::DeadlinePassed => "the starting deadline was over when the machine was asked to start it",
        RequestRefusal::Rebooted => "the machine rebooted after the claim",
        RequestRefusal::DirectoryUnsuitable => {
            "the launcher's directory on the machine is not fit (execution.directory of the Machine; by default \
             .local/state/writ in the login user's home): it must be a folder of the login user's own, no symbolic link, \
             that nobody else may write to"
        }
        RequestRefusal::Said(words) => {
            return format!(
                "{words} (said by the machine); the launcher's directory could not be made there: give the login user a home that it \
                 may write to, with room on its disk, or set execution.directory of the Machine to a directory of its own"
            );
        }
        RequestRefusal::DiskFull => {
            "the disk with the launcher's directory on the machine is full, or the login user's quota there is used up \
             (`df -h` and `df -i` of status.remote.directory, `quota`); make room there"
        }
        RequestRefusal::Files => FILES,
        RequestRefusal::NotWritable => "the launcher's directory on the machine cannot be written to",
        RequestRefusal::NoProc => {
            "the machine has no /proc, which the launcher needs; set execution.mode: Direct on the Machine"
        }
        RequestRefusal::NoClock => {
            "the machine's clock /proc/uptime cannot be read, or went back; make it readable for the login user (if lxcfs \
             provides it, restart lxcfs)"
        }
        RequestRefusal::Cut => {
            "the request arrived cut or mixed with other text, so nothing of it was executed: a startup file of the login \
             reads standard input (a `read`, an `ssh` without -n, a question); let it do that in interactive shells only"
        }
        RequestRefusal::MissingTool(tool) => {
            return format!(
                "the machine has no {tool}, which the launcher needs: neither in {} nor in the PATH of the login; install it, or \
                 set execution.mode: Direct on the Machine",
                command_path()
            );
        }
    };
    why.to_owned()
}
