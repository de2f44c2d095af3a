//! `writ machine setup`: prints the configuration for a machine. The sudo lines allow only the commands of the rules.
//! If sudo cannot restrict the arguments as a rule does, the line allows any arguments, with a warning in a comment.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::api::whitelist::{Effect, WhitelistRule};
use crate::api::{Machine, Whitelist};
use crate::cli::object_name::missing;
use crate::cluster::{Cluster, Operation};
use crate::execution::sudoers;
use crate::fleet::parse_credentials;
use crate::policy;
use crate::ssh::Credentials;

/// Maximum number of sudo lines of a rule. Each argument list gets one line. If a rule has more argument lists, it gets
/// one line that allows any arguments.
const MAX_LINES: usize = 32;

/// Returns the configuration for a machine. A comment in front of each part names the file for this part.
pub(super) async fn setup(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let namespace = cluster.own_namespace();
    let machine = cluster.machine(namespace, name).await;
    let machine = machine.map_err(|error| missing(error, "", namespace, "machines"))?;
    let keys = authorized_keys(cluster, &machine).await;
    let list: Api<Whitelist> = Api::namespaced(cluster.client(), namespace);
    let whitelists = cluster.call(Operation::Cli, "the Whitelists", list.list(&ListParams::default())).await?;
    let rules: Vec<WhitelistRule> = whitelists.items.into_iter().flat_map(active_allow_rules).collect();
    Ok(text(&machine, &keys, &rules))
}

/// Public keys that belong to the private keys in a Machine's Secret.
struct AuthorizedKeys {
    keys: Vec<AuthorizedKey>,
    has_certificate: bool,
}

struct AuthorizedKey {
    /// Name of the private key's entry in the Secret.
    entry: String,
    fingerprint: String,
    /// Line for authorized_keys, without options.
    line: String,
}

async fn authorized_keys(cluster: &Cluster, machine: &Machine) -> anyhow::Result<AuthorizedKeys> {
    let name = &machine.spec.credentials_ref.name;
    let secret = cluster.ssh_secret(cluster.own_namespace(), name).await?;
    let credentials = parse_credentials(&secret).with_context(|| format!("the Secret {name}"))?;
    Ok(AuthorizedKeys {
        keys: credentials.in_order().map(AuthorizedKey::of).collect(),
        has_certificate: secret.keys.iter().any(|key| key.certificate.is_some()),
    })
}

impl AuthorizedKey {
    fn of(credentials: &Credentials) -> Self {
        let (entry, fingerprint) = (credentials.entry(), credentials.fingerprint());
        Self { entry, fingerprint, line: credentials.authorized_keys_line() }
    }
}

/// Returns the valid rules. An invalid rule gets no sudo line, because Writ ignores it. If a Deny rule is invalid,
/// returns no rules, because Writ then allows no command.
fn active_allow_rules(whitelist: Whitelist) -> Vec<WhitelistRule> {
    let compiled = policy::compile(&whitelist);
    if compiled.closed.is_some() {
        return Vec::new();
    }
    let is_broken = |rule: &WhitelistRule| compiled.invalid_rules.iter().any(|broken| broken.rule == rule.name);
    whitelist.spec.rules.into_iter().filter(|rule| !is_broken(rule)).collect()
}

fn text(machine: &Machine, keys: &anyhow::Result<AuthorizedKeys>, rules: &[WhitelistRule]) -> String {
    let user = &machine.spec.user;
    let mut text = match keys {
        Ok(keys) => authorized_keys_text(machine, keys),
        // If the Secret is unreadable, a comment replaces the lines for authorized_keys. The user still gets the sudo
        // lines, because they do not depend on the Secret.
        Err(error) => format!(
            "# ~{user}/.ssh/authorized_keys on the machine: the Secret cannot be read ({}).\n\
             # `ssh-keygen -y -f KEY` prints the line of a key.\n",
            // Users copy these lines into files of the machine, and a line break in the error would end the comment.
            format!("{error:#}").replace(char::is_control, " ")
        ),
    };
    let for_machine = |rule: &&WhitelistRule| {
        let chosen = rule.machine_selector.as_ref().is_none_or(|selector| selector.matches(machine.labels()));
        chosen && rule.run_as.as_ref().is_some_and(|run_as| run_as != user) && rule.effect != Some(Effect::Deny)
    };
    let mut lines = String::new();
    for rule in rules.iter().filter(for_machine) {
        sudo_lines(&mut lines, user, rule);
    }
    if lines.is_empty() {
        text.push_str(
            "\n# no Whitelist in the cluster has a rule with runAs for this machine: no sudo lines are needed\n\
             # (if the Whitelist is only in a file, apply it first)\n",
        );
    } else {
        let _ = write!(text, "\n# visudo -f /etc/sudoers.d/writ on the machine:\n{lines}");
    }
    text
}

fn authorized_keys_text(machine: &Machine, keys: &AuthorizedKeys) -> String {
    // `restrict` forbids port forwarding, agent forwarding, terminals and X11, and also future features of sshd.
    let options = if machine.spec.allow_jump { "restrict,port-forwarding" } else { "restrict" };
    let lines = match keys.keys.len() {
        ..2 => "one line",
        _ => "one line for each key of the Secret (add only the lines that are missing)",
    };
    let mut text = format!("# ~{}/.ssh/authorized_keys on the machine, {lines}:\n", machine.spec.user);
    for AuthorizedKey { entry, fingerprint, line } in &keys.keys {
        let _ = writeln!(text, "# {entry}, {fingerprint}\n{options} {line} writ");
    }
    if keys.has_certificate {
        text.push_str(
            "# or, because the Secret has a certificate: TrustedUserCAKeys in sshd_config, with the key of its authority\n",
        );
    }
    text
}

fn sudo_lines(lines: &mut String, user: &str, rule: &WhitelistRule) {
    let Some((program, words)) = rule.run.split_first() else { return };
    // A sudo line grants rights. If a text of the rule could start another line or has a special meaning for sudo, a
    // comment replaces the line.
    let values = rule.parameters.values().filter_map(|parameter| parameter.one_of.as_ref()).flatten();
    let mut all = rule.run.iter().chain(values).chain(rule.environment.keys()).chain(&rule.run_as).chain([&rule.name]);
    if !all.all(|word| sudoers::is_plain(word)) {
        lines.push_str("# a rule has characters that a sudo line cannot contain: write the line by hand\n");
        return;
    }
    let (Some(user), Some(run_as)) = (sudoers::user(user), sudoers::user(rule.run_as.as_deref().unwrap_or("root")))
    else {
        lines.push_str("# a user has a name that sudo may read as something else: write the line by hand\n");
        return;
    };
    let _ = writeln!(lines, "# rule {}", rule.name);
    match argument_combinations(words, rule) {
        Some(all) => {
            for words in all {
                let _ = writeln!(lines, "{}", sudoers::grant(&user, &run_as, &sudoers::command(program, &words)));
            }
        }
        None => {
            let _ = writeln!(
                lines,
                "# with any arguments, because sudo cannot restrict them as the rule does: only the Whitelist restricts them"
            );
            let _ = writeln!(lines, "{}", sudoers::grant(&user, &run_as, &sudoers::escape(program)));
        }
    }
    if !rule.environment.is_empty() {
        let names = rule.environment.keys().cloned().collect::<Vec<_>>().join(" ");
        let _ = writeln!(lines, "Defaults!{} env_keep += \"{names}\"", sudoers::escape(program));
    }
}

/// Returns each argument list that the rule allows. Returns `None` if there are more than [`MAX_LINES`], or if a
/// parameter has no list of values.
fn argument_combinations(words: &[String], rule: &WhitelistRule) -> Option<Vec<Vec<String>>> {
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
        if all.len() > MAX_LINES {
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

#[cfg(test)]
mod tests;
