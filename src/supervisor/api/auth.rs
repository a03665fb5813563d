//! Who may ask over TCP: whoever shows the token. (The Unix socket lets only its owner in.)
//!
//! A browser cannot be made to send the header from another page, and no answer allows another
//! origin, so neither a forged request nor a rebound name gets anywhere.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::supervisor::owner::Refusal;

/// The shortest token that is not guessed.
const SHORTEST: usize = 16;

/// What a client has to show. Only its digest is kept.
#[derive(Clone)]
pub(in crate::supervisor) struct Token([u8; 32]);

impl Token {
    /// `None` for one that is too short or cannot stand in a header.
    pub(in crate::supervisor) fn new(token: &SecretString) -> Option<Self> {
        let token = token.expose_secret();
        let fits = token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(digest(token.as_bytes())))
    }

    /// Takes the same time wherever the two differ; a digest tells nothing about the token anyway.
    fn is(&self, shown: &[u8]) -> bool {
        let pairs = self.0.iter().zip(digest(shown));
        pairs.fold(0, |differs, (own, shown)| differs | (own ^ shown)) == 0
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The same routes for those who show the token.
pub(in crate::supervisor) fn guarded(router: Router, token: Token) -> Router {
    router.layer(from_fn_with_state(token, check))
}

async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    if shown(request.headers()).is_some_and(|shown| token.is(shown)) {
        return next.run(request).await;
    }
    if request.uri().path() == "/v1/health" {
        // Whether it serves is all that a stranger is told.
        return super::DONE.into_response();
    }
    let refusal = Refusal::new(401, "unauthorized", "the token is missing or another one");
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, refusal).into_response()
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_fits() {
        let token = |text: &str| Token::new(&SecretString::from(text.to_owned()));
        let own = token("0123456789abcdef").unwrap();
        assert!(own.is(b"0123456789abcdef"));
        for other in [
            "",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "0123456789abcde",
        ] {
            assert!(!own.is(other.as_bytes()));
        }
        for weak in ["", "short", "0123456789 abcdef", "0123456789abcdef\n"] {
            assert!(token(weak).is_none(), "{weak}");
        }
    }
}
