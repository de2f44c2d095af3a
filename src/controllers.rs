//! The controllers: watch, read live, decide, apply. They send nothing to a machine; the runner does.

pub mod command_execution;
mod fair;
pub mod machine;
mod places;
pub mod retention;
mod watching;
pub mod whitelist;
