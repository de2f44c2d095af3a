//! Logs. Output and argument values of commands are never logged; objects are named, by namespace, name and UID.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged where `RUST_LOG` says nothing. kube_client warns with the whole body of an answer that it cannot
/// decode, which may be a status with its output; russh warns with what the machine says.
const DEFAULT_FILTER: &str = "warn,kube_client=error,russh=off,writ=info";

/// Starts logging to standard error. `RUST_LOG` (for example `writ=debug`) says how much; default: `info` for Writ,
/// `warn` for most of the libraries. Asking for more of `kube_client` and `russh` by name may put objects and what
/// machines say into the log.
pub fn start(format: LogFormat) {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    // What is asked for comes last, and so wins; what is not named stays as it is.
    let filter =
        EnvFilter::try_new(format!("{DEFAULT_FILTER},{asked}")).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
