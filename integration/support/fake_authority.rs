//! A fake certificate authority with Fulcio's interface, for certificates that a real one never gives: as short as a test
//! wants them, or by a clock that is wrong.

use crate::front::request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The fake. It lives as long as the test.
pub struct FakeAuthority {
    /// Where it is asked.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    key: Issuer<'static, KeyPair>,
    root_pem: String,
    root_der: Vec<u8>,
    lifetime: Duration,
    /// How many seconds its clock is ahead.
    ahead: i64,
    issued: AtomicU64,
}

struct Subject(Vec<u8>);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl FakeAuthority {
    /// Starts one whose certificates live this long, by a clock that is `ahead` by so many seconds.
    pub fn start(lifetime: Duration, ahead: i64) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "fake authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        let shared = Arc::new(Shared {
            root_pem: root.pem(),
            root_der: root.der().to_vec(),
            key: Issuer::new(params, key),
            lifetime,
            ahead,
            issued: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { url, shared }
    }

    /// Returns a TrustedRoot like this one, with this authority instead.
    pub fn trusted_root(&self, like: &str) -> String {
        let mut root: Value = serde_json::from_str(like).expect("JSON");
        root["certificateAuthorities"] = json!([{
            "subject": { "organization": "fake authority", "commonName": "" },
            "uri": self.url,
            "certChain": { "certificates": [{ "rawBytes": STANDARD.encode(&self.shared.root_der) }] },
            "validFor": { "start": "2020-01-01T00:00:00Z" },
        }]);
        root.to_string()
    }

    /// How many certificates it has given.
    pub fn issued(&self) -> u64 {
        self.shared.issued.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Some((head, body)) = request(&mut client) else { return };
        let answer = match head.split(' ').nth(1) {
            Some("/api/v2/signingCert") => self.certify(&body),
            // Whose tokens are taken, it doesn't say.
            _ => None,
        };
        let (status, body) = answer.map_or((404, String::new()), |json| (200, json.to_string()));
        let _gone = write!(
            client,
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    fn certify(&self, body: &[u8]) -> Option<Value> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let token = body["credentials"]["oidcIdentityToken"].as_str()?;
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()?;
        let request = STANDARD.decode(body["certificateSigningRequest"].as_str()?).ok()?;
        let request = pem::parse(request).ok()?.into_contents();
        // The uncompressed point follows the name of its curve and the head of a BIT STRING of 66 bytes.
        let start = request.windows(4).position(|bytes| bytes == [0x03, 66, 0, 4])? + 3;
        let subject = Subject(request.get(start..start + 65)?.to_vec());

        let issuer = claims["iss"].as_str()?;
        let mut params = CertificateParams::new(Vec::new()).ok()?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = format!("urn:fake:{}", claims["sub"].as_str()?);
        params.subject_alt_names = vec![SanType::URI(name.try_into().ok()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let text = [&[0x0c, u8::try_from(issuer.len()).ok()?], issuer.as_bytes()].concat();
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], text)];
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        params.serial_number = Some(SerialNumber::from(number));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let now = Duration::from_secs(now.checked_add_signed(self.ahead)?);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
        params.not_after = params.not_before + self.lifetime;
        let leaf = params.signed_by(&subject, &self.key).ok()?;
        Some(json!({ "signedCertificateDetachedSct": {
            "chain": { "certificates": [leaf.pem(), self.root_pem] } } }))
    }
}
