//! Selects the output store: the given store, or a directory on this host.

use std::path::PathBuf;

use crate::output::{self, Store, StoreError};

/// Environment variable with the location of the output store. The flag for the store has priority.
pub const OUTPUT_STORE: &str = "WRIT_OUTPUT_STORE";

/// Returns the directory for files that must survive a restart. Environment variables determine this directory.
pub fn state_folder() -> Option<PathBuf> {
    output::state_directory(|name| std::env::var(name).ok())
}

/// Returns the given location, else `outputs` in the [`state_folder`], else `None`.
pub fn location_or_default(given: Option<&str>) -> Option<String> {
    let default = || Some(state_folder()?.join("outputs").to_str()?.to_owned());
    given.map(ToOwned::to_owned).or_else(default)
}

/// Opens the store for writing, with the credentials of the environment.
///
/// # Errors
/// See [`Store::open`].
pub fn open(location: &str) -> Result<Store, StoreError> {
    Store::open(location, environment())
}

/// Opens the store for reading only.
///
/// # Errors
/// See [`Store::open_to_read`].
pub fn open_to_read(location: &str) -> Result<Store, StoreError> {
    Store::open_to_read(location, environment())
}

/// Returns the environment variables whose name and value are valid UTF-8.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
