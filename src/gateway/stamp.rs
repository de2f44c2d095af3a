//! Predicts the requester that the API server would record for a caller, for decisions that start nothing.

use crate::api::command_execution::Requester;
use crate::cluster::RequesterTrust;
use crate::policy::Identity;

use super::caller::Caller;
use super::state::Gateway;

/// Group of each user who has proved a name. The API server adds it to each caller for whom Writ acts.
const AUTHENTICATED: &str = "system:authenticated";

/// Requester of a caller in a namespace, and the trust in it.
pub struct Stamp {
    requester: Requester,
    trust: RequesterTrust,
}

impl Stamp {
    /// Returns the requester of a caller. Checks first if the API server records requesters in the namespace.
    pub async fn of(gateway: &Gateway, caller: &Caller, namespace: &str) -> Self {
        Self { requester: requester(caller), trust: gateway.stamping().trust(namespace).await }
    }

    /// Returns the requester for a decision.
    pub fn identity(&self) -> Identity<'_> {
        match self.trust {
            // The execution would be created now, so after the time since which requesters are trusted.
            RequesterTrust::Since(_) => Identity::Known(&self.requester),
            RequesterTrust::Untrusted(_) => Identity::Unknown,
            RequesterTrust::Undecided(_) => Identity::Undecided,
        }
    }

    /// Returns a note for readers if rules with subjects match nobody now.
    pub fn note(&self) -> Option<String> {
        match &self.trust {
            RequesterTrust::Since(_) => None,
            RequesterTrust::Untrusted(why) | RequesterTrust::Undecided(why) => Some(format!(
                "requesters are not verified in this namespace ({why}): rules with subjects match nobody; see the \
                 condition RequesterKnown of its Whitelists"
            )),
        }
    }
}

fn requester(caller: &Caller) -> Requester {
    let mut groups = caller.user.groups.clone().unwrap_or_default();
    if !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    Requester { username: caller.name().to_owned(), uid: caller.user.uid.clone().unwrap_or_default(), groups }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn stamp(trust: RequesterTrust) -> Stamp {
        let user =
            UserInfo { username: Some("jane".to_owned()), groups: Some(vec!["sre".to_owned()]), ..UserInfo::default() };
        let caller = Caller::of_user(user);
        Stamp { requester: requester(&caller), trust }
    }

    #[test]
    fn the_requester_is_known_only_if_the_api_server_records_requesters() {
        let known = stamp(RequesterTrust::Since(jiff::Timestamp::UNIX_EPOCH));
        let Identity::Known(requester) = known.identity() else { panic!("not known") };
        assert_eq!(requester.groups, ["sre", AUTHENTICATED]);
        assert_eq!(known.note(), None);
        assert_eq!(stamp(RequesterTrust::Untrusted("why")).identity(), Identity::Unknown);
        let undecided = stamp(RequesterTrust::Undecided("why"));
        assert_eq!(undecided.identity(), Identity::Undecided);
        assert!(undecided.note().unwrap().contains("(why)"));
    }
}
