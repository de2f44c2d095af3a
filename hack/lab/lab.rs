//! The laboratory: a real API server with etcd, and real SSH servers, on this machine and for as long as
//! one process lives.
//!
//! | module | what it gives |
//! |---|---|
//! | [`toolbox`] | kube-apiserver, etcd, kubectl, Helm: found, or built from source once |
//! | [`certificates`] | a certificate authority for one run, and a certificate for each user |
//! | [`control_plane`] | etcd and kube-apiserver, started, ready, stopped and started again |
//! | [`controllers`] | kube-controller-manager: what empties namespaces, collects garbage and fills aggregated roles |
//! | [`packages`] | programs of the system: found or, as root on Debian, installed |
//! | [`openssh`], [`sshd`] | an SSH server with a ledger of what was asked of it, and what that needs |
//! | [`asked`] | what that ledger must say |
//! | [`strangers`] | machines that are not like that: dropbear, asyncssh, newer OpenSSH, other shells and tools |
//! | [`newer_openssh`], [`asyncssh`] | what those need |
//! | [`sudo`] | a second user and rules of sudo, for one test |
//! | [`processes`] | the processes above, and the reaper that ends them even when this process is killed |
//! | [`say`] | what is printed on the way |
//!
//! `hack/lab/main.rs` is the program around it, with the demo in `hack/lab/demo.rs`; `tests/cluster` includes the same file with
//! `#[path = "../../hack/lab/lab.rs"] mod lab;`. Linux only: processes are followed by way of /proc.
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

/// What lets `writ serve` connect to this machine itself: the second because the API server is here too.
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
