//! What the clients of all clouds share, and nothing of any one of them: HTTP with retries and
//! budgets, settings, and the marks that say whose a thing is and what it was made from.
//!
//! In: a platform entry of the manifest and environment variables. Out: an [`http::Client`], and
//! texts that platforms keep for us.

pub mod environment;
pub mod http;
pub mod mark;
pub mod settings;
pub mod supply;
pub mod transfer;
