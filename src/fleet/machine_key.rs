//! Key of a Machine in this process.

/// Namespace and name of a Machine.
pub(crate) type MachineKey = (String, String);
