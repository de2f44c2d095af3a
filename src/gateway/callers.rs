//! Authenticates callers: API keys by their Secret, sessions by their object, tokens by a TokenReview.
//!
//! # Guarantees
//! 1. A deleted key, session or token counts for at most [`ACCEPTED_FOR`] (and the API server's own cache for tokens).
//! 2. Unknown credentials cost the API server a limited number of calls per second. Credentials that were valid a short
//!    time ago do not count, so a flood of guesses does not refuse callers who are at work.
//! 3. The caches hold digests of credentials, never the credentials.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::api::ApiKey;
use crate::cluster::{ApiKeyAdmission, ApiKeyGrant, Cluster, RequesterTrustChecker};

use super::caller::Caller;
use super::credential::Credential;
use super::error::ApiError;
use super::session_owner::session_owner;

/// Audience of the tokens that the gateway accepts.
pub const AUDIENCE: &str = "writ-gateway";
/// Time for which an accepted credential counts without another read.
const ACCEPTED_FOR: Duration = Duration::from_secs(10);
/// Time for which a refused credential is refused without another read.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Maximum number of TokenReviews for unknown tokens per second. A TokenReview verifies a signature, or calls a webhook.
const MAX_TOKEN_READS: usize = 10;
/// Maximum number of reads of Secrets for unknown API keys per second. A read by name takes about 2 ms.
const MAX_KEY_READS: usize = 100;
/// Maximum number of reads of unknown sessions per second. A read by name takes about 2 ms.
const MAX_SESSION_READS: usize = 100;
/// Time for which a read of the admission policy for API keys counts.
const ADMISSION_FOR: Duration = Duration::from_secs(10);
/// Number of locks for reads. Guesses delay at most the credentials with the same lock.
const FLIGHTS: usize = 64;
/// Time in which the reads are counted.
const READ_WINDOW: Duration = Duration::from_secs(1);
/// Maximum number of cached credentials of each kind, about 1 KiB each. With more, the oldest ones are read again.
const MAX_CACHED: usize = 4096;

type Digest = [u8; 32];

/// Authenticates callers.
pub struct Callers {
    cluster: Cluster,
    accepts_api_server_tokens: bool,
    /// Check that nobody can create a session for another user.
    session_trust: RequesterTrustChecker,
    cache: Mutex<Cache>,
    /// Locked during the read for a credential, by its digest.
    flights: [tokio::sync::Mutex<()>; FLIGHTS],
    /// Last read of the admission policy for API keys. Locked during a read, so that callers share it.
    admission: tokio::sync::Mutex<Option<(Instant, ApiKeyAdmission)>>,
}

#[derive(Default)]
struct Cache {
    accepted: Recent<Caller>,
    /// Separate, so that a flood of guesses does not remove the accepted ones.
    refused: Recent<()>,
    token_reads: RecentReads,
    key_reads: RecentReads,
    session_reads: RecentReads,
}

/// Times of the reads for unknown credentials in the last [`READ_WINDOW`], at most the limit of their kind.
#[derive(Default)]
struct RecentReads(VecDeque<Instant>);

/// State of a credential in the cache.
enum Cached {
    /// The answer is recent.
    Fresh(Option<Caller>),
    /// The credential was valid, and must be checked again.
    WasValid,
    Unknown,
}

impl Callers {
    /// Returns an empty cache of callers. `cluster` has the rights of the gateway.
    pub fn new(cluster: Cluster, accepts_api_server_tokens: bool, session_trust: RequesterTrustChecker) -> Self {
        Self {
            cluster,
            accepts_api_server_tokens,
            session_trust,
            cache: Mutex::default(),
            flights: [const { tokio::sync::Mutex::const_new(()) }; FLIGHTS],
            admission: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the caller with this credential.
    ///
    /// # Errors
    /// 401 if the credential is not valid, 503 if that could not be checked.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Caller, ApiError> {
        let digest = digest_of(credential);
        // A key of another form and a session of another namespace cost no read.
        let is_possible = match credential {
            Credential::ApiKey(text) => ApiKey::parse(text).is_ok(),
            Credential::Session(session) => self.cluster.serves(session.namespace()),
            Credential::Token(_) => true,
        };
        if !is_possible {
            return Err(ApiError::unauthorized());
        }
        let cached = self.cache().find(&digest);
        if let Cached::Fresh(known) = cached {
            return known.ok_or_else(ApiError::unauthorized);
        }
        // Concurrent calls with the same credential share one read.
        let shard = digest.first().map_or(0, |byte| usize::from(*byte) % FLIGHTS);
        let _flight = match self.flights.get(shard) {
            Some(flight) => Some(flight.lock().await),
            None => None,
        };
        let cached = self.cache().find(&digest);
        if let Cached::Fresh(known) = cached {
            return known.ok_or_else(ApiError::unauthorized);
        }
        if matches!(cached, Cached::Unknown) && !self.cache().may_read(credential, Instant::now()) {
            let busy = ApiError::unavailable("too many unknown credentials at the moment; repeat the call");
            return Err(ApiError { retry_after: Some(Duration::from_secs(1)), ..busy });
        }
        let asked = Instant::now();
        let caller = match credential {
            Credential::ApiKey(text) => self.key_owner(text).await?,
            Credential::Token(text) => self.token_owner(text).await?,
            Credential::Session(session) => session_owner(&self.cluster, &self.session_trust, session).await?,
        };
        self.cache().insert(digest, asked, caller.clone());
        caller.ok_or_else(ApiError::unauthorized)
    }

    async fn token_owner(&self, token: &Zeroizing<String>) -> Result<Option<Caller>, ApiError> {
        let mut owner = self.cluster.review_token(token, &[AUDIENCE]).await?;
        if owner.is_none() && self.accepts_api_server_tokens {
            owner = self.cluster.review_token(token, &[]).await?;
        }
        Ok(owner.map(|owner| Caller::of_user(owner.user)))
    }

    /// Returns the owner of an API key. The admission policy must have checked the key when it was created, because
    /// anyone who may create Secrets could otherwise make a key for any user.
    async fn key_owner(&self, text: &Zeroizing<String>) -> Result<Option<Caller>, ApiError> {
        let Ok(key) = ApiKey::parse(text) else { return Ok(None) };
        let Some(stored) = self.cluster.read_api_key(&key).await? else { return Ok(None) };
        let is_checked = match self.key_admission().await? {
            ApiKeyAdmission::Since(since) => stored.is_created_after(since),
            ApiKeyAdmission::Missing(problem) => {
                tracing::warn!(problem, "API key refused");
                false
            }
        };
        if !is_checked || stored.is_expired(self.cluster.now()) {
            return Ok(None);
        }
        let (user, uid) = (stored.user_info(), stored.uid);
        let ApiKeyGrant { name, commands_per_minute, .. } = stored.grant;
        let (api_key, api_key_name) = (Some(uid), Some(name));
        Ok(Some(Caller { api_key, api_key_name, commands_per_minute, ..Caller::of_user(user) }))
    }

    /// Returns the protection of API keys by the admission policy, at most [`ADMISSION_FOR`] old.
    async fn key_admission(&self) -> Result<ApiKeyAdmission, ApiError> {
        let mut known = self.admission.lock().await;
        if let Some((at, admission)) = *known
            && at.elapsed() < ADMISSION_FOR
        {
            return Ok(admission);
        }
        let asked = Instant::now();
        let admission = self.cluster.api_key_admission().await?;
        *known = Some((asked, admission));
        Ok(admission)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the digest under which the caches keep a credential.
fn digest_of(credential: &Credential) -> Digest {
    let (domain, text) = match credential {
        Credential::ApiKey(text) => ("key\0", text),
        Credential::Token(text) => ("token\0", text),
        Credential::Session(session) => return session.digest(),
    };
    Sha256::new_with_prefix(domain).chain_update(text.as_bytes()).finalize().into()
}

impl Cache {
    fn find(&self, digest: &Digest) -> Cached {
        if let Some((at, caller)) = self.accepted.entries.get(digest) {
            return if at.elapsed() < ACCEPTED_FOR { Cached::Fresh(Some(caller.clone())) } else { Cached::WasValid };
        }
        match self.refused.entries.get(digest) {
            Some((at, ())) if at.elapsed() < REFUSED_FOR => Cached::Fresh(None),
            _ => Cached::Unknown,
        }
    }

    /// Counts a read for an unknown credential. Returns false if there were too many in this second.
    fn may_read(&mut self, credential: &Credential, now: Instant) -> bool {
        match credential {
            Credential::ApiKey(_) => self.key_reads.count(now, MAX_KEY_READS),
            Credential::Token(_) => self.token_reads.count(now, MAX_TOKEN_READS),
            Credential::Session(_) => self.session_reads.count(now, MAX_SESSION_READS),
        }
    }

    fn insert(&mut self, digest: Digest, at: Instant, caller: Option<Caller>) {
        match caller {
            Some(caller) => {
                self.refused.remove(&digest);
                self.accepted.insert(digest, at, caller);
            }
            None => {
                self.accepted.remove(&digest);
                self.refused.insert(digest, at, ());
            }
        }
    }
}

/// The newest entries, at most [`MAX_CACHED`].
struct Recent<T> {
    entries: HashMap<Digest, (Instant, T)>,
    /// Times and digests of all inserts, oldest first. An entry that was inserted again has several.
    order: VecDeque<(Instant, Digest)>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    fn insert(&mut self, digest: Digest, at: Instant, value: T) {
        self.entries.insert(digest, (at, value));
        self.order.push_back((at, digest));
        while self.entries.len() > MAX_CACHED || self.order.len() > 2 * MAX_CACHED {
            let Some((at, oldest)) = self.order.pop_front() else { break };
            // A newer insert of the same digest keeps the entry.
            if self.entries.get(&oldest).is_some_and(|(newest, _)| *newest == at) {
                self.entries.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, digest: &Digest) {
        self.entries.remove(digest);
    }
}

impl RecentReads {
    fn count(&mut self, now: Instant, limit: usize) -> bool {
        while self.0.front().is_some_and(|first| now.duration_since(*first) >= READ_WINDOW) {
            self.0.pop_front();
        }
        let may_read = self.0.len() < limit;
        if may_read {
            self.0.push_back(now);
        }
        may_read
    }
}
