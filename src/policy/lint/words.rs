//! Warnings about words of `run` that look like several words, or like a part of a shell command line. Writ starts a
//! program with exactly these words and without a shell. Nothing splits or interprets a word.

use crate::api::whitelist::WhitelistRule;
use crate::policy::base_name;

/// Programs whose first argument is a subcommand. A subcommand contains no spaces, so a space in the first argument is
/// probably a mistake.
const WITH_COMMANDS: [&str; 33] = [
    "apk",
    "apt",
    "apt-get",
    "crictl",
    "ctr",
    "dnf",
    "docker",
    "etcdctl",
    "flatpak",
    "git",
    "helm",
    "hostnamectl",
    "ip",
    "kubectl",
    "lxc",
    "loginctl",
    "machinectl",
    "nerdctl",
    "networkctl",
    "nmcli",
    "npm",
    "openssl",
    "podman",
    "rc-service",
    "resolvectl",
    "service",
    "snap",
    "supervisorctl",
    "systemctl",
    "timedatectl",
    "yum",
    "zfs",
    "zypper",
];
/// Words that are meant for a shell. Without a shell, most programs do not interpret these words.
const OF_A_SHELL: [&str; 10] = ["|", "||", "&&", "&", ">", ">>", "<", "2>", "2>&1", ">/dev/null"];
/// Programs that interpret some words of [`OF_A_SHELL`] themselves. For these programs, the words cause no warning.
const COMPARING: [&str; 4] = ["[", "expr", "find", "test"];

/// Returns the warnings about the words of an Allow rule.
pub(super) fn rule_warnings(rule: &WhitelistRule) -> Vec<String> {
    let Some((program, words)) = rule.run.split_first() else { return Vec::new() };
    let mut messages: Vec<String> = glued(program, |_| true).map(|split| {
        format!(
            "run[0] is the one word {program:?}, so the program that starts is a file of this name, blank included (exit code \
             127 if there is none); if several words are meant, write run: {split}"
        )
    }).into_iter().collect();
    let name = base_name(program);
    let mut options_end = false;
    for (number, word) in (1..).zip(words) {
        let is_command = number == 1 && WITH_COMMANDS.contains(&name);
        let split = glued(word, |first| (!options_end && is_option(first)) || (is_command && is_plain(first)));
        messages.extend(split.map(|split| {
            format!(
                "run[{number}] is the one word {word:?}, and the program gets it as one; if several words are meant, write \
                 them as {split}"
            )
        }));
        if OF_A_SHELL.contains(&word.as_str()) && !COMPARING.contains(&name) {
            messages.push(format!(
                "run[{number}] is {word:?}, which only a shell takes for more than a word, and there is none; put the \
                 line into a script on the machine and name that in run[0]"
            ));
        }
        options_end |= word == "--";
    }
    messages
}

/// Splits a word at its spaces and returns the parts as a YAML list. Returns `None` if there is only one part, if the
/// word begins with a space, or if `like` is false for the first part.
fn glued(word: &str, like: impl Fn(&str) -> bool) -> Option<String> {
    let parts: Vec<&str> = word.split_ascii_whitespace().collect();
    let (first, rest) = parts.split_first()?;
    let is_glued = !rest.is_empty() && word.starts_with(first) && like(first);
    is_glued.then(|| format!("{parts:?}"))
}

/// Returns true for an option without a value, such as `-n` or `--lines`. If a space follows such an option in the same
/// word, the space is probably a mistake. After other options, such as `--format=%h`, a space can be correct.
fn is_option(word: &str) -> bool {
    let name = word.trim_start_matches('-');
    (1..=2).contains(&(word.len() - name.len())) && is_plain(name)
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
