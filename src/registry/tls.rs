//! A registry's own authorities.

use super::HostOptions;
use crate::tls::AuthorityError;
pub(super) use crate::tls::{client_config, is_chain_fault};
use rustls::Error;
use rustls::pki_types::CertificateDer;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A CA file is not PEM, or holds no certificate.
    #[error("the CA for `{host}` holds no PEM certificate")]
    NoCertificate {
        /// The registry.
        host: String,
    },
    /// A certificate of a CA file cannot be used.
    #[error("a CA certificate for `{host}` cannot be used")]
    Certificate {
        /// The registry.
        host: String,
        /// What is wrong with it.
        #[source]
        source: Error,
    },
}

/// Returns the authorities that the user gave for a host.
pub(super) fn authorities(options: &HostOptions) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let host = options.host.clone();
    crate::tls::authorities(&options.ca_pem).map_err(|error| match error {
        AuthorityError::None => OptionsError::NoCertificate { host },
        AuthorityError::Certificate(source) => OptionsError::Certificate { host, source },
    })
}
