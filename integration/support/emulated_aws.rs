//! moto, an emulator of AWS, behind TLS; its KMS is repaired so that it signs digests (hack/cluster/kms). Where a test
//! asks for that, fakes of what gives out keys, and a gate in front that knows them.

use crate::peers::{free_address, peer};
use crate::tls::{Certificate, TlsFront};
use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kubectl_build::task::{Task, spawn};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a person who has logged in shows to single sign-on.
pub(crate) const SSO_TOKEN: &str = "sso-token-of-the-test";
/// What a container shows to its service of credentials.
pub(crate) const CONTAINER_TOKEN: &str = "container-token-of-the-test";
/// What a pod shows to STS.
pub(crate) const POD_TOKEN: &str = "eyJ.pod-token.of-the-test";
/// Without this, no role is assumed.
pub(crate) const EXTERNAL_ID: &str = "external-id-of-the-test";
const METADATA_TOKEN: &str = "metadata-token-of-the-test";
/// The longest body.
const LIMIT: usize = 1 << 20;

pub(crate) struct EmulatedAws {
    /// `host:port` of its TLS.
    pub(crate) host: String,
    pub(crate) authority_pem: String,
    /// Its address without TLS.
    pub(crate) plain: String,
    process: Child,
    front: TlsFront,
}

impl EmulatedAws {
    pub(crate) async fn start() -> Self {
        let address: SocketAddr = free_address(Ipv4Addr::LOCALHOST.into()).parse().expect("an address");
        let mut process = Command::new(peer("emulated-aws"))
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < end, "moto doesn't start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let certificate = Certificate::from_authority("127.0.0.1");
        let front = TlsFront::start(&certificate, &address.to_string()).await;
        let (host, authority_pem) = (front.host().to_owned(), certificate.authority_pem);
        Self { host, authority_pem, plain: format!("http://{address}/"), process, front }
    }

    /// Makes a key of this spec under an alias, and returns its ARN.
    pub(crate) fn key(&self, alias: &str, spec: &str, usage: &str) -> String {
        let key = self.call("CreateKey", json!({ "KeySpec": spec, "KeyUsage": usage }));
        let arn = key["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned();
        let alias = format!("alias/{alias}");
        self.call("CreateAlias", json!({ "AliasName": alias, "TargetKeyId": key["KeyMetadata"]["KeyId"] }));
        arn
    }

    /// Calls KMS without our own client; moto looks at no signature.
    pub(crate) fn call(&self, operation: &str, body: Value) -> Value {
        let output = Command::new("curl")
            .args(["-s", "--fail-with-body", "--max-time", "30", "-X", "POST", &self.plain])
            .args(["-H", "Content-Type: application/x-amz-json-1.1"])
            .args(["-H", &format!("X-Amz-Target: TrentService.{operation}")])
            .args(["-H", "Authorization: AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=x"])
            .args(["--data", &body.to_string()])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Returns how many connections were made over TLS.
    pub(crate) fn connections(&self) -> usize {
        self.front.accepted()
    }
}

impl Drop for EmulatedAws {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A fake gate in front of the emulator, which looks at no signature: it takes those of keys that it knows, and notes
/// whose they are. Beside it, fakes of what gives out keys: single sign-on, a container's service, a machine's.
pub(crate) struct FakeGate {
    /// The one key, as references name it.
    pub(crate) key: String,
    /// The address of STS.
    pub(crate) sts: String,
    pub(crate) authority_pem: String,
    /// `host:port` of all of it, without TLS.
    pub(crate) host: String,
    inner: Arc<Inner>,
    _aws: EmulatedAws,
    _front: TlsFront,
    _task: Task<()>,
}

struct Inner {
    /// The emulator's address.
    real: String,
    /// By the ID of the keys.
    known: Mutex<BTreeMap<String, Known>>,
    machine_has_role: AtomicBool,
    seen: Mutex<Vec<String>>,
}

struct Known {
    whose: String,
    secret: String,
    /// Empty for keys that are good for ever.
    session: String,
}

/// Returns the secret of keys that don't come from STS.
pub(crate) fn secret_of(id: &str) -> String {
    format!("secret-of-{id}-in-the-test")
}

/// Returns the session that such keys are good for.
pub(crate) fn session_of(id: &str) -> String {
    format!("session-of-{id}-in-the-test")
}

impl FakeGate {
    /// Starts an emulator with one key, and the gate in front of it. From the start it knows the keys of a user, for
    /// environment and profile, and those of a program.
    pub(crate) async fn start() -> Self {
        let aws = EmulatedAws::start().await;
        aws.key("app", "ECC_NIST_P256", "SIGN_VERIFY");
        let inner = Arc::new(Inner {
            real: aws.plain.clone(),
            known: Mutex::default(),
            machine_has_role: AtomicBool::new(true),
            seen: Mutex::default(),
        });
        for (id, session) in [
            ("AKIAENVIRONMENT", String::new()),
            ("AKIAPROFILE", String::new()),
            ("ASIAPROGRAM", session_of("ASIAPROGRAM")),
        ] {
            inner.know(id, Known { whose: id.to_owned(), secret: secret_of(id), session });
        }
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let task = spawn("fake-gate", async move { axum::serve(listener, app).await.unwrap() });
        let certificate = Certificate::from_authority("127.0.0.1");
        let front = TlsFront::start(&certificate, &host).await;
        Self {
            key: format!("awskms://{}/alias/app", front.host()),
            sts: format!("https://{}/", front.host()),
            authority_pem: certificate.authority_pem,
            host,
            inner,
            _aws: aws,
            _front: front,
            _task: task,
        }
    }

    /// Returns the calls so far, as `METHOD path` or `OPERATION by WHOM`, those in a row once, and forgets them.
    pub(crate) fn calls(&self) -> Vec<String> {
        let mut calls = std::mem::take(&mut *self.inner.seen.lock().unwrap());
        calls.dedup();
        calls
    }

    /// Returns what nobody may tell: secrets and sessions of all keys that are known, and what is shown for them.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let known = self.inner.known.lock().unwrap();
        let of_keys = known.values().flat_map(|known| [known.secret.clone(), known.session.clone()]);
        let shown = [SSO_TOKEN, CONTAINER_TOKEN, POD_TOKEN, METADATA_TOKEN].map(str::to_owned);
        of_keys.chain(shown).filter(|secret| !secret.is_empty()).collect()
    }

    /// Takes the machine's role away.
    pub(crate) fn loses_its_role(&self) {
        self.inner.machine_has_role.store(false, Ordering::SeqCst);
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let body = to_bytes(body, LIMIT).await.unwrap();
    let path = head.uri.path();
    if path != "/" {
        inner.note(format!("{} {path}", head.method));
        return inner.give_out(&head);
    }
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let target = header(&head, "x-amz-target").rsplit('.').next().unwrap_or_default();
    let operation = if field("Action").is_empty() { target } else { field("Action") };
    let whose = match operation {
        // Who has no keys yet signs nothing.
        "AssumeRoleWithWebIdentity" => (field("WebIdentityToken") == POD_TOKEN).then(|| "a pod".to_owned()),
        _ => inner.signer(&head, &body),
    };
    inner.note(format!("{operation} by {}", whose.as_deref().unwrap_or("nobody")));
    match (&whose, operation) {
        (None, "AssumeRoleWithWebIdentity") => {
            return refuse(StatusCode::BAD_REQUEST, "InvalidIdentityToken", "No key of the issuer fits");
        }
        (Some(_), "AssumeRole") if field("ExternalId") != EXTERNAL_ID => {
            let told = "User: arn:aws:iam::1:user/ci is not authorized to perform: sts:AssumeRole";
            return refuse(StatusCode::FORBIDDEN, "AccessDenied", told);
        }
        (None, "AssumeRole") => {
            return refuse(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "The signature does not match");
        }
        (None, _) => {
            let body = json!({ "__type": "InvalidSignatureException", "message": "It does not match" });
            return (StatusCode::BAD_REQUEST, body.to_string()).into_response();
        }
        (Some(_), _) => {}
    }
    head.uri = inner.real.parse().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(Request::from_parts(head, Body::from(body))).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), LIMIT).await.unwrap();
    inner.learn(field("RoleArn"), &body);
    Response::from_parts(head, Body::from(body))
}

impl Inner {
    fn note(&self, call: String) {
        self.seen.lock().unwrap().push(call);
    }

    fn know(&self, id: &str, known: Known) {
        self.known.lock().unwrap().insert(id.to_owned(), known);
    }

    /// Takes note of the keys that STS gives out for a role.
    fn learn(&self, role: &str, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once('<').map(|(value, _)| value.to_owned())
        };
        if let (Some(id), Some(secret), Some(session)) =
            (field("AccessKeyId"), field("SecretAccessKey"), field("SessionToken"))
        {
            let whose = role.rsplit(':').next().unwrap_or_default().to_owned();
            self.know(&id, Known { whose, secret, session });
        }
    }

    /// Gives keys to who shows what the service wants to see.
    fn give_out(&self, head: &Parts) -> Response {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let new = |id: &str| {
            let (secret, session) = (secret_of(id), session_of(id));
            let known = Known { whose: id.to_owned(), secret: secret.clone(), session: session.clone() };
            self.know(id, known);
            (secret, session)
        };
        let keys = |id: &str| {
            let (secret, session) = new(id);
            json!({
                "Code": "Success", "AccessKeyId": id, "SecretAccessKey": secret, "Token": session,
                "Expiration": "2099-01-01T00:00:00Z",
            })
            .to_string()
            .into_response()
        };
        let is_machine = header(head, "x-aws-ec2-metadata-token") == METADATA_TOKEN;
        let has_role = self.machine_has_role.load(Ordering::SeqCst);
        let path = head.uri.path();
        match (head.method.as_str(), path, path.strip_prefix(ROLES)) {
            ("PUT", "/latest/api/token", _)
                if !header(head, "x-aws-ec2-metadata-token-ttl-seconds").is_empty() =>
            {
                METADATA_TOKEN.into_response()
            }
            ("GET", _, Some(_)) if is_machine && !has_role => StatusCode::NOT_FOUND.into_response(),
            ("GET", _, Some("")) if is_machine => "role-of-the-machine".into_response(),
            ("GET", _, Some("role-of-the-machine")) if is_machine => keys("ASIAMACHINE"),
            ("GET", "/container", _) if header(head, "authorization") == CONTAINER_TOKEN => {
                keys("ASIACONTAINER")
            }
            ("GET", "/federation/credentials", _)
                if header(head, "x-amz-sso_bearer_token") == SSO_TOKEN
                    && head.uri.query() == Some("role_name=Signer&account_id=123456789012") =>
            {
                let (secret, session) = new("ASIAPERSON");
                json!({ "roleCredentials": {
                    "accessKeyId": "ASIAPERSON", "secretAccessKey": secret, "sessionToken": session,
                    "expiration": 4_070_908_800_000_i64,
                }})
                .to_string()
                .into_response()
            }
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    }

    /// Returns whose keys have signed a request, as a server finds out; nobody's if the signature doesn't fit.
    fn signer(&self, head: &Parts, body: &Bytes) -> Option<String> {
        let authorization = header(head, "authorization").strip_prefix("AWS4-HMAC-SHA256 ")?;
        let parts: BTreeMap<&str, &str> =
            authorization.split(", ").filter_map(|part| part.split_once('=')).collect();
        let (id, scope) = parts.get("Credential")?.split_once('/')?;
        let names: Vec<&str> = parts.get("SignedHeaders")?.split(';').collect();
        let known = self.known.lock().unwrap();
        let known = known.get(id)?;
        let lines: Vec<String> =
            names.iter().map(|name| format!("{name}:{}\n", header(head, name))).collect();
        let sum = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
        let canonical =
            [head.method.as_str(), head.uri.path(), "", &lines.concat(), &names.join(";"), &sum(body)];
        let sum = sum(canonical.join("\n").as_bytes());
        let text = ["AWS4-HMAC-SHA256", header(head, "x-amz-date"), scope, &sum].join("\n");
        let start = format!("AWS4{}", known.secret).into_bytes();
        let key = scope.split('/').fold(start, |key, part| mac(&key, part));
        let fits = parts.get("Signature") == Some(&hex(&mac(&key, &text)).as_str())
            && ["host", "x-amz-date"].iter().all(|name| names.contains(name))
            && header(head, "x-amz-security-token") == known.session;
        fits.then(|| known.whose.clone())
    }
}

/// A refusal of STS, which speaks XML.
fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}</ErrorResponse>")).into_response()
}

fn header<'a>(head: &'a Parts, name: &str) -> &'a str {
    head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
