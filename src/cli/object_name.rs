//! Names of objects on the command line: `NAME`, or `TYPE/NAME` as kubectl prints it.

use crate::api::GROUP;
use crate::cluster::ClusterError;

/// Parses the name of a CommandExecution.
///
/// # Errors
/// The text names an object of another type, or has no name.
pub(super) fn parse_execution(text: &str) -> Result<String, String> {
    parse(text, &["commandexecution", "commandexecutions", "cmdexec"])
}

/// Parses the name of a Machine. See [`parse_execution`].
pub(super) fn parse_machine(text: &str) -> Result<String, String> {
    parse(text, &["machine", "machines", "mach"])
}

fn parse(text: &str, types: &[&str]) -> Result<String, String> {
    let Some((type_, name)) = text.split_once('/') else { return Ok(text.to_owned()) };
    let (short, group) = type_.split_once('.').unwrap_or((type_, GROUP));
    let is_of_writ = group == GROUP || group.strip_suffix(GROUP).is_some_and(|version| version.ends_with('.'));
    if !is_of_writ || !types.contains(&short) || name.is_empty() || name.contains('/') {
        return Err(format!("must be NAME or {}/NAME", types.first().unwrap_or(&"TYPE")));
    }
    Ok(name.to_owned())
}

/// Adds advice to a NotFound error: `suggestion`, and the command that lists the existing objects. `suggestion` names a
/// similar object, or is empty.
pub(super) fn missing(error: ClusterError, suggestion: &str, namespace: &str, kind: &str) -> anyhow::Error {
    match &error {
        ClusterError::NotFound { .. } => anyhow::anyhow!("{error}{suggestion}{}", error.listing_hint(namespace, kind)),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_its_type_before_it_as_kubectl_prints_it() {
        for text in [
            "x-1",
            "commandexecution.writ.dev/x-1",
            "commandexecutions.v1alpha1.writ.dev/x-1",
            "commandexecution/x-1",
            "cmdexec/x-1",
        ] {
            assert_eq!(parse_execution(text).as_deref(), Ok("x-1"), "{text}");
        }
        for text in
            ["machine/x", "commandexecution.example.com/x", "cmdexec.evilwrit.dev/x", "cmdexec/", "/x", "cmdexec/x/y"]
        {
            assert!(parse_execution(text).is_err(), "{text}");
        }
        assert_eq!(parse_machine("machine.writ.dev/web-1").as_deref(), Ok("web-1"));
        assert_eq!(parse_machine("cmdexec/web-1"), Err("must be NAME or machine/NAME".to_owned()));
    }
}
