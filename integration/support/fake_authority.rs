//! A fake of Fulcio, for certificates that end sooner than the real one's ten minutes. It believes every token.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, PublicKeyData, SanType, SignatureAlgorithm,
};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A running fake.
pub(crate) struct FakeAuthority {
    pub(crate) url: String,
    issued: Arc<AtomicUsize>,
}

impl FakeAuthority {
    /// Starts one whose certificates live so long.
    pub(crate) fn start(lifetime: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let issued = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&issued);
        std::thread::spawn(move || {
            let mut root = CertificateParams::default();
            root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let root = CertifiedIssuer::self_signed(root, key).expect("a root");
            for client in listener.incoming().map_while(Result::ok) {
                if serve(client, &root, lifetime) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { url, issued }
    }

    /// How many certificates it has given.
    pub(crate) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }
}

/// Answers one request; whether with a certificate.
fn serve(mut client: TcpStream, root: &CertifiedIssuer<'_, KeyPair>, lifetime: Duration) -> bool {
    let mut request = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let whole = loop {
        let Ok(read @ 1..) = client.read(&mut buffer) else { return false };
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if request.len() >= end + 4 + length.unwrap_or(0) {
            break end + 4;
        }
    };
    let (status, answer) = match request.starts_with(b"POST /api/v2/signingCert ") {
        true => {
            let body: Value = serde_json::from_slice(&request[whole..]).expect("JSON");
            (
                "200 OK",
                json!({ "signedCertificateDetachedSct": { "chain": { "certificates":
                [certificate(&body, root, lifetime), root.pem()] }}}),
            )
        }
        // It doesn't say whom it believes, which is allowed.
        false => ("404 Not Found", json!({})),
    };
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    client.write_all((head + &answer).as_bytes()).is_ok() && status.starts_with("200")
}

/// The point of a P-256 key.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn certificate(request: &Value, root: &CertifiedIssuer<'_, KeyPair>, lifetime: Duration) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let token = text(&request["credentials"]["oidcIdentityToken"]);
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let request = STANDARD.decode(text(&request["certificateSigningRequest"])).expect("base64");
    let request = pem::parse(request).expect("PEM").into_contents();
    // prime256v1, and the BIT STRING of an uncompressed point (RFC 5480).
    const BEFORE: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let at = request.windows(BEFORE.len()).position(|window| window == BEFORE).expect("a P-256 key");
    let point = Point(request[at + BEFORE.len()..][..65].to_vec());
    let mut leaf = CertificateParams::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    leaf.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
    leaf.not_after = leaf.not_before + lifetime;
    leaf.subject_alt_names = vec![SanType::Rfc822Name(text(&claims["email"]).try_into().expect("ASCII"))];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let issuer = text(&claims["iss"]).into_bytes();
    leaf.custom_extensions =
        vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 1], issuer)];
    leaf.signed_by(&point, root).expect("a certificate").pem()
}
