//! Which output store a program uses: the one that it is told, else a folder of its own.

use std::path::PathBuf;

use crate::output::{self, Store, StoreError};

/// The variable that names the store where no flag does.
pub const OUTPUT_STORE: &str = "WRIT_OUTPUT_STORE";

/// The folder for what must outlive a process, by the environment.
pub fn state_folder() -> Option<PathBuf> {
    output::state_folder(|name| std::env::var(name).ok())
}

/// The location that was given, else `outputs` in the [`state_folder`]; None where there is neither.
pub fn location_or_default(given: Option<&str>) -> Option<String> {
    let default = || Some(state_folder()?.join("outputs").to_str()?.to_owned());
    given.map(ToOwned::to_owned).or_else(default)
}

/// Opens the store to write to, with the credentials of the environment.
///
/// # Errors
/// See [`Store::open`].
pub fn open(location: &str) -> Result<Store, StoreError> {
    Store::open(location, environment())
}

/// The same, to read only.
///
/// # Errors
/// See [`Store::open_to_read`].
pub fn open_to_read(location: &str) -> Result<Store, StoreError> {
    Store::open_to_read(location, environment())
}

/// What of the environment is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
