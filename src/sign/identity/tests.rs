//! Tokens made up here: their signatures are for others to check.

use super::*;
use rstest::rstest;

fn token(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(claims), part("signature"))
}

const NOW: i64 = 1_800_000_000;

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(NOW).unwrap()
}

fn check(claims: &str) -> Result<IdentityToken, IdentityError> {
    let token = IdentityToken::parse(&token(claims), "the test")?;
    token.check("the test", AUDIENCE, now()).map(|()| token)
}

#[test]
fn every_ci_systems_claims_are_understood() {
    let email = check(
        r#"{"iss":"https://i","aud":"sigstore","sub":"123","email":"dev@example.com","exp":1800000060}"#,
    );
    assert_eq!(email.unwrap().subject, "dev@example.com");
    let account = r#"{"iss":"https://i","aud":["x","sigstore"],"sub":"system:serviceaccount:a:b","exp":1800000060.5,"nbf":1799999999}"#;
    let account = check(account).unwrap();
    assert_eq!((account.subject.as_str(), account.audiences.len()), ("system:serviceaccount:a:b", 2));
}

#[rstest]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s","exp":1799999700}"#, "expired 5 min ago")]
#[case(r#"{"iss":"i","aud":["a","b"],"sub":"s","exp":1800000060}"#, "is for `a`, `b`, not for `sigstore`")]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s","exp":1800000060,"nbf":1800000600}"#, "not valid before")]
#[case(r#"{"iss":"i","aud":"sigstore","sub":"s"}"#, "no identity token")]
#[case("[]", "no identity token")]
fn what_is_wrong_is_said(#[case] claims: &str, #[case] expected: &str) {
    let error = check(claims).unwrap_err().to_string();
    assert!(error.contains(expected) && error.contains("the test"), "{error}");
}

#[test]
fn no_message_holds_the_token() {
    let text = token(r#"{"iss":"i","aud":"other","sub":"s","exp":1}"#);
    let parsed = IdentityToken::parse(&format!(" {text}\n"), "the test").unwrap();
    assert_eq!(parsed.expose(), text);
    let error = parsed.check("the test", AUDIENCE, now()).unwrap_err();
    for part in text.split('.') {
        assert!(!format!("{parsed:?} {error} {error:?}").contains(part));
        let cut = IdentityToken::parse(&text.replacen('.', "", 1), "the test").unwrap_err();
        assert!(!format!("{cut} {cut:?}").contains(part));
    }
}

#[tokio::test]
async fn a_file_is_read_each_time() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = TokenFile::new(file.path());
    for subject in ["one", "two"] {
        let claims = format!(r#"{{"iss":"i","aud":"sigstore","sub":"{subject}","exp":1800000060}}"#);
        std::fs::write(file.path(), token(&claims) + "\n").unwrap();
        assert_eq!(source.token().await.unwrap().subject, subject);
    }
    let gone = TokenFile::new("/no/such/token").token().await.unwrap_err();
    assert!(gone.to_string().contains("/no/such/token"), "{gone}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String, claims: String) {
        let _either_way = IdentityToken::parse(&text, "");
        let _either_way = IdentityToken::parse(&token(&claims), "");
    }
}

/// Fakes of the places where CI systems and clouds give tokens: what their documentation says goes over the wire.
mod fakes {
    use super::*;
    use crate::pb::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
    use crate::pb::{Jwtsvid, JwtsvidRequest, JwtsvidResponse};
    use crate::sign::http::{Http, HttpOptions};
    use crate::sign::kms::gcp::Credentials;
    use crate::task::spawn;
    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::{get, post};

    const CLAIMS: &str = r#"{"iss":"https://i","aud":"sigstore","sub":"fake","exp":1800000060}"#;

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    async fn fake_github(headers: HeaderMap, uri: Uri) -> Response {
        let asked = uri.query() == Some("api-version=2.0&audience=sigstore");
        match header(&headers, "authorization") == "Bearer job" && asked {
            true => serde_json::json!({ "value": token(CLAIMS) }).to_string().into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        }
    }

    async fn fake_buildkite(headers: HeaderMap, body: Bytes) -> Response {
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        match header(&headers, "authorization") == "Token agent" && asked["audience"] == "sigstore" {
            true => serde_json::json!({ "token": token(CLAIMS) }).to_string().into_response(),
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    }

    async fn fake_google_machine(headers: HeaderMap, uri: Uri) -> Response {
        let asked = uri.query() == Some("audience=sigstore&format=full");
        match header(&headers, "metadata-flavor") == "Google" && asked {
            true => token(CLAIMS).into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        }
    }

    async fn fake_google_account(headers: HeaderMap, body: Bytes) -> Response {
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let fits = asked["audience"] == "sigstore" && asked["includeEmail"] == true;
        match header(&headers, "authorization") == "Bearer of-the-machine" && fits {
            true => serde_json::json!({ "token": token(CLAIMS) }).to_string().into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        }
    }

    #[tokio::test]
    async fn fake_ci_systems_and_clouds_give_tokens() {
        let account = "/v1/projects/-/serviceAccounts/ci@p:generateIdToken";
        let machine = "/computeMetadata/v1/instance/service-accounts/default";
        let access = || async { r#"{"access_token":"of-the-machine","expires_in":3600}"# };
        let app = Router::new()
            .route("/_apis/token", get(fake_github))
            .route("/v3/jobs/j1/oidc/tokens", post(fake_buildkite))
            .route(&format!("{machine}/identity"), get(fake_google_machine))
            .route(&format!("{machine}/token"), get(access))
            .route(account, post(fake_google_account));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let _fake = spawn("fake", async move { axum::serve(listener, app).await.unwrap() });
        let url = |path: &str| format!("http://{host}{path}").parse::<url::Url>().unwrap();
        // The address that a job gets has a query already.
        let github = |secret: &str| AmbientSource::GitHub {
            url: url("/_apis/token?api-version=2.0"),
            token: secret.to_owned().into(),
        };
        let buildkite = |secret: &str| AmbientSource::Buildkite {
            endpoint: url("/v3"),
            job: "j1".into(),
            token: secret.to_owned().into(),
        };
        let google = AmbientSource::Google { host: host.clone() };
        let account = AmbientSource::GoogleAccount {
            name: "ci@p".into(),
            endpoint: url("/"),
            credentials: Credentials::Metadata(host.clone()),
        };
        let ask =
            async |source| Ambient::new(source, Http::new(&HttpOptions::default()).unwrap()).token().await;
        for source in [github("job"), buildkite("agent"), google, account] {
            let shown = format!("{source:?}");
            assert_eq!(ask(source).await.unwrap().subject, "fake", "{shown}");
        }
        for (source, expected) in
            [(github("other"), ["GitHub Actions", "403"]), (buildkite("other"), ["Buildkite", "401"])]
        {
            let refused = ask(source).await.unwrap_err().to_string();
            let said = expected.iter().all(|part| refused.contains(part));
            assert!(said && !refused.contains("other"), "{refused}");
        }
    }

    struct FakeAgent;

    #[async_trait]
    impl SpiffeWorkloadApi for FakeAgent {
        async fn fetch_jwtsvid(
            &self,
            request: tonic::Request<JwtsvidRequest>,
        ) -> Result<tonic::Response<JwtsvidResponse>, tonic::Status> {
            if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
                return Err(tonic::Status::invalid_argument("security header missing"));
            }
            if request.get_ref().audience != ["sigstore"] {
                return Err(tonic::Status::permission_denied("no identity issued"));
            }
            let svid = Jwtsvid { spiffe_id: "spiffe://a/b".into(), svid: token(CLAIMS) };
            Ok(tonic::Response::new(JwtsvidResponse { svids: vec![svid] }))
        }
    }

    #[tokio::test]
    async fn a_fake_spiffe_agent_gives_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let http = Http::new(&HttpOptions::default()).unwrap();
        let source = Ambient::new(AmbientSource::Spiffe(SpiffeSocket::Unix(path.clone())), http);
        let absent = source.token().await.unwrap_err();
        assert_eq!(absent.to_string(), "no identity token from the SPIFFE agent");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let listener = futures_util::stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = tonic::transport::Server::builder().add_service(SpiffeWorkloadApiServer::new(FakeAgent));
        let _fake = spawn("fake", async move { server.serve_with_incoming(listener).await.unwrap() });
        assert_eq!(source.token().await.unwrap().subject, "fake");
        let denied = spiffe::fetch(&SpiffeSocket::Unix(path), "other").await.unwrap_err();
        let denied = denied.source().expect("a reason").to_string();
        assert!(denied.contains("PermissionDenied: no identity issued"), "{denied}");
    }
}
