//! The controllers: watch, read live, decide, apply. They send nothing to a machine, because only the runner does.
//!
//! [`Watches`] keeps the metadata of each kind, and `reconcile` runs a controller on this metadata. A controller is one
//! file with its `Reconcile`.

pub mod command_execution;
mod fair;
pub mod machine;
mod reconcile;
pub mod retention;
mod watches;
pub mod whitelist;

pub use watches::Watches;
