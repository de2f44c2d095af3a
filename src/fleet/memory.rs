//! Reports if the memory of this process is near the limit of its container (control group).

use std::path::{Path, PathBuf};

use crate::telemetry::resident_bytes;

/// Resident memory above this share of the limit is scarce, in percent. The rest is for the answers of the API server
/// and for output.
const SCARCE_PERCENT: u64 = 75;

/// Returns true if the resident memory exceeds [`SCARCE_PERCENT`] of the limit. Returns false without a limit, and
/// without /proc. The page cache does not count, because the kernel frees it if necessary.
pub(super) fn is_scarce() -> bool {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let Some(resident) = resident_bytes() else { return false };
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| read(&path)).filter_map(|text| limit_bytes(&text));
    limits.min().is_some_and(|limit| resident > limit / 100 * SCARCE_PERCENT)
}

/// Returns the files that can contain the limit. `groups` is the content of /proc/self/cgroup, see cgroups(7). A
/// container usually sees its own group as `/`.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files =
        vec![PathBuf::from("/sys/fs/cgroup/memory.max"), PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes")];
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.push(Path::new("/sys/fs/cgroup").join(path).join("memory.max"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            files.push(Path::new("/sys/fs/cgroup/memory").join(path).join("memory.limit_in_bytes"));
        }
    }
    files
}

/// Returns the limit. `None` means no limit: `max`, or the largest number of version 1.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_are_found() {
        let files = limit_files("12:cpu,cpuacct:/a\n3:memory:/kubepods/pod1\n0::/kubepods.slice/pod2:x\nbroken\n");
        let found = |path: &str| files.contains(&PathBuf::from(path));
        assert!(found("/sys/fs/cgroup/memory.max"));
        assert!(found("/sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes"));
        assert!(found("/sys/fs/cgroup/kubepods.slice/pod2:x/memory.max"));
        assert_eq!(files.len(), 4);
        assert_eq!(limit_bytes("536870912\n"), Some(536_870_912));
        assert_eq!((limit_bytes("max\n"), limit_bytes("9223372036854771712\n"), limit_bytes("")), (None, None, None));
    }
}
