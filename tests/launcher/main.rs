//! The launcher's real scripts in real shells, without SSH. Like sshd, the tests start `SHELL -c TEXT` with three
//! pipes. The commands record in a ledger that they ran.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what cannot be has to fail"
)]

#[path = "../../hack/lab/lab.rs"]
mod lab;

mod machine;
mod session;

mod bounds;
mod clock;
mod cost;
mod direct;
mod environment;
mod fence;
mod files;
mod following;
mod held;
mod killed;
mod limits;
mod run_as;
mod running;
mod startup;
mod tampering;
mod untrusted;
mod whole;
