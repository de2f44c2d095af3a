//! Explains refusals of the API server because of a missing right. A message names the caller and, if known, the
//! command or the ClusterRoles that grant the right.

use std::fmt::Write as _;
use std::sync::Arc;

/// Caller on whose behalf a call is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Caller {
    /// A user of a command-line tool.
    Person,
    /// `writ serve`.
    Operator,
    /// A requester for whom this process acts.
    Requester {
        /// User name of the requester.
        name: Arc<str>,
        /// True for a ServiceAccount. Acting for a ServiceAccount needs another right than acting for a person.
        is_service_account: bool,
    },
}

/// A refusal, parsed from RBAC's message. Example: `secrets "x" is forbidden: User "jane" cannot get resource "secrets"
/// in API group "" in the namespace "ops"`.
struct RequestRefusal<'a> {
    user: &'a str,
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
    namespace: &'a str,
    name: Option<&'a str>,
}

impl<'a> RequestRefusal<'a> {
    /// Parses a message. Returns `None` in three cases:
    ///
    /// - The message has another form.
    /// - The refused call was not for a namespace.
    /// - A part of the message is not safe in a shell command.
    fn parse(message: &'a str) -> Option<Self> {
        let (object, rest) = message.split_once(" is forbidden: User \"")?;
        let (user, rest) = rest.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, rest) = rest.split_once("\" in the namespace \"")?;
        let (namespace, _) = rest.split_once('"')?;
        let name = object.split_once(" \"").and_then(|(_, name)| name.strip_suffix('"'));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        let are_plain = [verb, namespace, name.unwrap_or_default()].into_iter().all(is_plain);
        // A user name with a quote or a backslash is not safe in a shell command. The API server escapes special
        // characters with backslashes.
        let is_usable = are_plain && !user.contains(['\\', '\'']) && !user.is_empty();
        is_usable.then_some(Self { user, verb, resource, group, namespace, name })
    }

    /// Returns the flag of `kubectl create rolebinding` that names the user.
    fn subject(&self) -> String {
        let account = self.user.strip_prefix("system:serviceaccount:").filter(|account| account.contains(':'));
        match account {
            Some(account) => format!("--serviceaccount={account}"),
            None => format!("--user='{}'", self.user),
        }
    }

    /// Returns a name for the role binding. The name contains the user's name.
    fn binding(&self, what: &str) -> String {
        let usable = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '-' };
        let user: String = self.user.chars().map(usable).take(40).collect();
        format!("{what}-{}", user.trim_matches('-'))
    }

    fn command(&self, caller: &Caller) -> Option<String> {
        let (namespace, subject) = (self.namespace, self.subject());
        let bind =
            |name: String, role: &str| format!("kubectl -n {namespace} create rolebinding {name} {role} {subject}");
        let reads = matches!(self.verb, "get" | "list" | "watch");
        match (self.group, self.resource, caller) {
            ("", "secrets", Caller::Operator) if self.verb == "get" => {
                Some(bind("writ-credentials".to_owned(), "--clusterrole=writ-operator-credentials"))
            }
            ("", "secrets", Caller::Person) if self.verb == "get" => {
                let name = self.name?;
                let role = format!("read-secret-{name}");
                Some(format!(
                    "kubectl -n {namespace} create role {role} --verb=get --resource=secrets --resource-name={name} && {}",
                    bind(self.binding(&role), &format!("--role={role}"))
                ))
            }
            ("writ.dev", _, Caller::Person) if reads => {
                Some(bind(self.binding("writ-viewer"), "--clusterrole=writ-viewer"))
            }
            _ => None,
        }
    }
}

/// Returns the caller as the subject of an error message, for example `writ` or `you`.
pub(super) fn who(message: &str, caller: &Caller) -> String {
    match (caller, RequestRefusal::parse(message)) {
        (Caller::Operator | Caller::Requester { .. }, _) => "writ".to_owned(),
        (Caller::Person, Some(refusal)) => format!("you (user {})", refusal.user),
        (Caller::Person, None) => "you".to_owned(),
    }
}

/// Returns the API server's message. If known, adds the command or the ClusterRoles with which an administrator grants
/// the missing right.
pub(super) fn explained(message: &str, caller: &Caller) -> String {
    let mut text = message.to_owned();
    if let Caller::Requester { name, is_service_account } = caller {
        let _ = write!(text, "; {}", how_to_let_act_for(name, *is_service_account));
        return text;
    }
    if let Some(command) = RequestRefusal::parse(message).and_then(|refusal| refusal.command(caller)) {
        let shown = if command.contains("--resource=secrets") { ", which shows the private key too" } else { "" };
        let _ = write!(text, "; an administrator can give this right{shown}: {command}");
    }
    text
}

/// Returns true if `message` refuses an impersonation: this process may not act for the requester. For any other
/// message, returns false: the requester lacks a right. Example of a refused impersonation:
/// `users "alice" is forbidden: User "writ" cannot impersonate:user-info resource "users" ...`.
///
/// A name cannot imitate this message, because the API server escapes quotes in names.
pub(super) fn lacks_impersonation(message: &str) -> bool {
    let words = message.split_once(" is forbidden: User \"").and_then(|(_, rest)| rest.split_once("\" cannot "));
    words.is_some_and(|(user, rest)| !user.contains(['"', '\\']) && rest.starts_with("impersonate"))
}

/// Returns an instruction for an administrator. The instruction names the ClusterRoles that let this process act for a
/// requester.
fn how_to_let_act_for(name: &str, is_service_account: bool) -> String {
    let (role, place) = match name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) {
        Some((namespace, _)) if is_service_account => {
            ("writ-gateway-serviceaccounts", format!("by a RoleBinding in namespace {namespace}"))
        }
        _ => ("writ-gateway-identities", "by a ClusterRoleBinding".to_owned()),
    };
    format!(
        "an administrator can let Writ act for {name}: bind the ClusterRole {role} to Writ's ServiceAccount {place}, and \
         the ClusterRole writ-gateway-actions by a RoleBinding in the namespace of the object (Kubernetes 1.36 or newer)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = r#"secrets "web-ssh" is forbidden: User "jane" cannot get resource "secrets" in API group "" in the namespace "ops""#;

    #[test]
    fn a_refusal_names_the_user_and_the_command_that_gives_the_right() {
        let account = SECRET.replace("jane", "system:serviceaccount:writ-system:writ");
        let list = r#"whitelists.writ.dev is forbidden: User "jane@corp.example" cannot list resource "whitelists" in API group "writ.dev" in the namespace "ops": no RBAC policy matched"#;
        for (message, caller, subject, command) in [
            (
                account.as_str(),
                Caller::Operator,
                "writ",
                "kubectl -n ops create rolebinding writ-credentials --clusterrole=writ-operator-credentials --serviceaccount=writ-system:writ",
            ),
            (
                SECRET,
                Caller::Person,
                "you (user jane)",
                "kubectl -n ops create role read-secret-web-ssh --verb=get --resource=secrets --resource-name=web-ssh && kubectl -n ops create rolebinding read-secret-web-ssh-jane --role=read-secret-web-ssh --user='jane'",
            ),
            (
                list,
                Caller::Person,
                "you (user jane@corp.example)",
                "kubectl -n ops create rolebinding writ-viewer-jane-corp-example --clusterrole=writ-viewer --user='jane@corp.example'",
            ),
        ] {
            assert_eq!(who(message, &caller), subject);
            let said = explained(message, &caller);
            assert!(said.starts_with(message) && said.ends_with(command), "{said}");
        }
    }

    #[test]
    fn words_that_are_not_understood_give_no_command() {
        for message in [
            "Unauthorized",
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#,
            r#"secrets "a b" is forbidden: User "jane" cannot get resource "secrets" in API group "" in the namespace "ops""#,
            r#"secrets "x" is forbidden: User "ja'ne; reboot" cannot get resource "secrets" in API group "" in the namespace "ops""#,
            r#"secrets "x" is forbidden: User "a\"b" cannot get resource "secrets" in API group "" in the namespace "ops""#,
            r#"secrets "x" is forbidden: User "jane" cannot delete resource "secrets" in API group "" in the namespace "ops""#,
        ] {
            assert_eq!(explained(message, &Caller::Person), message);
            assert_eq!(who(message, &Caller::Operator), "writ");
        }
        assert_eq!(who("Unauthorized", &Caller::Person), "you");
    }

    #[test]
    fn a_refusal_to_impersonate_is_told_from_one_of_the_requester() {
        let own = "system:serviceaccount:writ-system:writ-gateway";
        for verb in ["impersonate", "impersonate:user-info", "impersonate-on:user-info:create"] {
            let message =
                format!(r#"users "alice" is forbidden: User "{own}" cannot {verb} resource "users" in API group"#);
            assert!(lacks_impersonation(&message), "{message}");
        }
        let resource = "resource \"commandexecutions\" in API group \"writ.dev\" in the namespace \"ops\"";
        let by_alice = format!(r#"commandexecutions.writ.dev is forbidden: User "alice" cannot create {resource}"#);
        let by_a_liar = format!(
            r#"commandexecutions.writ.dev is forbidden: User "x\" cannot impersonate resource \"users" cannot create {resource}"#
        );
        for message in [by_alice.as_str(), by_a_liar.as_str(), "Unauthorized"] {
            assert!(!lacks_impersonation(message), "{message}");
        }
    }

    #[test]
    fn what_lets_writ_act_for_a_requester_is_named_by_its_cluster_roles() {
        let person = Caller::Requester { name: "alice".into(), is_service_account: false };
        let account = Caller::Requester { name: "system:serviceaccount:ci:robot".into(), is_service_account: true };
        let message = r#"users "x" is forbidden: User "writ" cannot impersonate resource "users""#;
        let for_person = explained(message, &person);
        assert!(for_person.starts_with(message) && for_person.contains("ClusterRole writ-gateway-identities"));
        let for_account = explained(message, &account);
        assert!(
            for_account
                .contains("writ-gateway-serviceaccounts to Writ's ServiceAccount by a RoleBinding in namespace ci")
        );
        assert!([for_person, for_account].iter().all(|text| text.contains("ClusterRole writ-gateway-actions")));
    }
}
