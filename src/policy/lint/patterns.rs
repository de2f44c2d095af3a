//! Warnings about patterns with values that their author perhaps does not expect. Most warnings show such a value.

use regex_syntax::ast::{
    Ast, ClassBracketed, ClassSet, ClassSetBinaryOp, ClassSetBinaryOpKind, ClassSetItem, ClassSetRange, Visitor, parse,
    visit,
};

use crate::policy::compile::CompiledRule;
use crate::policy::language::Words;
use crate::policy::language::paths::{ABSOLUTE, LAUNCHER};
use crate::policy::language::scanner::{ENCODED_DOT, Scanner, containing, leading};
use crate::policy::template::{ParameterSpec, Template};
use crate::policy::values::ValueSpec;
use crate::policy::{RuleError, options, programs};

use super::findings::Warning;

/// Bytes that shells and some programs interpret.
const SPECIAL: &[u8] = b" \"#$&*;<>?`|~";
/// Bytes that some programs interpret at the beginning of a value.
const LEADING: &[u8] = b"@+";
/// Minimum number of top directories for a warning. With fewer directories, for example with `/(srv|opt)/...`, the
/// author probably listed the directories on purpose.
const FREE_DIRECTORIES: usize = 3;

/// Returns the warnings about the patterns of an Allow rule.
pub(super) fn rule_warnings(rule: &CompiledRule) -> Vec<Warning> {
    let mut messages = Vec::new();
    for parameter in &rule.parameters {
        messages.extend(of_values(parameter, &rule.run));
    }
    for (name, values) in &rule.environment {
        let variable = ParameterSpec { name: name.clone(), values: values.clone() };
        messages.extend(of_values(&variable, &[]));
    }
    // The rule is in force, so each of its patterns has an automaton, and `in_words` returns no error.
    messages.extend(in_words(rule).unwrap_or_default());
    messages.extend(options::swallowed_dashes(&rule.run, &rule.parameters).map(|option| {
        format!(
            "-- behind {option} is the value of {option}, not the end of the options; write the value between {option} and --"
        )
    }));
    messages.extend(options::chosen_bundle(&rule.run, &rule.parameters).map(|parameter| {
        format!(
            "{}: the program reads the letters of its first word as options, with a dash or without; use enum",
            parameter.name
        )
    }));
    messages.into_iter().map(|message| Warning { rule: rule.name.clone(), message }).collect()
}

/// Returns the warnings about the values of one parameter.
fn of_values(parameter: &ParameterSpec, run: &[Template]) -> Vec<String> {
    let (name, values) = (&parameter.name, &parameter.values);
    let Some(pattern) = values.pattern() else { return Vec::new() };
    let mut messages = Vec::new();
    if let Ok(tree) = parse::Parser::new().parse(&pattern.text) {
        messages.extend(visit(&tree, Odd::default()).unwrap_or_default().iter().map(|odd| format!("{name}: {odd}")));
        if matches!(tree, Ast::Alternation(_)) {
            messages.push(format!("{name}: the pattern consists of alternatives at the top level, and each is matched against the whole value; put ( and ) around the alternatives that are meant"));
        }
    }
    let alone = [parameter.clone()];
    let example = |scanner: &Scanner| {
        let found = Words::new(&alone, scanner, ValueSpec::is_pattern).find(&Template::from_placeholder(0));
        found.ok().flatten().map(|example| example.word)
    };
    if example(&containing_anything()).is_none() {
        messages.push(format!("{name}: the pattern has no value that is as short as maxLength says; raise maxLength"));
    }
    let special: Vec<(u8, String)> = SPECIAL
        .iter()
        .filter(|byte| pattern.bytes.contains(**byte))
        .filter_map(|byte| Some((*byte, example(&containing(*byte))?)))
        .collect();
    if let Some((_, value)) = special.first() {
        let bytes: Vec<String> = special.iter().map(|(byte, _)| format!("{:?}", char::from(*byte))).collect();
        messages.push(format!(
            "{name}: the pattern admits {}, for example {value:?}; no shell sees it, but the program may take it for more than a \
             value: take out of the pattern what the values do not need",
            bytes.join(", ")
        ));
    }
    // This loop checks only variables. For the parameters of `run`, the position of the value in the word matters, so
    // `in_words` checks them.
    for byte in LEADING.iter().filter(|_| run.is_empty()) {
        messages.extend(example(&leading(*byte)).map(|value| leads(&format!("{name} can be {value:?}"), *byte)));
    }
    messages
}

fn leads(what: &str, byte: u8) -> String {
    format!(
        "{what}: some programs take {:?} there for the beginning of a file name or a command; begin the pattern with a letter or \
         a digit",
        char::from(byte)
    )
}

/// Finds any word that is not empty.
fn containing_anything() -> Scanner {
    Scanner::new(false, |_, _, _| true, |state| state.then_some(0))
}

/// Returns the warnings about the words of `run`.
fn in_words(rule: &CompiledRule) -> Result<Vec<String>, RuleError> {
    let mut messages = Vec::new();
    let words: Vec<(usize, &Template)> =
        rule.run.iter().enumerate().filter(|(_, word)| word.placeholders().next().is_some()).collect();
    for byte in LEADING {
        let scanner = leading(*byte);
        let mut found = Words::new(&rule.parameters, &scanner, ValueSpec::is_pattern);
        for (index, word) in &words {
            if let Some(example) = found.find(word)? {
                messages.push(leads(&format!("run[{index}] can be {:?}", example.word), *byte));
                break;
            }
        }
    }
    let mut encoded = Words::new(&rule.parameters, &ENCODED_DOT, ValueSpec::keeps_out_parent_directory);
    for (index, word) in &words {
        if let Some(example) = encoded.find(word)? {
            messages.push(format!(
                "run[{index}] can be {:?}: %2e is a dot in a URL, so a path in it may lead to a parent directory; take % out of the \
                 pattern",
                example.word
            ));
            break;
        }
    }
    let mut absolute = Words::new(&rule.parameters, &ABSOLUTE, ValueSpec::is_pattern);
    let mut launcher = Words::new(&rule.parameters, &LAUNCHER, |_| true);
    // If the tables describe the program, or `programs::warnings` returns a warning, the paths have already been
    // checked.
    let is_described = programs::is_described(&rule.run) || !programs::warnings(&rule.run, &rule.parameters).is_empty();
    for (index, word) in words.iter().filter(|_| !is_described) {
        let free = absolute.find_all(word)?;
        if let [(_, first), (_, second), ..] = free.as_slice()
            && free.len() >= FREE_DIRECTORIES
        {
            messages.push(format!(
                "run[{index}] can be {:?} or {:?}: the requester chooses a path anywhere on the machine; write the directory that you mean \
                 into run or into the pattern",
                first.word, second.word
            ));
        }
    }
    for (index, word) in &words {
        if let Some(example) = launcher.find(word)? {
            messages.push(format!(
                "run[{index}] can be {:?}: in the launcher's directory the output of other commands lies as they wrote it, \
                 before redact; narrow the pattern (docs/guides/machine-users.md)",
                example.word
            ));
            break;
        }
    }
    Ok(messages)
}

/// Collects warnings about character classes that probably have another meaning than their author intended, for example
/// `[:alpha:]` without a second pair of brackets, `[A-z]`, and `[a--z]`.
#[derive(Default)]
struct Odd(Vec<String>);

impl Visitor for Odd {
    type Output = Vec<String>;
    type Err = ();

    fn finish(self) -> Result<Self::Output, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        if let Ast::ClassBracketed(class) = ast
            && let Some(text) = in_colons(class)
        {
            self.0.push(format!(
                "{text} in the pattern is the characters between the brackets; write [{text}] for the class of that name"
            ));
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ()> {
        match item {
            // A range between two kinds of characters contains more than its author expects. For example, `[A-z]`
            // contains `[`, `\`, `]`, `^`, `_` and a backquote.
            ClassSetItem::Range(ClassSetRange { start, end, .. }) => {
                let kinds = [char::is_ascii_lowercase, char::is_ascii_uppercase, char::is_ascii_digit];
                if start.c != end.c && !kinds.iter().any(|is_kind| is_kind(&start.c) && is_kind(&end.c)) {
                    self.0.push(format!(
                        "the range {}-{} in the pattern takes in more than letters or digits; write each character that is meant, and - \
                         as \\-",
                        start.c, end.c
                    ));
                }
            }
            ClassSetItem::Bracketed(_) => self.0.push(
                "the pattern has a class inside of a class, [..[..]..], which joins the two; write the inner one without its brackets, \
                 and \\[ for the character"
                    .to_owned(),
            ),
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, operation: &ClassSetBinaryOp) -> Result<(), ()> {
        let (operator, does, character) = match operation.kind {
            ClassSetBinaryOpKind::Difference => ("--", "takes the right set out of the left one", "\\-"),
            ClassSetBinaryOpKind::Intersection => ("&&", "keeps what both sets have", "\\&"),
            ClassSetBinaryOpKind::SymmetricDifference => ("~~", "keeps what only one of the sets has", "\\~"),
        };
        self.0.push(format!(
            "{operator} inside of [ ] in the pattern is an operator, which {does}; write the characters that are meant, and {character} for \
             the character"
        ));
        Ok(())
    }
}

/// Returns the text of a class that looks like `[:alpha:]` without the second pair of brackets, else `None`.
fn in_colons(class: &ClassBracketed) -> Option<String> {
    let ClassSet::Item(ClassSetItem::Union(union)) = &class.kind else { return None };
    let literal = |item: &ClassSetItem| match item {
        ClassSetItem::Literal(literal) => Some(literal.c),
        _ => None,
    };
    let text: String = union.items.iter().map(literal).collect::<Option<_>>()?;
    (!class.negated && text.len() > 2 && text.starts_with(':') && text.ends_with(':')).then(|| format!("[{text}]"))
}
