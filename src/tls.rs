//! Trust in TLS servers, the same for registries and signing services: the system's roots, authorities that the
//! user names, or none at all where the user says so.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// A CA file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It is not PEM, or holds no certificate.
    #[error("there is no PEM certificate in it")]
    None,
    /// One of its certificates cannot be used.
    #[error("a certificate in it cannot be used")]
    Certificate(#[source] Error),
}

/// Reads the certificates of PEM files.
///
/// # Errors
/// A file without any, or with one that cannot be used.
pub fn authorities(files: &[Vec<u8>]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let mut all = Vec::new();
    let mut checked = RootCertStore::empty();
    for pem in files {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
        for certificate in certificates.ok_or(AuthorityError::None)? {
            checked.add(certificate.clone()).map_err(AuthorityError::Certificate)?;
            all.push(certificate);
        }
    }
    Ok(all)
}

/// Returns the client configuration for a server with these authorities in addition to the system's.
pub fn client_config(authorities: &[CertificateDer<'static>], skip_verify: bool) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match skip_verify {
        true => Arc::new(Anyone { provider: Arc::clone(&provider) }),
        false => Arc::new(Verifier {
            webpki: OnceLock::new(),
            authorities: authorities.to_vec(),
            signatures: Anyone { provider: Arc::clone(&provider) },
        }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The system's roots, read once per process; Mozilla's where the system has none (containers from scratch).
pub fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // Some systems carry a certificate or two that no one can read; the rest still serves.
        let (added, _unusable) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    })
}

/// Verifies as webpki does, and also takes a certificate that is itself, byte for byte, one of the user's
/// authorities: `openssl req -x509` makes such servers, and Go's verifier takes them.
#[derive(Debug)]
struct Verifier {
    /// Made for the first server: many a client never meets one, and the system's roots take milliseconds.
    webpki: OnceLock<Arc<WebPkiServerVerifier>>,
    authorities: Vec<CertificateDer<'static>>,
    signatures: Anyone,
}

impl Verifier {
    fn webpki(&self) -> &WebPkiServerVerifier {
        self.webpki.get_or_init(|| {
            let mut roots = system_roots().clone();
            roots.add_parsable_certificates(self.authorities.iter().cloned());
            let provider = Arc::clone(&self.signatures.provider);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .expect("the store is not empty and there are no revocation lists")
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict =
            self.webpki().verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // Both mean that only the chain is wanting: webpki looks at the validity times before.
            Err(Error::InvalidCertificate(ref fault))
                if is_chain_fault(fault) && self.authorities.iter().any(|pinned| pinned == end_entity) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

/// Whether a certificate is fine but for who issued it.
pub fn is_chain_fault(fault: &CertificateError) -> bool {
    let text = || match fault {
        CertificateError::Other(OtherError(error)) => error.to_string(),
        _ => String::new(),
    };
    matches!(fault, CertificateError::UnknownIssuer) || text() == "CaUsedAsEndEntity"
}

/// Takes any certificate; signatures are checked, so that the peer at least holds its key.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
