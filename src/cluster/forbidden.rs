//! A refusal by the API server for lack of rights: whom it refused, and the command that gives the right.

use std::fmt::Write as _;

/// On whose behalf a call is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Caller {
    /// A person at a terminal.
    Person,
    /// `writ serve`.
    Operator,
}

/// A refusal as RBAC words it: `secrets "x" is forbidden: User "jane" cannot get resource "secrets" in API group "" in the
/// namespace "ops"`.
struct Refusal<'a> {
    user: &'a str,
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
    namespace: &'a str,
    name: Option<&'a str>,
}

impl<'a> Refusal<'a> {
    /// `None` if the words are others, or concern the whole cluster.
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
        // The API server quotes with backslashes; a name that has one goes into no command.
        let is_usable = are_plain && !user.contains(['\\', '\'']) && !user.is_empty();
        is_usable.then_some(Self { user, verb, resource, group, namespace, name })
    }

    /// The flag of `kubectl create rolebinding` that names the user.
    fn subject(&self) -> String {
        let account = self.user.strip_prefix("system:serviceaccount:").filter(|account| account.contains(':'));
        match account {
            Some(account) => format!("--serviceaccount={account}"),
            None => format!("--user='{}'", self.user),
        }
    }

    /// A name for the binding, in which the user can be seen.
    fn binding(&self, what: &str) -> String {
        let usable = |each: char| if each.is_ascii_alphanumeric() { each.to_ascii_lowercase() } else { '-' };
        let user: String = self.user.chars().map(usable).take(40).collect();
        format!("{what}-{}", user.trim_matches('-'))
    }

    fn command(&self, caller: Caller) -> Option<String> {
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

/// The caller, as the subject of a sentence.
pub(super) fn who(message: &str, caller: Caller) -> String {
    match (caller, Refusal::parse(message)) {
        (Caller::Operator, _) => "writ".to_owned(),
        (Caller::Person, Some(refusal)) => format!("you (user {})", refusal.user),
        (Caller::Person, None) => "you".to_owned(),
    }
}

/// The API server's words, with the command that gives the right if there is a role for it.
pub(super) fn explained(message: &str, caller: Caller) -> String {
    let mut text = message.to_owned();
    if let Some(command) = Refusal::parse(message).and_then(|refusal| refusal.command(caller)) {
        let shown = if command.contains("--resource=secrets") { ", which shows the private key too" } else { "" };
        let _ = write!(text, "; an administrator can give this right{shown}: {command}");
    }
    text
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
            assert_eq!(who(message, caller), subject);
            let said = explained(message, caller);
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
            assert_eq!(explained(message, Caller::Person), message);
            assert_eq!(who(message, Caller::Operator), "writ");
        }
        assert_eq!(who("Unauthorized", Caller::Person), "you");
    }
}
