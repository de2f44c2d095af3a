//! The controllers. Each controller watches a kind, reads changed objects live, decides, and applies the decision. Only
//! the runner sends commands to machines, never a controller.
//!
//! [`Watches`] keeps the metadata of each kind. `reconcile` runs each controller that implements `Reconcile` on this
//! metadata. Only `retention` has its own watch and loop.

pub mod command_execution;
mod fair;
pub mod machine;
mod reconcile;
pub mod retention;
mod watches;
pub mod whitelist;

pub use watches::Watches;
