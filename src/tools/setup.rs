//! `writ machine setup`: what belongs on a machine. The lines of sudo are as narrow as the rules are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::api::whitelist::{Effect, WhitelistRule};
use crate::api::{Machine, Whitelist};
use crate::cluster::{Cluster, Operation};
use crate::fleet::parse_credentials;
use crate::policy;
use crate::ssh::Credentials;

/// Of how many combinations of parameters each gets a line of its own.
const MOST_LINES: usize = 32;

/// The text, with remarks that say where each part goes.
pub(super) async fn setup(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let namespace = cluster.home();
    let machine = cluster.machine(namespace, name).await?;
    let secret = cluster.ssh_secret(namespace, &machine.spec.credentials_ref.name).await;
    let secret =
        secret.context("the Secret with the key cannot be read: without it, `ssh-keygen -y -f KEY` prints the line")?;
    let credentials = parse_credentials(&secret).with_context(|| format!("the Secret {}", secret.name))?;
    let keys: Vec<String> = credentials.in_order().map(Credentials::public_line).collect();
    let has_certificate = secret.keys.iter().any(|key| key.certificate.is_some());
    let list: Api<Whitelist> = Api::namespaced(cluster.client(), namespace);
    let whitelists = cluster.call(Operation::Cli, "the Whitelists", list.list(&ListParams::default())).await?;
    let rules: Vec<WhitelistRule> = whitelists.items.into_iter().flat_map(in_force).collect();
    Ok(text(&machine, &keys, has_certificate, &rules))
}

/// The rules that allow something: what is out of force is granted nothing.
fn in_force(whitelist: Whitelist) -> Vec<WhitelistRule> {
    let compiled = policy::compile(&whitelist);
    if compiled.closed.is_some() {
        return Vec::new();
    }
    let is_broken = |rule: &WhitelistRule| compiled.broken.iter().any(|broken| broken.rule == rule.name);
    whitelist.spec.rules.into_iter().filter(|rule| !is_broken(rule)).collect()
}

fn text(machine: &Machine, keys: &[String], has_certificate: bool, rules: &[WhitelistRule]) -> String {
    let user = &machine.spec.user;
    // No port forwarding, no agent, no terminal, no X11; and those that sshd will have one day.
    let options = if machine.spec.allow_jump { "restrict,port-forwarding" } else { "restrict" };
    let lines = if keys.len() > 1 { "one line for each key of the Secret" } else { "one line" };
    let mut text = format!("# ~{user}/.ssh/authorized_keys on the machine, {lines}:\n");
    for key in keys {
        let _ = writeln!(text, "{options} {key} writ");
    }
    if has_certificate {
        text.push_str(
            "# or, as the Secret has a certificate: TrustedUserCAKeys in sshd_config, with the key of the authority that signed it\n",
        );
    }
    let for_machine = |rule: &&WhitelistRule| {
        let chosen = rule.machine_selector.as_ref().is_none_or(|selector| selector.matches(machine.labels()));
        chosen && rule.run_as.as_ref().is_some_and(|run_as| run_as != user) && rule.effect != Some(Effect::Deny)
    };
    let mut lines = String::new();
    for rule in rules.iter().filter(for_machine) {
        sudo_lines(&mut lines, user, rule);
    }
    if lines.is_empty() {
        text.push_str("\n# no rule for this machine has runAs: nothing is needed from sudo\n");
    } else {
        let _ = write!(text, "\n# visudo -f /etc/sudoers.d/writ on the machine:\n{lines}");
    }
    text
}

fn sudo_lines(lines: &mut String, user: &str, rule: &WhitelistRule) {
    let Some((program, words)) = rule.run.split_first() else { return };
    // A line of sudo is a grant: what could begin another one, or cannot be read as it is, is written by a person.
    let values = rule.parameters.values().filter_map(|parameter| parameter.one_of.as_ref()).flatten();
    let mut all = rule.run.iter().chain(values).chain(rule.environment.keys()).chain(&rule.run_as).chain([&rule.name]);
    if !all.all(|word| word.chars().all(|each| matches!(each, ' '..='~'))) {
        lines.push_str("# a rule has characters that a line of sudo cannot hold: write it by hand\n");
        return;
    }
    let (Some(user), Some(run_as)) = (sudo_name(user), sudo_name(rule.run_as.as_deref().unwrap_or("root"))) else {
        lines.push_str("# a user has a name that sudo may take for something else: write the line by hand\n");
        return;
    };
    let _ = writeln!(lines, "# rule {}", rule.name);
    match combinations(words, rule) {
        Some(all) => {
            for words in all {
                let words = match words.as_slice() {
                    [] => "\"\"".to_owned(),
                    words => words.iter().map(|word| escaped(word)).collect::<Vec<_>>().join(" "),
                };
                let _ = writeln!(lines, "{user} ALL=({run_as}) NOPASSWD: {} {words}", escaped(program));
            }
        }
        None => {
            let _ = writeln!(
                lines,
                "# with any arguments, as sudo cannot hold them to the rule's: which ones is then up to the Whitelist alone"
            );
            let _ = writeln!(lines, "{user} ALL=({run_as}) NOPASSWD: {}", escaped(program));
        }
    }
    if !rule.environment.is_empty() {
        let names = rule.environment.keys().cloned().collect::<Vec<_>>().join(" ");
        let _ = writeln!(lines, "Defaults!{} env_keep += \"{names}\"", escaped(program));
    }
}

/// Each list of arguments that the rule allows; None where there are too many, or a pattern says them.
fn combinations(words: &[String], rule: &WhitelistRule) -> Option<Vec<Vec<String>>> {
    let mut all: Vec<BTreeMap<&str, &str>> = vec![BTreeMap::new()];
    for (name, parameter) in &rule.parameters {
        let values = parameter.one_of.as_ref()?;
        let mut extended = Vec::new();
        for chosen in &all {
            for value in values {
                let mut chosen = chosen.clone();
                chosen.insert(name, value);
                extended.push(chosen);
            }
        }
        all = extended;
        if all.len() > MOST_LINES {
            return None;
        }
    }
    let filled = |chosen: &BTreeMap<&str, &str>| {
        words
            .iter()
            .map(|word| {
                chosen.iter().fold(word.clone(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
            })
            .collect()
    };
    Some(all.iter().map(filled).collect())
}

/// The name of a user as sudoers wants it. None for a name of capital letters, which is an alias there (`ALL`), and for one with
/// characters that are rare in names and have a meaning there.
fn sudo_name(name: &str) -> Option<String> {
    let is_alias = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@\\+-$".contains(&byte);
    if is_alias || !name.bytes().all(is_plain) {
        return None;
    }
    Some(name.chars().flat_map(|each| matches!(each, '@' | '\\').then_some('\\').into_iter().chain([each])).collect())
}

/// As sudoers wants it: its wildcards and separators have no meaning then (sudoers(5)).
fn escaped(word: &str) -> String {
    let mut escaped = String::new();
    for each in word.chars() {
        if matches!(each, ',' | ':' | '=' | '\\' | '*' | '?' | '[' | ']' | '!' | '#' | '"') {
            escaped.push('\\');
        }
        escaped.push(each);
    }
    escaped
}

#[cfg(test)]
mod tests;
