//! Tickets for downloads. A ticket in a URL replaces the credential for one read. Pure: time and randomness are
//! arguments.
//!
//! # Guarantees
//! 1. A ticket permits one read, within [`LIFETIME`], for its caller and its target only.
//! 2. The memory has digests of tickets, never the tickets. So the comparison takes the same time for each guess.
//! 3. A caller with many tickets takes no place of another caller, until many callers do so together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::caller::Caller;
use super::download_target::DownloadTarget;
use super::error::ApiError;

/// Time for which a ticket counts. A browser follows the URL at once.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// Number of random bytes in a ticket.
pub const RANDOM_BYTES: usize = 32;
/// Maximum number of unused tickets. Each keeps the identity of its caller, usually 2 KiB, and a target of 2 KiB. An
/// identity with the maximum number of groups takes 130 KiB.
const MAX_TICKETS: usize = 1024;
/// Maximum number of unused tickets of one caller. A page with a list of commands needs a few at the same time.
const MAX_TICKETS_OF_CALLER: usize = 32;
/// Length of a ticket's text: 32 bytes as base64url.
const TEXT_LENGTH: usize = 43;

type Digest = [u8; 32];

/// Text of a ticket. Cannot be printed, except as a part of the URL in the answer to its caller.
pub struct Ticket(Zeroizing<String>);

/// Read that a ticket permits.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Caller who requested the ticket. The read happens with the rights of this caller.
    pub caller: Caller,
    /// Content of the download.
    pub target: DownloadTarget,
    /// UID of the object. A later object of the same name is another one.
    pub uid: Option<String>,
}

/// Unused tickets.
#[derive(Default)]
pub struct Tickets {
    unused: Mutex<HashMap<Digest, Issued>>,
}

struct Issued {
    at: Instant,
    grant: Grant,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ticket")
    }
}

impl Ticket {
    fn from_random(random: &[u8; RANDOM_BYTES]) -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(random)))
    }

    /// Returns the text for the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tickets {
    /// Issues a ticket. `random` comes from the system's generator.
    ///
    /// # Errors
    /// 429 if the caller has too many unused tickets, 503 if all callers together have too many.
    pub fn issue(&self, random: &[u8; RANDOM_BYTES], grant: Grant, now: Instant) -> Result<Ticket, ApiError> {
        let mut unused = self.unused();
        unused.retain(|_, issued| issued.is_valid(now));
        let user = grant.caller.name();
        let own: Vec<Instant> =
            unused.values().filter(|issued| issued.grant.caller.name() == user).map(|issued| issued.at).collect();
        if own.len() >= MAX_TICKETS_OF_CALLER {
            let message = format!(
                "user {user:?} has {MAX_TICKETS_OF_CALLER} unused download URLs; use them, or repeat the call after \
                 Retry-After"
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            let error = ApiError::new(status, "Rate limit exceeded", "TooManyDownloads", message);
            return Err(ApiError { retry_after: Some(left(own.into_iter().min(), now)), ..error });
        }
        if unused.len() >= MAX_TICKETS {
            let oldest = unused.values().map(|issued| issued.at).min();
            let error = ApiError::unavailable("there are too many unused download URLs; repeat the call");
            return Err(ApiError { retry_after: Some(left(oldest, now)), ..error });
        }
        let ticket = Ticket::from_random(random);
        unused.insert(digest(ticket.as_str()), Issued { at: now, grant });
        Ok(ticket)
    }

    /// Uses a ticket up, and returns the read that it permits. Returns `None` for a used one, an expired one, and a
    /// text that never was a ticket.
    pub fn redeem(&self, text: &str, now: Instant) -> Option<Grant> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let issued = self.unused().remove(&digest(text))?;
        issued.is_valid(now).then_some(issued.grant)
    }

    fn unused(&self) -> MutexGuard<'_, HashMap<Digest, Issued>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issued {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < LIFETIME
    }
}

/// Returns the time until the oldest ticket expires.
fn left(oldest: Option<Instant>, now: Instant) -> Duration {
    oldest.map_or(LIFETIME, |at| LIFETIME.saturating_sub(now.saturating_duration_since(at)))
}

fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;
    use crate::gateway::body::parse;

    const SECOND: Duration = Duration::from_secs(1);

    fn grant(user: &str, command: usize) -> Grant {
        let text = format!(r#"{{"kind": "output", "command_id": "ops:run-{command}", "stream": "stdout"}}"#);
        let user = UserInfo { username: Some(user.to_owned()), ..UserInfo::default() };
        Grant { caller: Caller::of_user(user), target: parse(text.as_bytes()).unwrap(), uid: None }
    }

    fn random(number: usize) -> [u8; RANDOM_BYTES] {
        let mut bytes = [7; RANDOM_BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn command(grant: &Grant) -> &str {
        let DownloadTarget::Output(output) = &grant.target;
        &output.command_id
    }

    #[test]
    fn a_ticket_permits_one_read_of_its_caller_and_target() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let first = tickets.issue(&random(1), grant("jane", 1), now).unwrap();
        let second = tickets.issue(&random(2), grant("joe", 2), now).unwrap();
        assert_eq!((first.as_str().len(), format!("{first:?}").as_str()), (TEXT_LENGTH, "Ticket"));
        let read = tickets.redeem(second.as_str(), now + SECOND).unwrap();
        assert_eq!((read.caller.name(), command(&read)), ("joe", "ops:run-2"));
        assert!(tickets.redeem(second.as_str(), now + SECOND).is_none());
        let read = tickets.redeem(first.as_str(), now + SECOND).unwrap();
        assert_eq!((read.caller.name(), command(&read)), ("jane", "ops:run-1"));
    }

    #[test]
    fn used_expired_and_invented_tickets_are_the_same() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.issue(&random(1), grant("jane", 1), now).unwrap();
        let mut other = ticket.as_str().to_owned();
        other.replace_range(..1, if other.starts_with('A') { "B" } else { "A" });
        let digest_of_it = URL_SAFE_NO_PAD.encode(digest(ticket.as_str()));
        // The last character has two bits that the decoder of some libraries ignores.
        let last = format!("{}{}", &ticket.as_str()[..42], if ticket.as_str().ends_with('d') { 'e' } else { 'd' });
        let long = "A".repeat(1 << 20);
        for guess in ["", "A", &other, &digest_of_it, &last, &long, &format!("{}=", ticket.as_str())] {
            assert!(tickets.redeem(guess, now).is_none(), "{}", guess.len());
        }
        assert!(tickets.redeem(ticket.as_str(), now + LIFETIME).is_none());
        // An expired ticket is gone, also if the clock of the test goes back.
        assert!(tickets.redeem(ticket.as_str(), now).is_none());
        let ticket = tickets.issue(&random(2), grant("jane", 1), now).unwrap();
        assert!(tickets.redeem(ticket.as_str(), now + LIFETIME - SECOND).is_some());
    }

    #[test]
    fn a_caller_with_too_many_tickets_waits_and_others_do_not() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let mut issued: Vec<Ticket> = (0..MAX_TICKETS_OF_CALLER)
            .map(|index| tickets.issue(&random(index), grant("jane", index), now + SECOND).unwrap())
            .collect();
        let refused = tickets.issue(&random(99), grant("jane", 99), now + SECOND * 11).unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (StatusCode::TOO_MANY_REQUESTS, Some(SECOND * 50)));
        tickets.issue(&random(99), grant("joe", 99), now + SECOND * 11).unwrap();
        assert!(tickets.redeem(issued.pop().unwrap().as_str(), now + SECOND * 11).is_some());
        tickets.issue(&random(98), grant("jane", 98), now + SECOND * 11).unwrap();
        assert!(tickets.issue(&random(97), grant("jane", 97), now + SECOND * 11).is_err());
        // All but the two last ones have expired.
        tickets.issue(&random(97), grant("jane", 97), now + SECOND * 61).unwrap();
        assert_eq!(tickets.unused().len(), 3);
    }

    #[test]
    fn the_number_of_all_tickets_is_bounded() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for index in 0..MAX_TICKETS {
            let user = format!("user-{}", index / MAX_TICKETS_OF_CALLER);
            tickets.issue(&random(index), grant(&user, index), now).unwrap();
        }
        let refused = tickets.issue(&random(MAX_TICKETS), grant("jane", 1), now + SECOND).unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(LIFETIME - SECOND)));
        tickets.issue(&random(MAX_TICKETS), grant("jane", 1), now + LIFETIME).unwrap();
        assert_eq!(tickets.unused().len(), 1);
    }
}
