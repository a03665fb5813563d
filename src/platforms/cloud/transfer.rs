//! Whole contents in and out of streams, for platforms that take and give them in one request, and what is said of
//! files that are not there.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::http::HttpError;
use crate::model::human_size;
use crate::platforms::files::no_file;
use crate::platforms::{PlatformError, Result};

/// Writes all of it.
pub async fn deliver(to: &mut (dyn AsyncWrite + Send + Unpin), bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).await?;
    Ok(to.flush().await?)
}

/// All that there is to read. More than `most` bytes of `what` is an error.
pub async fn collect(
    from: &mut (dyn AsyncRead + Send + Unpin),
    most: u64,
    what: &str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .await?;
    match bytes.len() as u64 > most {
        true => Err(PlatformError::new(format!(
            "{what} may have at most {} there",
            human_size(most)
        ))),
        false => Ok(bytes),
    }
}

/// What is said of a file that is not there, or where something else is wrong with it.
pub fn about_file(path: &str) -> impl Fn(HttpError) -> PlatformError + '_ {
    move |error| match error.is_not_found() {
        true => no_file(path),
        false => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_too_much_is_an_error() {
        let mut four: &[u8] = b"four";
        assert_eq!(collect(&mut four, 4, "a file").await.unwrap(), b"four");
        let mut five: &[u8] = b"fives";
        let error = collect(&mut five, 4, "a file").await.unwrap_err();
        assert_eq!(error.to_string(), "a file may have at most 4 B there");
    }
}
