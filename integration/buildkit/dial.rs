//! Unix sockets and TCP with TLS on both sides, against the fake daemon behind a real TLS server.

use crate::fake_buildkit::{FakeBuildkit, Script, Valve};
use kubectl_build::buildkit::{Address, Client, ClientError, DialError, Lost, Tls};
use kubectl_build::task::{self, Task};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use secrecy::SecretSlice;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(10);

/// An authority that signs what it is asked to.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    fn pem(&self) -> Option<Vec<u8>> {
        Some(self.0.pem().into_bytes())
    }

    fn identity(&self) -> Option<(Vec<u8>, SecretSlice<u8>)> {
        let (certificate, key) = self.issue("client");
        Some((certificate.pem().into_bytes(), key.serialize_pem().into_bytes().into()))
    }
}

/// A TLS server for `builder.test` that asks for a client certificate and accepts one connection.
async fn serve(authority: &Authority, alpn: &[&str]) -> (Address, Task<()>) {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .expect("a verifier");
    let (certificate, key) = authority.issue("builder.test");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let accept = async move {
        let (stream, _) = listener.accept().await.expect("a client");
        // A client that refuses us, or that we refuse, ends here; the test looks at the client's side.
        if let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let (stream, valve) = Valve::on(stream);
            let _fake = FakeBuildkit::serve(Script::default(), stream, valve);
            std::future::pending::<()>().await;
        }
    };
    (Address::Tcp { host: "127.0.0.1".to_owned(), port }, task::spawn("tls server", accept))
}

async fn dial(address: &Address, tls: &Tls) -> Result<Client, DialError> {
    Client::dial(address, Some(tls)).await
}

#[tokio::test]
async fn both_sides_authenticate_with_and_without_alpn() {
    let authority = Authority::new("ours");
    let tls = Tls {
        ca: authority.pem(),
        identity: authority.identity(),
        server_name: Some("builder.test".to_owned()),
    };
    for alpn in [&["h2"] as &[&str], &[]] {
        let (address, _server) = serve(&authority, alpn).await;
        let client = dial(&address, &tls).await.expect("a connection");
        let version = client.wait_ready(LIMIT).await.expect("an answer");
        assert_eq!(version.as_deref(), Some("v0.0.0-fake"), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_with_the_reason() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let server_name = Some("builder.test".to_owned());
    for (tls, reason) in [
        (Tls { ca: other.pem(), identity: authority.identity(), server_name }, "UnknownIssuer"),
        (
            Tls { ca: authority.pem(), identity: authority.identity(), server_name: None },
            "not valid for name",
        ),
    ] {
        let (address, _server) = serve(&authority, &["h2"]).await;
        let error = dial(&address, &tls).await.expect_err("the daemon's certificate is wrong");
        assert_eq!(error.to_string(), format!("no TLS connection to BuildKit at `{address}`"));
        let source = std::error::Error::source(&error).expect("a reason").to_string();
        assert!(source.contains(reason), "{source}");
    }
}

#[tokio::test]
async fn a_daemon_that_refuses_our_certificate_says_so_on_the_first_call() {
    let authority = Authority::new("ours");
    let server_name = Some("builder.test".to_owned());
    let tls = Tls { ca: authority.pem(), identity: None, server_name };
    let (address, _server) = serve(&authority, &["h2"]).await;
    // With TLS 1.3 the client's side of the handshake is over before the server has looked.
    let client = dial(&address, &tls).await.expect("half a handshake");
    let error = client.wait_ready(LIMIT).await.expect_err("no certificate, no service");
    let ClientError::Lost(Lost::Broken(source)) = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("CertificateRequired"), "{source}");
}

#[tokio::test]
async fn unix_sockets_work_and_dead_ones_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("b.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let address = Address::Unix(path);
    let (client, accepted) = tokio::join!(Client::dial(&address, None), listener.accept());
    let client = client.expect("a connection");
    let (stream, valve) = Valve::on(accepted.expect("a client").0);
    let fake = FakeBuildkit::serve(Script::default(), stream, valve);
    client.wait_ready(LIMIT).await.expect("an answer");

    drop(listener);
    fake.pipe.cut();
    let error = client.wait_ready(LIMIT).await.expect_err("the server is gone");
    assert!(matches!(error, ClientError::Lost(Lost::Broken(_))), "{error:?}");
    let error = Client::dial(&address, None).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("cannot connect to BuildKit at `{address}`"));
}
