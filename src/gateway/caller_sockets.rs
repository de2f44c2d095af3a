//! Limits the number of WebSockets and other long answers of each caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::StatusCode;

use super::error::ApiError;
use super::server::{SocketGuard, Sockets};

/// Maximum number of open sockets of one caller. A page of a web console needs a few.
const MAX_SOCKETS: usize = 64;
/// Places that a socket with changes of executions takes, because it reads up to 50 executions per second.
pub const FEED_PLACES: usize = 8;
/// Time after which a caller with too many sockets should try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Open sockets of each caller.
#[derive(Clone, Debug, Default)]
pub struct CallerSockets {
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// Places of an open answer. Dropping it makes the places free.
#[derive(Debug)]
pub struct CallerPlaces {
    user: String,
    places: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// An open socket. The task of the socket owns it.
pub struct CallerSocket {
    _places: CallerPlaces,
    guard: SocketGuard,
    /// Completes when the caller may no longer receive messages.
    access_lost: BoxFuture<'static, ()>,
}

/// Reason why a socket must end before its messages do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SocketEnd {
    /// The process stops.
    Stopping,
    /// The credential or the right of the caller is no longer valid.
    AccessLost,
}

impl CallerSockets {
    /// Takes places of a caller, for an answer that does not outlive its connection.
    ///
    /// # Errors
    /// 429 if the caller has too many.
    pub fn take(&self, user: &str, places: usize) -> Result<CallerPlaces, ApiError> {
        let mut open = lock(&self.open);
        let used = open.get(user).copied().unwrap_or_default();
        if used + places > MAX_SOCKETS {
            let message = format!(
                "user {user:?} has too many open streams and downloads (at most {MAX_SOCKETS}; a stream of changes \
                 counts {FEED_PLACES} times); close some of them"
            );
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded", "TooManySockets", message);
            return Err(ApiError { retry_after: Some(RETRY_AFTER), ..error });
        }
        open.insert(user.to_owned(), used + places);
        Ok(CallerPlaces { user: user.to_owned(), places, open: Arc::clone(&self.open) })
    }

    /// Opens a socket of a caller, which takes `places` places. It ends when `access_lost` completes.
    ///
    /// # Errors
    /// 429 if the caller has too many.
    pub fn enter(
        &self,
        user: &str,
        places: usize,
        sockets: &Sockets,
        access_lost: impl Future<Output = ()> + Send + 'static,
    ) -> Result<CallerSocket, ApiError> {
        let places = self.take(user, places)?;
        Ok(CallerSocket { _places: places, guard: sockets.enter(), access_lost: Box::pin(access_lost) })
    }
}

impl CallerSocket {
    /// Waits until the socket must end.
    pub async fn ending(&mut self) -> SocketEnd {
        tokio::select! {
            () = self.guard.stopping() => SocketEnd::Stopping,
            () = &mut self.access_lost => SocketEnd::AccessLost,
        }
    }
}

impl Drop for CallerPlaces {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(used) = open.get_mut(&self.user) {
            *used = used.saturating_sub(self.places);
            if *used == 0 {
                open.remove(&self.user);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_with_too_many_sockets_is_refused_until_one_closes() {
        let sockets = CallerSockets::default();
        let mut open: Vec<_> = (0..MAX_SOCKETS).map(|_| sockets.take("jane", 1).unwrap()).collect();
        assert_eq!(sockets.take("jane", 1).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        sockets.take("joe", 1).unwrap();
        open.truncate(MAX_SOCKETS - FEED_PLACES);
        let feed = sockets.take("jane", FEED_PLACES).unwrap();
        assert!(sockets.take("jane", 1).is_err());
        drop((open, feed));
        assert!(lock(&sockets.open).is_empty());
    }
}
