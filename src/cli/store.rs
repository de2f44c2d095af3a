//! Which output store a program uses: the one that it is told, else a folder of its own.

use crate::output::{Store, StoreError, default_folder};

/// The variable that names the store where no flag does.
pub const OUTPUT_STORE: &str = "WRIT_OUTPUT_STORE";

/// The location that was given, else the default folder (see [`default_folder`]); None where there is neither.
pub fn location_or_default(given: Option<&str>) -> Option<String> {
    given.map(ToOwned::to_owned).or_else(|| {
        let folder = default_folder(|name| std::env::var(name).ok());
        folder.and_then(|folder| folder.to_str().map(ToOwned::to_owned))
    })
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
