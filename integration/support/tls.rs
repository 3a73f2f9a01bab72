//! TLS in front of a plain server, with certificates made for the test.

use kubectl_build::task::{Task, spawn};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A server's certificate and what to trust for it.
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pub(crate) authority_pem: String,
}

impl Certificate {
    /// Returns one that an authority of its own has signed.
    pub(crate) fn from_authority(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
        Self { chain: vec![certificate.der().clone()], key, authority_pem: authority_certificate.pem() }
    }

    /// Returns one that is its own authority, as `openssl req -x509` makes them.
    #[allow(dead_code, reason = "not every test crate looks at both kinds")]
    pub(crate) fn self_signed_authority(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { chain: vec![certificate.der().clone()], key, authority_pem: certificate.pem() }
    }
}

/// Ends TLS and passes the bytes on; it ends when dropped.
pub(crate) struct TlsFront {
    host: String,
    accepted: Arc<AtomicUsize>,
    _task: Task<()>,
}

impl TlsFront {
    /// Starts one on a free port of the loopback.
    pub(crate) async fn start(certificate: &Certificate, behind: &str) -> Self {
        let key = PrivateKeyDer::try_from(certificate.key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificate.chain.clone(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, behind) = (Arc::clone(&accepted), behind.to_owned());
        let task = spawn("TLS front", async move {
            let mut passing = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                passing.spawn(async move {
                    if let Ok(mut outside) = acceptor.accept(socket).await {
                        let mut inside = TcpStream::connect(behind).await.unwrap();
                        let _closed = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                    }
                });
            }
        });
        Self { host, accepted, _task: task }
    }

    /// Returns `host:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns how many connections were made.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}
