//! Example requests of a rule, for warnings that show an example.

use crate::policy::compile::CompiledRule;

/// Maximum number of example requests for one rule.
const MAX_EXAMPLES: usize = 32;

/// Returns requests that the rule allows, each as text and as words: one request for each value of an enum parameter.
/// If this would be more than [`MAX_EXAMPLES`] requests, one value represents the enum.
pub(super) fn examples(rule: &CompiledRule) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for parameter in &rule.parameters {
        let listed = parameter.values.enum_values().filter(|listed| listed.len() * all.len() <= MAX_EXAMPLES);
        let values = listed.map_or_else(|| parameter.values.example().into_iter().collect(), <[String]>::to_vec);
        let values: Vec<String> = values.into_iter().filter(|value| parameter.values.check(value).is_ok()).collect();
        let with = |before: &Vec<String>| {
            values.iter().map(|value| before.iter().chain([value]).cloned().collect()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    let example = |values: &Vec<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let argv = rule.run.iter().map(|word| word.expand(&values)).collect();
        Some((rule.text.as_ref()?.expand(&values), argv))
    };
    all.iter().filter_map(example).collect()
}
