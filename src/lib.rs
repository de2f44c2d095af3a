//! Writ: audited remote commands as Kubernetes objects.
pub mod api;
#[cfg(feature = "operator")]
pub mod cluster;
#[cfg(feature = "operator")]
pub mod controllers;
pub mod execution;
#[cfg(feature = "operator")]
pub mod output;
pub mod policy;
#[cfg(feature = "operator")]
pub mod runner;
#[cfg(feature = "operator")]
pub mod ssh;
#[cfg(feature = "operator")]
pub mod telemetry;
