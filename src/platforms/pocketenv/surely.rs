//! Writing to a platform whose errors say nothing of what was done: every 4xx and 5xx may have come after
//! the change was made, so what became of it is read before anything is asked again.

use super::super::Result;
use super::super::cloud::http::HttpError;

/// How often something is asked for.
const TRIES: usize = 3;

/// Asks for something; after an error, `look` says whether it is there. If it is not, and asking again may
/// help, it is asked for again.
pub(super) async fn surely<T, W, L>(ask: impl Fn() -> W, look: impl Fn() -> L) -> Result<T>
where
    W: Future<Output = Result<T, HttpError>>,
    L: Future<Output = Result<Option<T>>>,
{
    let mut tries = TRIES;
    loop {
        let error = match ask().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tries -= 1;
        match look().await {
            Ok(Some(done)) => return Ok(done),
            Ok(None) if tries > 0 && is_passing(&error) => {}
            // What was wrong first says more.
            Ok(None) | Err(_) => return Err(error.into()),
        }
    }
}

/// Whether it may go better the next time.
fn is_passing(error: &HttpError) -> bool {
    error.may_be_done() && matches!(error.status, None | Some(200..=299 | 502..=504))
}
