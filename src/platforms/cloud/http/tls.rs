//! TLS for reqwest, with ring. Handed in ready-made: reqwest alone would load the machine's
//! certificates for each of its clients, also for those that only speak over sockets.

use std::sync::{Arc, OnceLock};

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

/// Connections to servers that the machine's certificates vouch for. They are read once.
pub fn verified() -> Result<ClientConfig, Error> {
    static CONFIG: OnceLock<Result<ClientConfig, Error>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?;
            Ok(builder.with_platform_verifier()?.with_no_client_auth())
        })
        .clone()
}

/// For clients that use no TLS: no server is trusted.
pub fn unused() -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}
