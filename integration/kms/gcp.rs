//! A fake of Google Cloud KMS.

use crate::fake_cloud::{
    CLIENT_SECRET, DELEGATE_TOKEN, DIRECT, FakeCloud, FakeTunnel, GCP_KEY, REFRESH_TOKEN, REQUEST_TOKEN,
    TOKEN, WORKLOAD_TOKEN, Wrong, google_login,
};
use crate::support::Bench;
use crate::tls::{Certificate, TlsFront};
use serde_json::{Value, json};

const ENDPOINT: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_google_signs() {
    let cloud = FakeCloud::start().await;
    let mut bench = Bench::new(&[(ENDPOINT, &format!("http://{}/", cloud.host))]);
    let public = bench.file("gcp.pub", cloud.google_pem());
    let key = format!("gcpkms://{GCP_KEY}");

    // A service account's key, whose assertion the fake checks.
    let path = bench.file("account.json", cloud.service_account());
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    let image = bench.image("account").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, "BEGIN PRIVATE"]);
    bench.accept(&image, &public);
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| *call == "POST /token").count(), 1, "{calls:?}");
    let keys = calls.iter().filter(|call| call.ends_with("/publicKey")).count();
    assert_eq!(keys, 1, "the public key is fetched once: {calls:?}");

    // A workload identity, by way of a service account.
    let token = bench.file("token.json", json!({ "id_token": WORKLOAD_TOKEN }).to_string());
    let path = bench.file(
        "workload.json",
        json!({
            "type": "external_account", "audience": "//iam.googleapis.com/x",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("http://{}/sts", cloud.host),
            "service_account_impersonation_url": format!("http://{}/impersonate", cloud.host),
            "credential_source": {
                "file": token, "format": { "type": "json", "subject_token_field_name": "id_token" },
            },
        })
        .to_string(),
    );
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    let image = bench.image("workload").await;
    bench.sign(&image, &format!("{key}/versions/7")).ok().never_says(&[TOKEN, WORKLOAD_TOKEN]);
    bench.accept(&image, &public);

    // The machine's own account.
    bench.unset("GOOGLE_APPLICATION_CREDENTIALS");
    bench.set("GCE_METADATA_HOST", &cloud.host);
    let image = bench.image("machine").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN]);
    bench.accept(&image, &public);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn what_a_fake_google_gets_wrong_is_told_before_anything_is_written() {
    let cloud = FakeCloud::start().await;
    let bench =
        Bench::new(&[(ENDPOINT, &format!("http://{}/", cloud.host)), ("GCE_METADATA_HOST", &cloud.host)]);
    let image = bench.image("wrong").await;
    let key = format!("gcpkms://{GCP_KEY}");
    for (wrong, words) in [
        (
            Wrong::MaySign,
            &[
                "Google Cloud KMS could not sign with `gcpkms://",
                "useToSign",
                "roles/cloudkms.signerVerifier",
            ][..],
        ),
        (Wrong::DigestSum, &["the digest was damaged on its way"][..]),
        (Wrong::SignatureSum, &["the checksum of the signature is wrong"][..]),
        (Wrong::Key, &["does not verify with the key's public half"][..]),
        (Wrong::Service, &["503"][..]),
    ] {
        cloud.goes_wrong(wrong);
        bench.sign(&image, &key).fails(1, words).never_says(&[TOKEN]);
    }
    cloud.goes_wrong(Wrong::Nothing);
    bench.sign(&image, &format!("{key}x")).fails(1, &["404", "check project, location"]);
    bench
        .sign(&image, &format!("{key}/versions/8"))
        .fails(2, &["RSA_SIGN_PSS_2048_SHA256", "EC_SIGN_P256_SHA256 does"]);
    assert!(!bench.is_signed(&image).await);
    let mut bench = bench;
    let path = bench.file("broken.json", r#"{"type": "service_account", "private_key": "SECRET"}"#);
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    bench.sign(&image, &key).fails(2, &["broken.json is no service account key"]).never_says(&["SECRET"]);
}

/// gcloud's file names no address: the tool knows that of Google's token service by heart.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_google_signs_for_who_has_logged_in_with_gcloud() {
    const SECRETS: &[&str] = &[TOKEN, REFRESH_TOKEN, CLIENT_SECRET];
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("oauth2.googleapis.com");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let tunnel = FakeTunnel::start(front.host()).await;
    let mut bench = Bench::new(&[
        (ENDPOINT, &format!("http://{}/", cloud.host)),
        ("HTTPS_PROXY", &tunnel.url),
        ("GCE_METADATA_HOST", "127.0.0.1:9"),
    ]);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    let public = bench.file("gcp.pub", cloud.google_pem());
    let key = format!("gcpkms://{GCP_KEY}");
    let refused = bench.image("refused").await;
    let told = &["no Google credentials", "`gcloud auth application-default login`", "no service account"];
    bench.sign(&refused, &key).fails(2, told);

    let usual = ".config/gcloud/application_default_credentials.json";
    bench.file(usual, google_login(REFRESH_TOKEN).to_string());
    let home = bench.image("home").await;
    bench.sign(&home, &key).ok().never_says(SECRETS);
    assert_eq!(tunnel.asked(), ["oauth2.googleapis.com:443"]);
    assert_eq!(cloud.calls()[0], "POST /token");

    bench.file(usual, google_login("1//revoked-token-of-the-test").to_string());
    let told = &["Google's token service", "invalid_grant", "expired or revoked", "log in with `gcloud auth"];
    bench.sign(&refused, &key).fails(1, told).never_says(&["1//revoked-token-of-the-test", CLIENT_SECRET]);

    // Each of these comes before what is in the home.
    bench.file("gcloud/application_default_credentials.json", google_login(REFRESH_TOKEN).to_string());
    bench.set("CLOUDSDK_CONFIG", "gcloud");
    let folder = bench.image("folder").await;
    bench.sign(&folder, &key).ok().never_says(SECRETS);
    bench.unset("CLOUDSDK_CONFIG");
    let mut login = google_login(REFRESH_TOKEN);
    login["quota_project_id"] = json!("team");
    let path = bench.file("login.json", login.to_string());
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    assert_eq!(cloud.quota_projects(), [""]);
    let named = bench.image("named").await;
    bench.sign(&named, &key).ok().never_says(SECRETS);
    assert_eq!(cloud.quota_projects(), ["team"], "who pays is said with each call");
    bench.set("GOOGLE_CLOUD_QUOTA_PROJECT", "mine");
    let mine = bench.image("mine").await;
    bench.sign(&mine, &key).ok().never_says(SECRETS);
    assert_eq!(cloud.quota_projects(), ["mine"]);

    bench.unset("HTTPS_PROXY");
    for image in [home, folder, named, mine] {
        bench.accept(&image, &public);
    }
    assert!(!bench.is_signed(&refused).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_google_signs_for_a_service_account_that_a_person_takes_on() {
    let cloud = FakeCloud::start().await;
    let mut bench = Bench::new(&[(ENDPOINT, &format!("http://{}/", cloud.host))]);
    let public = bench.file("gcp.pub", cloud.google_pem());
    let key = format!("gcpkms://{GCP_KEY}");
    let account = |refresh_token: &str| {
        let mut login = google_login(refresh_token);
        login["token_uri"] = json!(format!("http://{}/token", cloud.host));
        let url = format!("http://{}/impersonate", cloud.host);
        json!({
            "type": "impersonated_service_account", "delegates": [], "service_account_impersonation_url": url,
            "source_credentials": login,
        })
        .to_string()
    };
    let path = bench.file("account.json", account(DELEGATE_TOKEN));
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    let image = bench.image("account").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, DELEGATE_TOKEN, CLIENT_SECRET]);
    assert_eq!(cloud.calls()[..2], ["POST /token", "POST /impersonate"]);
    bench.accept(&image, &public);

    // Who may sign, but not take on the account.
    bench.file("account.json", account(REFRESH_TOKEN));
    let image = bench.image("refused").await;
    let told = &["Google's token service", "403", "roles/iam.serviceAccountTokenCreator"];
    bench.sign(&image, &key).fails(1, told).never_says(&[TOKEN, REFRESH_TOKEN, CLIENT_SECRET]);
    assert!(!bench.is_signed(&image).await);
}

/// The workload may sign itself: no service account is taken on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_google_signs_for_a_workload_whose_token_is_in_a_file_or_behind_a_url() {
    let cloud = FakeCloud::start().await;
    let mut bench = Bench::new(&[(ENDPOINT, &format!("http://{}/", cloud.host))]);
    let public = bench.file("gcp.pub", cloud.google_pem());
    let key = format!("gcpkms://{GCP_KEY}");
    let identity = |source: Value| {
        json!({
            "type": "external_account", "audience": DIRECT,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("http://{}/sts", cloud.host), "credential_source": source,
        })
        .to_string()
    };
    let url = |token: &str, field: &str| {
        identity(json!({
            "url": format!("http://{}/workload-token?audience=kms", cloud.host),
            "headers": { "Authorization": format!("bearer {token}") },
            "format": { "type": "json", "subject_token_field_name": field },
        }))
    };
    let token = bench.file("token", format!("{WORKLOAD_TOKEN}\n"));
    let other = bench.file("other", "eyJ.of-nobody");
    let path = bench.file("workload.json", url(REQUEST_TOKEN, "value"));
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    let image = bench.image("url").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, WORKLOAD_TOKEN, REQUEST_TOKEN]);
    assert_eq!(cloud.calls()[..2], ["GET /workload-token", "POST /sts"]);
    bench.accept(&image, &public);
    bench.file("workload.json", identity(json!({ "file": token })));
    let image = bench.image("file").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, WORKLOAD_TOKEN]);
    bench.accept(&image, &public);

    let image = bench.image("refused").await;
    for (content, code, words) in [
        (
            url("of-nobody", "value"),
            1,
            &["the identity's own token service", "/workload-token) answered 401"][..],
        ),
        (url(REQUEST_TOKEN, "id_token"), 2, &["the workload identity's token has no field `id_token`"][..]),
        (identity(json!({ "file": other })), 1, &["Google's token service", "401", "invalid_grant"][..]),
        (identity(json!({ "file": "/no/such/token" })), 2, &["/no/such/token cannot be read"][..]),
        (identity(json!({ "executable": { "command": "x" } })), 2, &["executable", "is not supported"][..]),
        (
            identity(json!({ "environment_id": "aws1", "url": format!("http://{}/", cloud.host) })),
            2,
            &["AWS", "is not supported"][..],
        ),
    ] {
        bench.file("workload.json", content);
        let secrets = [WORKLOAD_TOKEN, REQUEST_TOKEN, "of-nobody"];
        bench.sign(&image, &key).fails(code, words).never_says(&secrets);
    }
    assert!(!bench.is_signed(&image).await);
}
