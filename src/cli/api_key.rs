//! `writ api-key create`, `list` and `revoke`: API keys of the gateway. They use the rights of the user.

mod lifetime;
mod table;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use crate::api::ApiKey;
use crate::cluster::{ApiKeyGrant, ClientOptions, Cluster, ClusterError, MAX_API_KEY_GROUPS, is_api_key_name};

use super::CliExit;

/// Create, list and revoke API keys of the gateway.
#[derive(Args, Debug)]
pub struct ApiKeyCommand {
    #[command(subcommand)]
    command: ApiKeySubcommand,
}

#[derive(Debug, Subcommand)]
enum ApiKeySubcommand {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create an API key, and print it once.
///
/// Requests with the key run commands as USER, with the groups of --group. The cluster stores only a digest of the key.
/// You need the right to create Secrets in the namespace of the gateway, and to impersonate USER and each group
/// (docs/guides/api-keys.md).
///
///   writ api-key create ci --user jane@corp.example --group sre --expires 30d
///   writ api-key create ci --user ci-bot > key
///
/// Standard output contains only the key. Exit codes: 0 created, 2 not created.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
struct Create {
    /// Name by which you list and revoke the key: lower case letters, digits and `-`.
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// User for whom the gateway acts. System users and ServiceAccounts (`system:...`) are refused.
    #[arg(long, value_name = "USER")]
    user: String,

    /// Group of the user. Repeat the flag for more groups, at most 16. The group system:authenticated is always added.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,

    /// Lifetime of the key: a number with `d`, `h` or `m`, 1m to 365d.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = lifetime::parse)]
    expires: SignedDuration,

    /// Maximum number of commands with this key in 60 s, 1 to 600 [default: the gateway's own limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    commands_per_minute: Option<u32>,

    #[command(flatten)]
    place: Place,
}

/// List API keys: user, groups, expiry and state.
///
/// The list contains no keys. A key whose state begins with `invalid` cannot be used; delete its Secret. You need the
/// right to list Secrets in the namespace of the gateway.
#[derive(Args, Debug)]
struct List {
    /// Format of the list.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(flatten)]
    place: Place,
}

/// Revoke an API key: delete its Secret.
///
/// The gateway refuses the key after at most 10 s. Running commands continue. You need the right to list and delete
/// Secrets in the namespace of the gateway. Exit codes: 0 revoked, 2 no such key, or not revoked.
#[derive(Args, Debug)]
struct Revoke {
    /// Name of the key.
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,

    #[command(flatten)]
    place: Place,
}

/// Cluster and namespace of the gateway.
#[derive(Args, Debug)]
struct Place {
    /// Namespace of the gateway.
    #[arg(long, short, value_name = "NAME", default_value = "writ-system")]
    namespace: String,

    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl ApiKeyCommand {
    /// Runs the subcommand. Prints a new key or the list to `stdout`, and notes to `stderr`.
    ///
    /// # Errors
    /// The cluster refuses the request, or the key exists or does not exist. The error message is for users.
    pub async fn run(
        &self,
        stdout: &mut (dyn Write + Send),
        stderr: &mut (dyn Write + Send),
    ) -> anyhow::Result<CliExit> {
        match &self.command {
            ApiKeySubcommand::Create(create) => create.run(stdout, stderr).await,
            ApiKeySubcommand::List(list) => list.run(stdout).await,
            ApiKeySubcommand::Revoke(revoke) => revoke.run(stdout).await,
        }
    }
}

impl Place {
    async fn cluster(&self) -> anyhow::Result<Cluster> {
        let options = ClientOptions::for_user(self.kubeconfig.as_deref(), Some(&self.namespace));
        Cluster::connect(&options).await.context("the kubeconfig cannot be used")
    }
}

impl Create {
    async fn run(&self, stdout: &mut (dyn Write + Send), stderr: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
        // Before the first call, any time is good enough to check the flags.
        self.grant(Timestamp::UNIX_EPOCH)?;
        let cluster = self.place.cluster().await?;
        self.check_that_name_is_free(&cluster, stderr).await?;
        // The check above was a call, so the time is that of the API server.
        let grant = self.grant(cluster.now())?;
        let key = new_key()?;
        if let Err(error) = cluster.create_api_key(&key, &grant).await {
            return Err(self.not_created(error));
        }
        let printed = writeln!(stdout, "{}", key.text()).and_then(|()| stdout.flush());
        if let Err(error) = printed {
            writeln!(
                stderr,
                "writ: the API key {} was created, but could not be printed ({error}): revoke it",
                self.name
            )?;
            return Err(error.into());
        }
        let groups = if grant.groups.is_empty() { "none".to_owned() } else { grant.groups.join(", ") };
        writeln!(
            stderr,
            "writ: API key {} created for user {}, groups: {groups}, expires at {}. It is shown once: keep it now. \
             To revoke it: writ api-key revoke {} -n {}",
            grant.name, grant.user, grant.expires_at, grant.name, self.place.namespace
        )?;
        Ok(CliExit::Success)
    }

    /// Returns the grant of the flags. The expiry is rounded down to whole seconds.
    fn grant(&self, now: Timestamp) -> anyhow::Result<ApiKeyGrant> {
        let expires_at = now.checked_add(self.expires).context("--expires is too long")?;
        let grant = ApiKeyGrant {
            name: self.name.clone(),
            user: self.user.clone(),
            groups: self.groups.clone(),
            expires_at: Timestamp::from_second(expires_at.as_second())?,
            commands_per_minute: self.commands_per_minute,
        };
        if grant.groups.len() > MAX_API_KEY_GROUPS {
            bail!("--group must be given at most {MAX_API_KEY_GROUPS} times: name only the groups that rules mention");
        }
        grant.check().context("the API key cannot be created")?;
        Ok(grant)
    }

    /// Refuses a name that a key has already. If the user may not list Secrets, prints a note instead.
    async fn check_that_name_is_free(&self, cluster: &Cluster, stderr: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let (name, namespace) = (&self.name, &self.place.namespace);
        match cluster.list_api_keys(Some(name)).await {
            Ok(existing) if existing.is_empty() => Ok(()),
            Ok(_) => bail!(
                "the API key {name} was not created: the namespace {namespace} has a key with this name; choose \
                 another name, or revoke that key first: writ api-key revoke {name} -n {namespace}"
            ),
            Err(ClusterError::Forbidden { .. }) => {
                writeln!(
                    stderr,
                    "writ: note: you may not list Secrets in {namespace}, so another key may have the name {name} too; \
                     revoking {name} revokes both"
                )?;
                Ok(())
            }
            Err(error) => Err(anyhow::Error::new(error).context(format!("the API key {name} was not created"))),
        }
    }

    fn not_created(&self, error: ClusterError) -> anyhow::Error {
        let name = &self.name;
        let context = if error.is_ambiguous() {
            format!(
                "the API key {name} was not printed, but perhaps its Secret was created: revoke it before you create \
                 it again (writ api-key revoke {name} -n {})",
                self.place.namespace
            )
        } else {
            format!("the API key {name} was not created")
        };
        anyhow::Error::new(error).context(context)
    }
}

impl List {
    async fn run(&self, stdout: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
        let cluster = self.place.cluster().await?;
        let mut keys = cluster.list_api_keys(None).await.context("the API keys cannot be listed")?;
        keys.sort_by(|one, other| (&one.name, &one.secret_name).cmp(&(&other.name, &other.secret_name)));
        let now = cluster.now();
        let text = match self.output {
            Format::Table => table::table(&keys, now),
            Format::Json => table::json(&keys, now),
        };
        stdout.write_all(text.as_bytes())?;
        Ok(CliExit::Success)
    }
}

impl Revoke {
    async fn run(&self, stdout: &mut (dyn Write + Send)) -> anyhow::Result<CliExit> {
        let (name, namespace) = (&self.name, &self.place.namespace);
        let cluster = self.place.cluster().await?;
        let keys = cluster.list_api_keys(Some(name)).await;
        let keys = keys.with_context(|| format!("the API key {name} was not revoked"))?;
        if keys.is_empty() {
            bail!(
                "the namespace {namespace} has no API key {name} (writ api-key list -n {namespace} lists the existing \
                 ones)"
            );
        }
        for key in &keys {
            let deleted = cluster.delete_api_key(key).await;
            deleted.with_context(|| format!("the API key {name} was not revoked; run the command again"))?;
        }
        writeln!(stdout, "API key {name} revoked: the gateway refuses it after at most 10 s")?;
        Ok(CliExit::Success)
    }
}

/// Returns a key from the random generator of the TLS library.
fn new_key() -> anyhow::Result<ApiKey> {
    let mut random = Zeroizing::new([0_u8; 32]);
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(random.as_mut_slice());
    if filled.is_err() {
        bail!("the API key was not created: the system gave no random numbers");
    }
    Ok(ApiKey::from_random(*random))
}

/// Parses the name of a key: a DNS label.
fn parse_name(text: &str) -> Result<String, String> {
    let error = || "must have 1 to 63 lower case letters, digits and `-`".to_owned();
    if is_api_key_name(text) { Ok(text.to_owned()) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: ApiKeySubcommand,
    }

    fn create(words: &[&str]) -> Result<Create, String> {
        let all = [&["writ", "create"], words].concat();
        match Program::try_parse_from(all).map_err(|error| error.to_string())?.command {
            ApiKeySubcommand::Create(create) => Ok(create),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn flags_without_values_have_the_documented_defaults() {
        let create = create(&["ci", "--user", "jane"]).unwrap();
        assert_eq!(create.place.namespace, "writ-system");
        let now: Timestamp = "2026-11-21T10:00:00.75Z".parse().unwrap();
        let grant = create.grant(now).unwrap();
        assert_eq!(grant.expires_at.to_string(), "2027-02-19T10:00:00Z");
        assert_eq!((grant.name.as_str(), grant.user.as_str()), ("ci", "jane"));
        assert!(grant.groups.is_empty() && grant.commands_per_minute.is_none());
    }

    #[test]
    fn a_name_is_a_dns_label() {
        for name in ["", "A", "-a", "a-", "a.b", "a/b", "a b", &"a".repeat(64)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
        for name in ["a", "0", "a-1", &"a".repeat(63)] {
            assert_eq!(parse_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn flags_that_no_key_can_have_are_refused() {
        for (words, says) in [
            (&["ci"][..], "--user"),
            (&["CI", "--user", "jane"], "lower case"),
            (&["ci", "--user", "jane", "--expires", "366d"], "365d"),
            (&["ci", "--user", "jane", "--commands-per-minute", "0"], "1..=600"),
            (&["ci", "--user", "jane", "--commands-per-minute", "601"], "1..=600"),
        ] {
            let error = create(words).unwrap_err();
            assert!(error.contains(says), "{words:?}: {error}");
        }
        for (words, says) in [
            (&["ci", "--user", "system:admin"][..], "system:"),
            (&["ci", "--user", " jane"], "white space"),
            (&["ci", "--user", ""], "must not be empty"),
            (&["ci", "--user", "jane", "--group", "system:masters"], "system:"),
            (&["ci", "--user", "jane", "--group", "a\"b"], "must not contain"),
        ] {
            let error = create(words).unwrap().grant(Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{words:?}: {error:#}");
        }
        let groups = ["--group", "a"].repeat(17);
        let many = create(&[&["ci", "--user", "jane"], groups.as_slice()].concat()).unwrap();
        assert!(many.grant(Timestamp::UNIX_EPOCH).unwrap_err().to_string().contains("at most 16 times"));
    }

    #[test]
    fn new_keys_differ() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one.text(), other.text());
        assert!(ApiKey::parse(one.text()).is_ok());
    }
}
