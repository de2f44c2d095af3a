//! `writ lint`: prints the problems that the API server and the controller would report about Whitelists, before the
//! Whitelists are applied.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::api::Whitelist;
use crate::policy::{self, Findings};

use super::input::{Found, NAMELESS, Problem};
use super::{CliExit, input};

/// Check Whitelists before they are applied. Reports everything that the API server would refuse, everything that the
/// controller would report as Stalled, and likely mistakes. YAML is read as kubectl reads it.
///
/// Exit codes: 0 if every rule would be in force, even with warnings. 3 if a rule would not be in force, or if the API
/// server would refuse the Whitelist. 2 if a file, a document or a value cannot be read, for example because the value
/// has the wrong type for its field.
#[derive(Args, Debug)]
pub struct Lint {
    /// Files with Whitelists, YAML or JSON, with one or more documents. Documents of other kinds are ignored. `-` is
    /// standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
}

impl Lint {
    /// Checks all files and prints all problems.
    ///
    /// # Errors
    /// Writing to the output failed.
    pub fn run(&self, output: &mut dyn Write) -> anyhow::Result<CliExit> {
        let reading = input::read(&self.files);
        let mut exit = CliExit::Success;
        for note in &reading.notes {
            writeln!(output, "{note}")?;
        }
        for problem in &reading.problems {
            writeln!(output, "{problem}")?;
            exit = exit.max(exit_of(problem));
        }
        let all = policy::lint_all(&reading.whitelists.iter().map(|found| &found.whitelist).collect::<Vec<_>>());
        for (found, findings) in reading.whitelists.iter().zip(all) {
            let findings = with_all_problems(findings, &found.whitelist);
            let errors = errors(found, &findings);
            for error in &errors {
                writeln!(output, "{error}")?;
                exit = exit.max(exit_of(error));
            }
            let name = found.whitelist.metadata.name.as_deref().unwrap_or(NAMELESS);
            let at = |line: usize| format!("{}:{line}: Whitelist {name}", found.file.display());
            for warning in &findings.warnings {
                let line = found.line_of(Some(&warning.rule), &warning.message);
                writeln!(output, "{}: warning: rule {}: {}", at(line), warning.rule, warning.message)?;
            }
            if self.strict && !findings.warnings.is_empty() {
                exit = exit.max(CliExit::Denied);
            } else if errors.is_empty() {
                writeln!(
                    output,
                    "{}: Whitelist {name}: {} rules, all in force",
                    found.file.display(),
                    findings.rule_count
                )?;
            }
        }
        Ok(exit)
    }
}

/// Returns the findings with all problems of each invalid rule, not only with the first problem.
fn with_all_problems(findings: Findings, whitelist: &Whitelist) -> Findings {
    let namespace = whitelist.metadata.namespace.as_deref().unwrap_or_default();
    let broken = findings.invalid_rules.iter().flat_map(|broken| {
        let rule = whitelist.spec.rules.iter().find(|rule| rule.name == broken.rule);
        rule.map_or_else(|| vec![broken.clone()], |rule| policy::all_problems(rule, namespace, broken))
    });
    Findings { invalid_rules: broken.collect(), ..findings }
}

fn exit_of(problem: &Problem) -> CliExit {
    if problem.is_unreadable { CliExit::Usage } else { CliExit::Denied }
}

/// Returns the problems that the API server and the policy would report, sorted by line.
fn errors(found: &Found, findings: &Findings) -> Vec<Problem> {
    let mut errors = Vec::new();
    let mut said: Vec<(String, String)> = Vec::new();
    for text in findings.errors() {
        let (rule, message) = match text.strip_prefix("rule ").and_then(|text| text.split_once(": ")) {
            Some((rule, message)) => (Some(rule), message),
            None => (None, text.as_str()),
        };
        // The schema reports problems of names in more detail, so the policy's messages about names are skipped.
        if rule.is_some_and(|rule| findings.names.iter().any(|name| name == rule) && message.starts_with("name must")) {
            continue;
        }
        if let Some(rule) = rule {
            let field = message.split(['.', '[', ' ']).next().unwrap_or_default();
            said.push((rule.to_owned(), field.to_owned()));
        }
        errors.push(Problem {
            file: found.file.clone(),
            line: found.line_of(rule, message),
            whitelist: Some(found.whitelist.metadata.name.clone().unwrap_or_else(|| NAMELESS.to_owned())),
            message: text.clone(),
            is_unreadable: false,
            of_form: None,
        });
    }
    // If the policy and the pattern of the schema refuse the same field, only the policy's message is reported. This
    // message is better, because it names the invalid byte and its position.
    let of_schema = found.problems.iter();
    errors
        .extend(of_schema.filter(|problem| problem.of_form.as_ref().is_none_or(|form| !said.contains(form))).cloned());
    errors.sort_by_key(|problem| problem.line);
    errors
}

impl Found {
    /// Returns the line in the manifest that a message is about. The message begins with the name of a field, a
    /// parameter or an environment variable.
    ///
    /// - If the rule contains this name: the line of the name.
    /// - If the rule does not contain this name: the line of the rule.
    /// - If the message names no rule, or the manifest does not contain the rule: the line of `spec`.
    fn line_of(&self, rule: Option<&str>, message: &str) -> usize {
        let rules = self.node.get("spec").and_then(|spec| spec.get("rules"));
        let is = |node: &&super::manifest::Node| node.get("name").and_then(|name| name.text()) == rule;
        let Some(rule) = rules.map(|rules| rules.items()).unwrap_or_default().iter().find(is) else {
            return self.node.line_of("spec");
        };
        let first = message.split([' ', ':', ',']).next().unwrap_or_default();
        let mentioned = message.strip_prefix("the parameter ").and_then(|rest| rest.split(' ').next()).unwrap_or(first);
        let of_map = |map: &str, name: &str| {
            let map = rule.get(map)?;
            map.line_within(name)
        };
        let own = || rule.line_within(first);
        let named = || of_map("parameters", mentioned).or_else(|| of_map("environment", mentioned));
        own().or_else(named).unwrap_or(rule.line)
    }
}
