//! Open resources of a process, from /proc.

use std::collections::HashSet;

/// Returns the number of threads.
pub fn threads(pid: u32) -> usize {
    entries(pid, "task")
}

/// Returns the number of open files, including sockets.
pub fn open_files(pid: u32) -> usize {
    entries(pid, "fd")
}

fn entries(pid: u32, of: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{of}")).expect("a process of our own").count()
}

/// Returns the number of established IPv4 connections of a process to this port.
pub fn connections(pid: u32, port: u16) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of our own").flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let own: HashSet<String> = targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let remote = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Fields: sl local remote st queues timer retransmits uid timeout inode. The state 01 is ESTABLISHED.
        fields.len() > 9 && fields[2].ends_with(&remote) && fields[3] == "01" && own.contains(fields[9])
    };
    table.lines().filter(is_one).count()
}
