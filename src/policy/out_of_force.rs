//! Finds an invalid rule that would match a request if the rule were in force. The result is for readers of the policy.
//! Decisions do not use it.

use super::{CommandForm, InvalidRule, Request, RuleSet};

/// Returns the first Allow rule out of force that would match the request, with the name of its Whitelist. The search
/// assumes that each parameter of the rule admits every value.
pub fn matching_out_of_force<'a>(rules: &'a RuleSet, request: &Request) -> Option<(&'a str, &'a InvalidRule)> {
    let all = rules.whitelists().iter().flat_map(|whitelist| {
        whitelist.invalid_rules.iter().map(move |broken| (whitelist.record.name.as_str(), broken))
    });
    let mut all = all.filter(|(_, broken)| broken.effect == crate::api::whitelist::Effect::Allow);
    all.find(|(whitelist, broken)| match request.form() {
        CommandForm::Text(text) => broken.wording.fits_text(text),
        CommandForm::Argv(argv) => broken.wording.fits_words(argv),
        CommandForm::Rule(wanted) => {
            wanted.name == broken.rule && wanted.whitelist.as_ref().is_none_or(|wanted| wanted == whitelist)
        }
    })
}
