//! The laboratory: a real API server with etcd, and real SSH servers, on this machine for the lifetime of one process.
//!
//! | module | content |
//! |---|---|
//! | [`toolbox`] | kube-apiserver, etcd, kubectl, Helm: found, or built from source once |
//! | [`certificates`] | a certificate authority for one run, and a certificate for each user |
//! | [`control_plane`] | etcd and kube-apiserver, started, ready, stopped and started again |
//! | [`controllers`] | kube-controller-manager: empties namespaces, collects garbage, fills aggregated roles |
//! | [`packages`] | programs of the system: found or, as root on Debian, installed |
//! | [`openssh`], [`sshd`] | an SSH server with a ledger of its requests, and its prerequisites |
//! | [`asked`] | the expected content of a ledger |
//! | [`strangers`] | other kinds of machines: dropbear, asyncssh, newer OpenSSH, other shells and tools |
//! | [`newer_openssh`], [`asyncssh`] | the prerequisites of [`strangers`] |
//! | [`sudo`] | a second user and sudo rules, for one test |
//! | [`processes`] | the processes of the modules above, and the reaper that ends them even if this process is killed |
//! | [`say`] | the progress messages |
//!
//! `hack/lab/main.rs` is the program that runs the laboratory, with the demo in `hack/lab/demo.rs`. `tests/cluster`
//! includes this file with `#[path = "../../hack/lab/lab.rs"] mod lab;`. The laboratory runs only on Linux, because it
//! finds processes in /proc.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the laboratory's steps are for the person who runs it; nothing of the product is in here"
)]
#![allow(dead_code, unused_imports, reason = "the program and the tests include this file, and each uses a part of it")]

pub mod asked;
pub mod asyncssh;
pub mod certificates;
pub mod control_plane;
pub mod controllers;
pub mod error;
pub mod files;
pub mod kubeconfig;
pub mod newer_openssh;
pub mod openssh;
pub mod packages;
pub mod processes;
pub mod readiness;
pub mod say;
pub mod sshd;
pub mod strangers;
pub mod sudo;
pub mod toolbox;

/// Flags that allow `writ serve` to connect to loopback addresses. 127.0.0.1 needs its own flag, because it is also the
/// address of the API server.
pub const LOOPBACK: [&str; 6] =
    ["--allow-cidr", "127.0.0.0/8", "--allow-cidr", "127.0.0.1/32", "--allow-cidr", "::1/128"];

pub use asked::asked;
pub use certificates::User;
pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use controllers::Controllers;
pub use error::LabError;
pub use processes::Reaper;
pub use sshd::{Sshd, SshdOptions};
pub use toolbox::Toolbox;
