//! The registry client against a strict registry of ours over loopback: what real ones don't do on demand.

#[path = "support/strict_registry.rs"]
mod strict_registry;
#[path = "support/tls.rs"]
mod tls;

use bytes::Bytes;
use kubectl_build::registry::credentials::{Credential, Document, HelperEnvironment, Resolver};
use kubectl_build::registry::{
    Client, Digest, HostOptions, Kind, Limits, Options, RegistryError, Repository, TokenRequest, media_type,
};
use rstest::rstest;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strict_registry::{Access, Fault, Referrers, StrictRegistry, Switches};

const APP: &str = "team/app";
/// An index of nothing: as valid as any, and it needs no content.
const MANIFEST: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

fn limits() -> Limits {
    Limits { first_pause: Duration::from_millis(5), ..Limits::default() }
}

fn knowing(config: &str) -> Arc<Resolver> {
    let document = Document::parse("config.json", config.as_bytes()).unwrap();
    Arc::new(Resolver::new(vec![document], HelperEnvironment::default()))
}

fn client(resolver: Arc<Resolver>) -> Client {
    Client::new(Options { limits: limits(), ..Options::new(resolver) }).unwrap()
}

fn anonymous() -> Client {
    client(Arc::new(Resolver::anonymous()))
}

fn user(fake: &StrictRegistry) -> Client {
    client(knowing(&format!(r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#, fake.host())))
}

fn team(host: &str) -> Repository {
    Repository { registry: host.to_owned(), path: APP.to_owned() }
}

async fn start(switches: Switches) -> (StrictRegistry, Repository) {
    let fake = StrictRegistry::start(switches);
    let repository = team(fake.host());
    (fake, repository)
}

async fn put(client: &Client, repository: &Repository, reference: &str) -> Result<bool, RegistryError> {
    let bytes = Bytes::from_static(MANIFEST);
    let put = client.put_manifest(repository, reference, media_type::OCI_INDEX, bytes).await?;
    assert_eq!(put.digest, Digest::of(MANIFEST));
    Ok(put.oci_subject)
}

#[tokio::test]
async fn what_is_pushed_is_read_back() {
    let (fake, repository) = start(Switches::default()).await;
    let client = anonymous();
    let digest = client.put_blob(&repository, Bytes::from_static(b"content")).await.unwrap();
    assert_eq!(fake.blob(APP, &digest).as_deref(), Some(&b"content"[..]));
    assert_eq!(client.get_blob(&repository, &digest, 7).await.unwrap().as_deref(), Some(&b"content"[..]));
    assert!(client.has_blob(&repository, &digest).await.unwrap());
    assert!(client.get_blob(&repository, &Digest::of(b"other"), 7).await.unwrap().is_none());

    assert!(client.head_manifest(&repository, "1").await.unwrap().is_none());
    assert!(client.get_manifest(&repository, "1").await.unwrap().is_none());
    put(&client, &repository, "1").await.unwrap();
    assert_eq!(fake.manifest(APP, "1").as_deref(), Some(MANIFEST));
    let manifest = client.get_manifest(&repository, "1").await.unwrap().unwrap();
    assert_eq!(manifest.bytes, MANIFEST);
    assert_eq!(manifest.descriptor.media_type, media_type::OCI_INDEX);
    assert_eq!(client.head_manifest(&repository, "1").await.unwrap(), Some(manifest.descriptor));
}

#[tokio::test]
async fn a_blob_takes_two_round_trips_and_the_empty_one_looks_first() {
    let (fake, repository) = start(Switches::default()).await;
    let client = anonymous();
    client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    let calls = fake.take_calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    client.put_blob(&repository, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(fake.take_calls().len(), 3);
    client.put_blob(&repository, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(fake.take_calls().len(), 1);
}

#[tokio::test]
async fn the_registrys_own_query_survives_in_the_upload_url() {
    let (fake, repository) = start(Switches { relative_locations: true, ..Switches::default() }).await;
    anonymous().put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    let put = fake.take_calls().pop().unwrap();
    assert!(put.contains("?_state=a%2Fb==&digest=sha256:"), "{put}");
}

#[tokio::test]
async fn a_token_is_fetched_once_for_pull_and_push() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let client = user(&fake);
    client.check_push(&repository).await.unwrap();
    let calls = fake.take_calls();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(calls[1].ends_with("&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"), "{calls:?}");
    client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    put(&client, &repository, "1").await.unwrap();
    client.get_manifest(&repository, "1").await.unwrap().unwrap();
    let seen = fake.take_seen();
    assert_eq!(seen.len(), 4, "no challenge and no token service in between: {seen:?}");
    let authorizations: std::collections::BTreeSet<_> = seen.iter().map(|seen| &seen.authorization).collect();
    assert_eq!(authorizations.len(), 1);
}

#[tokio::test]
async fn calls_that_start_together_share_a_token() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let client = user(&fake);
    let blobs = (0..8u8).map(|n| client.put_blob(&repository, Bytes::from(vec![n; 9])));
    futures_util::future::try_join_all(blobs).await.unwrap();
    let tokens = fake.take_calls().iter().filter(|call| call.starts_with("GET /token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_pull_token_is_followed_by_one_for_pushing() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let client = user(&fake);
    assert!(client.head_manifest(&repository, "1").await.unwrap().is_none());
    put(&client, &repository, "1").await.unwrap();
    let calls = fake.take_calls();
    assert_eq!(calls.len(), 5, "the second token is fetched without a second challenge: {calls:?}");
}

#[tokio::test]
async fn tokens_that_end_are_renewed() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let client = user(&fake);
    put(&client, &repository, "1").await.unwrap();
    fake.expire_tokens();
    fake.take_calls();
    put(&client, &repository, "2").await.unwrap();
    assert_eq!(fake.take_calls().len(), 3, "refused, token, again");

    // One whose end was announced is renewed before it is refused.
    fake.switches().announced_life = Some(1);
    fake.expire_tokens();
    put(&client, &repository, "3").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.take_calls();
    put(&client, &repository, "4").await.unwrap();
    assert_eq!(fake.take_calls().len(), 2, "token, call");
}

#[tokio::test]
async fn basic_goes_with_each_call_after_the_first() {
    let access = Access::Basic("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let client = user(&fake);
    client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    let seen: Vec<_> = fake.take_seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(seen, [None, Some("Basic dTpw".to_owned()), Some("Basic dTpw".to_owned())]);
}

#[tokio::test]
async fn identity_tokens_go_by_post() {
    let (fake, repository) =
        start(Switches { access: Access::Identity("t".into()), ..Switches::default() }).await;
    let client = client(knowing(&format!(r#"{{"auths":{{"{}":{{"identitytoken":"t"}}}}}}"#, fake.host())));
    put(&client, &repository, "1").await.unwrap();
}

#[rstest]
#[case::basic(Access::Basic("u".into(), "p".into()))]
#[case::bearer(Access::Bearer("u".into(), "p".into()))]
#[case::pull_only(Access::AnonymousPull)]
#[tokio::test]
async fn nobody_is_told_so(#[case] access: Access) {
    let (_fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let error = anonymous().check_push(&repository).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot start an upload to {repository}: ")), "{text}");
    assert!(
        text.contains("401 Unauthorized") && text.ends_with("(no credentials are known for it)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_told_with_user_and_source() {
    let access = Access::Bearer("u".into(), "other".into());
    let (fake, repository) = start(Switches { access, ..Switches::default() }).await;
    let error = user(&fake).check_push(&repository).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Unauthorized, Some(401)));
    let text = error.to_string();
    assert!(
        text.ends_with("incorrect username or password (UNAUTHORIZED) (as `u`, from `config.json`)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_token_that_allows_too_little_is_told_from_a_wrong_password() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, pull_tokens: true, ..Switches::default() }).await;
    let client = user(&fake);
    assert!(client.get_manifest(&repository, "1").await.unwrap().is_none());
    let error = client.check_push(&repository).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Denied, Some(401)));
}

#[tokio::test]
async fn anybody_may_pull_with_an_anonymous_token() {
    let (_fake, repository) = start(Switches { access: Access::AnonymousPull, ..Switches::default() }).await;
    assert!(anonymous().get_manifest(&repository, "1").await.unwrap().is_none());
}

#[tokio::test]
async fn a_denied_push_is_found_before_anything_is_pushed() {
    let access = Access::Basic("u".into(), "p".into());
    let (fake, repository) = start(Switches { access, read_only: true, ..Switches::default() }).await;
    let error = user(&fake).check_push(&repository).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("requested access to the resource is denied (DENIED)"), "{error}");
    fake.switches().read_only = false;
    fake.set(|_, path| path.contains("nowhere").then_some(Fault::Status(404)));
    let unknown = Repository { registry: fake.host().to_owned(), path: "nowhere".to_owned() };
    assert_eq!(user(&fake).check_push(&unknown).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn the_preflight_leaves_no_upload() {
    let (fake, repository) = start(Switches::default()).await;
    anonymous().check_push(&repository).await.unwrap();
    let calls = fake.take_calls();
    assert_eq!(calls, ["POST /v2/team/app/blobs/uploads/", "DELETE /v2/team/app/blobs/uploads/1"]);
}

#[rstest]
#[case(429, Some("0"))]
#[case(500, None)]
#[case(503, None)]
#[tokio::test]
async fn passing_failures_pass(#[case] status: u16, #[case] pause: Option<&str>) {
    let failing = Some((2, status, pause.map(str::to_owned)));
    let (fake, repository) = start(Switches { failing, ..Switches::default() }).await;
    put(&anonymous(), &repository, "1").await.unwrap();
    assert_eq!(fake.take_calls().len(), 3);
}

#[tokio::test]
async fn lasting_failures_end() {
    let (fake, repository) = start(Switches { failing: Some((99, 503, None)), ..Switches::default() }).await;
    let error = put(&anonymous(), &repository, "1").await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Server, Some(503)));
    assert!(error.to_string().contains("come back later (UNAVAILABLE)"), "{error}");
    assert_eq!(fake.take_calls().len(), 4);
}

#[tokio::test]
async fn a_long_pause_is_told_at_once() {
    let failing = Some((9, 429, Some("3600".to_owned())));
    let (fake, repository) = start(Switches { failing, ..Switches::default() }).await;
    let error = anonymous().get_manifest(&repository, "1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited { retry_after: Some(Duration::from_secs(3600)) });
    assert_eq!(fake.take_calls().len(), 1);
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let (fake, repository) = start(Switches::default()).await;
    let limits = Limits { response: Duration::from_millis(500), ..limits() };
    // Without the attempt at TLS, which reads the system's roots and takes its time on a busy machine.
    let plain = HostOptions { host: fake.host().to_owned(), plain_http: true, ..HostOptions::default() };
    let options = Options { hosts: vec![plain], limits, ..Options::new(Arc::new(Resolver::anonymous())) };
    let client = Client::new(options).unwrap();
    assert!(client.head_manifest(&repository, "1").await.unwrap().is_none());
    fake.switches().slow = Some(Duration::from_secs(60));
    let started = Instant::now();
    let error = client.head_manifest(&repository, "1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_broken_answer_is_asked_for_once_more() {
    let (fake, repository) = start(Switches { truncated: 1, ..Switches::default() }).await;
    let digest = fake.add_blob(APP, b"0123456789");
    let client = anonymous();
    assert_eq!(client.get_blob(&repository, &digest, 99).await.unwrap().unwrap().len(), 10);
    fake.switches().truncated = 9;
    assert_eq!(client.get_blob(&repository, &digest, 99).await.unwrap_err().kind(), Kind::Disconnected);
}

#[tokio::test]
async fn altered_content_is_refused() {
    let (fake, repository) = start(Switches::default()).await;
    let client = anonymous();
    put(&client, &repository, "1").await.unwrap();
    let digest = fake.add_blob(APP, b"0123456789");
    fake.switches().altered = true;
    assert_eq!(client.get_blob(&repository, &digest, 99).await.unwrap_err().kind(), Kind::DigestMismatch);
    assert_eq!(client.get_manifest(&repository, "1").await.unwrap_err().kind(), Kind::DigestMismatch);
    fake.switches().no_digest_header = true;
    let reference = Digest::of(MANIFEST).to_string();
    assert_eq!(client.get_manifest(&repository, &reference).await.unwrap_err().kind(), Kind::DigestMismatch);
}

#[tokio::test]
async fn large_answers_are_refused() {
    let (fake, repository) = start(Switches::default()).await;
    let digest = fake.add_blob(APP, b"0123456789");
    let error = anonymous().get_blob(&repository, &digest, 9).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[tokio::test]
async fn a_head_without_digest_is_followed_by_a_get() {
    let (_fake, repository) = start(Switches { no_digest_header: true, ..Switches::default() }).await;
    let client = anonymous();
    put(&client, &repository, "1").await.unwrap();
    let descriptor = client.head_manifest(&repository, "1").await.unwrap().unwrap();
    assert_eq!(descriptor.digest, Digest::of(MANIFEST));
}

#[tokio::test]
async fn credentials_stay_with_the_registry() {
    let access = Access::Basic("u".into(), "p".into());
    let switches = Switches { access, blobs_elsewhere: true, uploads_elsewhere: true, ..Switches::default() };
    let (fake, repository) = start(switches).await;
    let client = user(&fake);
    let digest = fake.add_blob(APP, b"stored elsewhere");
    assert!(client.get_blob(&repository, &digest, 99).await.unwrap().is_some());
    let pushed = client.put_blob(&repository, Bytes::from_static(b"pushed elsewhere")).await.unwrap();
    assert!(fake.blob(APP, &pushed).is_some());
    client.check_push(&repository).await.unwrap();
    let (there, here): (Vec<_>, Vec<_>) =
        fake.take_seen().into_iter().partition(|seen| seen.host == fake.storage());
    assert_eq!(there.len(), 3);
    assert!(there.iter().all(|seen| seen.authorization.is_none()), "{there:?}");
    assert!(here.iter().any(|seen| seen.authorization.is_some()));
    assert_eq!(fake.breaches(), [""; 0]);
}

#[tokio::test]
async fn a_challenge_from_elsewhere_gets_no_answer() {
    let access = Access::Basic("u".into(), "p".into());
    let switches = Switches { access, blobs_elsewhere: true, unsigned_urls: true, ..Switches::default() };
    let (fake, repository) = start(switches).await;
    let redirected = fake.add_blob(APP, b"x");
    let error = user(&fake).get_blob(&repository, &redirected, 99).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    let seen = fake.take_seen();
    let mut there = seen.iter().filter(|seen| seen.host == fake.storage()).peekable();
    assert!(there.peek().is_some() && there.all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[rstest]
#[case(Referrers::Missing(404))]
#[case(Referrers::Missing(303))]
#[case(Referrers::Missing(400))]
#[case(Referrers::Missing(405))]
#[case(Referrers::Missing(406))]
#[case(Referrers::Page)]
#[tokio::test]
async fn registries_without_referrers_say_so_in_many_ways(#[case] referrers: Referrers) {
    let (fake, repository) = start(Switches { referrers, ..Switches::default() }).await;
    assert_eq!(anonymous().referrers(&repository, &Digest::of(b"x")).await.unwrap(), None);
    assert_eq!(fake.take_calls().len(), 1, "a redirect is not followed");
}

#[tokio::test]
async fn referrers_are_listed_over_pages() {
    let (_fake, repository) = start(Switches { paged: true, ..Switches::default() }).await;
    let client = anonymous();
    let subject = Digest::of(MANIFEST);
    assert_eq!(client.referrers(&repository, &subject).await.unwrap(), Some(Vec::new()));
    for kind in ["a/1", "b/2", "c/3"] {
        let subject = format!(
            r#"{{"mediaType":"{}","digest":"{subject}","size":{}}}"#,
            media_type::OCI_INDEX,
            MANIFEST.len()
        );
        let manifest =
            format!(r#"{{"schemaVersion":2,"artifactType":"{kind}","manifests":[],"subject":{subject}}}"#);
        let (digest, bytes) = (Digest::of(manifest.as_bytes()).to_string(), Bytes::from(manifest));
        let put = client.put_manifest(&repository, &digest, media_type::OCI_INDEX, bytes).await.unwrap();
        assert!(put.oci_subject);
    }
    let listed = client.referrers(&repository, &subject).await.unwrap().unwrap();
    let mut kinds: Vec<_> = listed.into_iter().filter_map(|descriptor| descriptor.artifact_type).collect();
    kinds.sort();
    assert_eq!(kinds, ["a/1", "b/2", "c/3"]);
}

#[tokio::test]
async fn a_registry_without_oci_subject_is_noticed() {
    let referrers = Referrers::Silent;
    let (fake, repository) = start(Switches { referrers, ..Switches::default() }).await;
    assert!(!put(&anonymous(), &repository, "1").await.unwrap());
    assert_eq!(fake.breaches(), [""; 0]);
}

#[tokio::test]
async fn an_immutable_tag_takes_the_same_content_only() {
    let (_fake, repository) = start(Switches { immutable: true, ..Switches::default() }).await;
    let client = anonymous();
    put(&client, &repository, "1").await.unwrap();
    put(&client, &repository, "1").await.unwrap();
    let other = Bytes::from_static(br#"{"schemaVersion":2,"manifests":[]}"#);
    let error = client.put_manifest(&repository, "1", media_type::OCI_INDEX, other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TagImmutable);
    assert!(error.to_string().starts_with(&format!("cannot write `1` to {repository}: ")), "{error}");
}

#[tokio::test]
async fn a_lost_upload_is_begun_anew() {
    let (fake, repository) = start(Switches { lost_uploads: 1, ..Switches::default() }).await;
    let client = anonymous();
    let digest = client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    assert!(fake.blob(APP, &digest).is_some());
    fake.switches().lost_uploads = 9;
    assert!(client.put_blob(&repository, Bytes::from_static(b"y")).await.is_err());
}

#[tokio::test]
async fn a_token_for_somebody_else() {
    let access = Access::Bearer("u".into(), "p".into());
    let (fake, _) = start(Switches { access, ..Switches::default() }).await;
    let ask = TokenRequest {
        host: fake.host().to_owned(),
        realm: format!("{}/token", fake.origin()),
        service: "strict".to_owned(),
        scopes: vec!["repository:team/app:pull".to_owned()],
    };
    let password = SecretString::from("p");
    let credential = Credential::Basic { username: "u".to_owned(), password };
    let token = anonymous().fetch_token(&ask, &credential).await.unwrap();
    assert!(token.token.expose_secret().starts_with("token-"));
    assert_eq!(token.expires_in, Duration::from_secs(300));
    let error = anonymous().fetch_token(&ask, &Credential::Anonymous).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
}

#[tokio::test]
async fn a_password_does_not_go_to_a_plain_token_service() {
    let ask = TokenRequest {
        host: "registry.example.com".to_owned(),
        realm: "http://auth.example.com/token".to_owned(),
        service: String::new(),
        scopes: Vec::new(),
    };
    let credential = Credential::IdentityToken(SecretString::from("t"));
    let error = anonymous().fetch_token(&ask, &credential).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.to_string().contains("auth.example.com is not encrypted"), "{error}");
}

#[tokio::test]
async fn nobody_there_and_no_such_name() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let host = socket.local_addr().unwrap().to_string();
    let error = anonymous().check_push(&team(&host)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    let error = anonymous().check_push(&team("registry.invalid")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Dns);
    assert!(error.to_string().contains("the host name `registry.invalid` does not resolve"), "{error}");
}

mod over_tls {
    use super::*;
    use tls::{Certificate, TlsFront};

    fn trusting(host: &str, ca_pem: Vec<Vec<u8>>, insecure_skip_verify: bool) -> Client {
        let hosts =
            vec![HostOptions { host: host.to_owned(), ca_pem, plain_http: false, insecure_skip_verify }];
        let options = Options { hosts, limits: limits(), ..Options::new(Arc::new(Resolver::anonymous())) };
        Client::new(options).unwrap()
    }

    async fn front(certificate: &Certificate) -> (StrictRegistry, TlsFront, Repository) {
        let fake = StrictRegistry::start(Switches { relative_locations: true, ..Switches::default() });
        let front = TlsFront::start(certificate, fake.host()).await;
        let repository = team(front.host());
        (fake, front, repository)
    }

    #[tokio::test]
    async fn an_authority_is_needed_and_enough() {
        let certificate = Certificate::from_authority("127.0.0.1");
        let (_fake, _front, repository) = front(&certificate).await;
        let error = anonymous().check_push(&repository).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UntrustedCertificate);
        assert!(error.to_string().contains("signed by an unknown authority"), "{error}");
        let client = trusting(&repository.registry, vec![certificate.authority_pem.into_bytes()], false);
        client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
    }

    #[tokio::test]
    async fn a_self_signed_certificate_may_be_its_own_authority() {
        let certificate = Certificate::self_signed_authority("127.0.0.1");
        let (_fake, _front, repository) = front(&certificate).await;
        let pem = certificate.authority_pem.clone().into_bytes();
        let client = trusting(&repository.registry, vec![pem], false);
        client.put_blob(&repository, Bytes::from_static(b"x")).await.unwrap();
        let error = anonymous().check_push(&repository).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UntrustedCertificate, "{error}");
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_even_if_pinned() {
        for certificate in [
            Certificate::self_signed_authority("other.example"),
            Certificate::from_authority("other.example"),
        ] {
            let (_fake, _front, repository) = front(&certificate).await;
            let pem = certificate.authority_pem.clone().into_bytes();
            let error = trusting(&repository.registry, vec![pem], false).check_push(&repository).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), Kind::UntrustedCertificate);
            assert!(error.to_string().contains("is not valid"), "{error}");
        }
    }

    #[tokio::test]
    async fn verification_can_be_skipped() {
        let certificate = Certificate::from_authority("other.example");
        let (_fake, _front, repository) = front(&certificate).await;
        trusting(&repository.registry, Vec::new(), true).check_push(&repository).await.unwrap();
    }

    #[tokio::test]
    async fn the_wrong_protocol_is_named() {
        let certificate = Certificate::from_authority("127.0.0.1");
        let (fake, _front, _) = front(&certificate).await;
        // Options of its own make a loopback registry as strict as any other.
        let error =
            trusting(fake.host(), Vec::new(), false).check_push(&team(fake.host())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::PlainHttp, "{error}");
        assert!(error.to_string().contains("speaks plain HTTP, not TLS"), "{error}");
    }

    #[tokio::test]
    async fn a_ca_file_must_hold_certificates() {
        let hosts = vec![HostOptions {
            host: "r.io".to_owned(),
            ca_pem: vec![b"nothing".to_vec()],
            ..HostOptions::default()
        }];
        let error =
            Client::new(Options { hosts, ..Options::new(Arc::new(Resolver::anonymous())) }).unwrap_err();
        assert_eq!(error.to_string(), "the CA for `r.io` holds no PEM certificate");
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let certificate = Certificate::from_authority("127.0.0.1");
        let (_fake, front, repository) = front(&certificate).await;
        let pem = certificate.authority_pem.clone().into_bytes();
        let client = trusting(&repository.registry, vec![pem], false);
        for n in 0..5u8 {
            client.put_blob(&repository, Bytes::from(vec![n])).await.unwrap();
            client.head_manifest(&repository, "1").await.unwrap();
        }
        assert_eq!(front.accepted(), 1);
    }
}
