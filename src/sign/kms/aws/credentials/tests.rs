use super::*;
use crate::sign::http::HttpOptions;
use crate::task::{self, Task};
use axum::Router;
use axum::extract::Request as Call;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fake of what surrounds a machine or container of AWS: metadata (version 2 only), container credentials, STS.
async fn fake() -> (Url, Arc<AtomicUsize>, Task<()>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let app = Router::new().fallback(move |call: Call| {
        seen.fetch_add(1, Ordering::SeqCst);
        answer(call)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let task = task::spawn("fake-aws", async move { axum::serve(listener, app).await.unwrap() });
    (url, calls, task)
}

fn json(id: &str, expires: &str) -> Response {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"SECRET","Token":"T","Expiration":"{expires}"}}"#
    )
    .into_response()
}

async fn answer(call: Call) -> Response {
    let headers = call.headers().clone();
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (method, path) = (call.method().to_string(), call.uri().path().to_owned());
    let metadata_token = header("x-aws-ec2-metadata-token");
    let authorization = header("authorization");
    match (method.as_str(), path.as_str()) {
        ("PUT", "/latest/api/token") => "metadata-token".into_response(),
        ("GET", "/latest/meta-data/iam/security-credentials/") if metadata_token == "metadata-token" => {
            "the-role".into_response()
        }
        ("GET", "/latest/meta-data/iam/security-credentials/the-role")
            if metadata_token == "metadata-token" =>
        {
            json("MACHINE", "2099-01-01T00:00:00Z")
        }
        ("GET", "/container") if authorization == "container-token" => {
            json("CONTAINER", "2020-01-01T00:00:00Z")
        }
        ("POST", "/sts") => {
            let body = axum::body::to_bytes(call.into_body(), 1 << 16).await.unwrap();
            let text = String::from_utf8_lossy(&body).into_owned();
            let answer = |id: &str| {
                format!(
                    "<R><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>S</SecretAccessKey>\
                     <SessionToken>T</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>"
                )
                .into_response()
            };
            let credential = |id: &str| authorization.contains(&format!("Credential={id}/"));
            // The outer role is assumed with the inner one's keys.
            match text.as_str() {
                _ if text.contains("role%2Finner") && credential("BASE") => answer("INNER"),
                _ if text.contains("role%2Fouter") && credential("INNER") => answer("OUTER"),
                _ => (
                    StatusCode::FORBIDDEN,
                    "<E><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></E>",
                )
                    .into_response(),
            }
        }
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

fn chain(sources: Sources) -> Chain {
    Chain::new(sources, Http::new(&HttpOptions::default()).unwrap(), "eu-west-1".to_owned())
}

#[tokio::test]
async fn a_machine_is_asked_once_and_in_version_2() {
    let (url, calls, _task) = fake().await;
    let chain = chain(Sources { metadata: Some(url), ..Sources::default() });
    for _ in 0..2 {
        let keys = chain.keys().await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((keys.id.as_str(), keys.session_token.is_some()), ("MACHINE", true));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3, "token, role, keys");
}

#[tokio::test]
async fn a_container_shows_its_token_and_stale_keys_are_fetched_anew() {
    let (url, calls, _task) = fake().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "container-token\n").unwrap();
    let container = Container { url: url.join("/container").unwrap(), token: None, token_file: Some(file) };
    let chain = chain(Sources { container: Some(container), metadata: Some(url), ..Sources::default() });
    for _ in 0..2 {
        let keys = chain.keys().await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(keys.id, "CONTAINER");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2, "they expired in 2020");
}

#[tokio::test]
async fn roles_are_assumed_one_after_the_other() {
    let (url, _, _task) = fake().await;
    let config = "[profile outer]\nrole_arn = arn:aws:iam::1:role/outer\nsource_profile = inner\n\
                  [profile inner]\nrole_arn = arn:aws:iam::1:role/inner\nsource_profile = base\n\
                  [profile refused]\nrole_arn = arn:aws:iam::1:role/refused\nsource_profile = base\n\
                  [profile endless]\nrole_arn = r\nsource_profile = again\n\
                  [profile again]\nrole_arn = r\nsource_profile = endless\n\
                  [profile alone]\nrole_arn = r\n[profile mfa]\nrole_arn = r\nsource_profile = base\nmfa_serial = m\n";
    let credentials = "[base]\naws_access_key_id = BASE\naws_secret_access_key = SECRET\n";
    let with = |profile: &str| {
        chain(Sources {
            profile: Some(profile.to_owned()),
            config: Some(config.into()),
            credentials: Some(credentials.into()),
            sts: Some(url.join("/sts").unwrap()),
            ..Sources::default()
        })
    };
    let keys = with("outer").keys().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(keys.id, "OUTER");
    for (profile, said) in [
        ("refused", "assuming arn:aws:iam::1:role/refused: AccessDenied: not authorized"),
        ("endless", "lead nowhere"),
        ("alone", "no `source_profile`"),
        ("mfa", "one-time code"),
        ("absent", "there is no AWS profile `absent`"),
    ] {
        let error = with(profile).keys().await.err().expect(profile);
        let told = format!("{error} {error:?}");
        assert!(told.contains(said) && !told.contains("SECRET"), "{told}");
    }
}

#[tokio::test]
async fn nobody_has_any() {
    let error = chain(Sources::default()).keys().await.err().unwrap();
    assert!(error.to_string().contains("no AWS credentials"), "{error}");
    let gone: Url = "http://127.0.0.1:9/".parse().unwrap();
    let error = chain(Sources { metadata: Some(gone), ..Sources::default() }).keys().await.err().unwrap();
    assert!(error.to_string().contains("this machine has no role"), "{error}");
}
