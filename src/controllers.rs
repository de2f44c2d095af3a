//! Reconciles CommandExecutions, Machines and Whitelists. Each controller reads changed objects live (from the API
//! server, not from a cache), decides, and applies the decision. Only the runner sends commands to machines.
//!
//! The controllers share [`Watches`] and the loop in `reconcile`. Only `retention` has its own watch and loop.
//! `sessions` has no watch.

pub mod command_execution;
mod fair;
pub mod machine;
mod reconcile;
pub mod retention;
pub mod sessions;
mod watches;
pub mod whitelist;

pub use watches::Watches;
