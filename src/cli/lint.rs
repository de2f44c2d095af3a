//! `writ lint`: what the controller would say of Whitelists, before they are applied.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::policy;

use super::{Ending, input};

/// Check Whitelists before they are applied: everything that the controller would call Stalled, and what may not be
/// meant.
///
/// Exit code 0 where every rule would be in force (warnings or not), 3 where one would not, 2 where a file cannot be
/// read.
#[derive(Args, Debug)]
pub struct Lint {
    /// Files with Whitelists, YAML or JSON, of one or more documents; other kinds in them are passed over. `-` is
    /// standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Take warnings for errors.
    #[arg(long)]
    strict: bool,
}

impl Lint {
    /// Checks, and writes what was found.
    ///
    /// # Errors
    /// A file cannot be read, or has no Whitelist in it; or the output cannot be written.
    pub fn run(&self, output: &mut dyn Write) -> anyhow::Result<Ending> {
        let mut ending = Ending::Good;
        let read = input::whitelists(&self.files)?;
        let all = policy::lint_all(&read.iter().map(|(_, whitelist)| whitelist).collect::<Vec<_>>());
        for ((file, whitelist), findings) in read.iter().zip(all) {
            let name = whitelist.metadata.name.as_deref().unwrap_or("(without a name)");
            let place = format!("{}: Whitelist {name}", file.display());
            for error in findings.errors() {
                writeln!(output, "{place}: error: {error}")?;
            }
            for warning in &findings.warnings {
                writeln!(output, "{place}: warning: rule {}: {}", warning.rule, warning.message)?;
            }
            if !findings.is_sound() || (self.strict && !findings.warnings.is_empty()) {
                ending = Ending::Denied;
            } else {
                writeln!(output, "{place}: {} rules, all in force", findings.rule_count)?;
            }
        }
        Ok(ending)
    }
}
