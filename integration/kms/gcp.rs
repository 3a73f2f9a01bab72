//! A fake of Google Cloud KMS.

use crate::fake_cloud::{FakeCloud, GCP_KEY, TOKEN, WORKLOAD_TOKEN, Wrong};
use crate::support::Bench;
use serde_json::json;

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
