//! Warnings about interactive sessions. No rule matches the input of a session.

use crate::policy::compile::CompiledRule;
use crate::programs::launchers;
use crate::programs::shells::{ShellAccess, shell_access};

use super::examples::examples;
use super::findings::Warning;

/// Returns the warnings about the sessions of an Allow rule.
pub(super) fn rule_warnings(rule: &CompiledRule) -> Vec<Warning> {
    let mut messages = Vec::new();
    if rule.record_input {
        messages.push(
            "recordInput is true, so the recording of a session has each byte that a person types, also passwords that \
             the terminal does not show; remove it, or let only people read recordings who may know these passwords"
                .to_owned(),
        );
    }
    if rule.interactive && !rule.interactive_shell {
        messages.extend(examples(rule).iter().find_map(|(_, argv)| shell_warning(argv)));
    }
    messages.into_iter().map(|message| Warning { rule: rule.name.clone(), message }).collect()
}

/// Returns a warning if an interactive command gives a shell, or starts a program that gives a shell.
fn shell_warning(argv: &[String]) -> Option<String> {
    let commands = launchers::commands(argv.iter().map(String::as_str).collect::<Vec<_>>(), None);
    let mut found = commands.iter().filter_map(|command| Some((command.words.first()?, shell_access(&command.words)?)));
    let (program, access) = found.next()?;
    let way = match access {
        ShellAccess::Prompt => "executes its input as commands",
        ShellAccess::Escape => "can start other programs from its prompt (such as !sh)",
        ShellAccess::Pager => "shows long output in a pager, which can start other programs (such as !sh)",
    };
    let without = if access == ShellAccess::Pager { "add --no-pager" } else { "run another program" };
    Some(format!(
        "interactive is true, and {program} {way}: in a session a person can run any command as the user of the rule, \
         and no rule matches these commands; {without}, or write interactiveShell: true if the rule is meant to give a \
         shell"
    ))
}
