//! An emulator of AWS: KMS and STS.

use crate::emulated_aws::EmulatedAws;
use crate::front::{Fault, Front};
use crate::support::Bench;
use crate::tls::{Certificate, TlsFront};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const SECRET: &str = "wJalrXUtnFEMI-secret-of-the-test";

fn bench(aws: &EmulatedAws) -> Bench {
    bench_of(&aws.authority_pem)
}

fn bench_of(authority_pem: &str) -> Bench {
    let mut bench = Bench::new(&[
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let bundle = bench.file("ca.pem", authority_pem);
    bench.set("AWS_CA_BUNDLE", &bundle);
    bench
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_an_emulated_aws_signs() {
    let aws = EmulatedAws::start().await;
    let bench = bench(&aws);
    for (spec, unusual) in [
        ("ECC_NIST_P256", false),
        ("RSA_2048", false),
        ("RSA_4096", false),
        // KMS signs these curves with their own hash only, and `cosign verify` has to be told.
        ("ECC_NIST_P384", true),
        ("ECC_NIST_P521", true),
    ] {
        let name = spec.to_ascii_lowercase().replace('_', "-");
        let arn = aws.key(&name, spec, "SIGN_VERIFY");
        let alias = format!("awskms://{}/alias/{name}", aws.host);
        let image = bench.image(&name).await;
        let signed = bench.sign(&image, &alias).ok().never_says(&[SECRET]);
        assert_eq!(signed.stderr.contains("--signature-digest-algorithm"), unusual, "{}", signed.stderr);
        let key = aws.call("GetPublicKey", json!({ "KeyId": arn }));
        let der = STANDARD.decode(key["PublicKey"].as_str().unwrap()).unwrap();
        let der = bench.file(&format!("{name}.der"), der);
        let public = format!("{name}.pub");
        bench.shell("cosign 3", &format!("openssl pkey -pubin -inform DER -in {der} -out {public}")).ok();
        bench.accept(&image, &alias);
        let hash = match spec {
            "ECC_NIST_P384" => " --signature-digest-algorithm sha384",
            "ECC_NIST_P521" => " --signature-digest-algorithm sha512",
            _ => "",
        };
        bench.accept(&image, &format!("{public}{hash}"));
        bench.verify(&image, &alias).ok().never_says(&[SECRET]);
        // By the ARN, which names the region, the same key signs and its signature is found there already.
        bench.sign(&image, &format!("awskms://{}/{arn}", aws.host)).ok().adds_nothing();
    }
    // The lines that the report prints, word by word, with cosign's own client of KMS.
    for name in ["ecc-nist-p256", "ecc-nist-p384", "ecc-nist-p521"] {
        bench.sign_and_verify("lines", &format!("awskms://{}/alias/{name}", aws.host)).await;
    }
    assert!(aws.connections() > 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn credentials_of_an_emulated_aws_come_from_profiles_and_web_identities() {
    let aws = EmulatedAws::start().await;
    aws.key("app", "ECC_NIST_P256", "SIGN_VERIFY");
    let mut bench = bench(&aws);
    let key = format!("awskms://{}/alias/app", aws.host);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        bench.unset(name);
    }
    let image = bench.image("nobody").await;
    bench.sign(&image, &key).fails(2, &["no region is known", "AWS_REGION"]);
    bench.set("AWS_REGION", "eu-west-1");
    bench.sign(&image, &key).fails(2, &["AWS KMS could not", "no AWS credentials"]);
    assert!(!bench.is_signed(&image).await);

    bench.set("AWS_ENDPOINT_URL_STS", &format!("https://{}/", aws.host));
    bench.file(
        ".aws/credentials",
        format!("[base]\naws_access_key_id = AK\naws_secret_access_key = {SECRET}\n"),
    );
    bench.file(
        ".aws/config",
        "[profile ci]\nrole_arn = arn:aws:iam::123456789012:role/ci\nsource_profile = base\nregion = eu-west-1\n",
    );
    bench.set("AWS_PROFILE", "ci");
    bench.unset("AWS_REGION");
    let image = bench.image("profile").await;
    bench.sign(&image, &key).ok().never_says(&[SECRET]);
    assert!(bench.is_signed(&image).await);

    bench.unset("AWS_PROFILE");
    let token = bench.file("token", "eyJ.of-the.cluster\n");
    bench.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    bench.set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
    bench.set("AWS_REGION", "eu-west-1");
    let image = bench.image("irsa").await;
    bench.sign(&image, &key).ok().never_says(&["eyJ.of-the.cluster"]);
    bench.set("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token");
    bench.sign(&image, &key).fails(2, &["/no/such/token cannot be read"]);
    bench.unset("AWS_WEB_IDENTITY_TOKEN_FILE");
    bench.file(".aws/config", "[default]\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"AK\",\"SecretAccessKey\":\"S\"}'\n");
    let image = bench.image("process").await;
    bench.sign(&image, &key).ok();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn what_an_emulated_aws_refuses_is_told_before_anything_is_written() {
    let aws = EmulatedAws::start().await;
    aws.key("other", "RSA_2048", "ENCRYPT_DECRYPT");
    aws.key("curve", "ECC_SECG_P256K1", "SIGN_VERIFY");
    let mut bench = bench(&aws);
    let image = bench.image("refused").await;
    let key = |name: &str| format!("awskms://{}/{name}", aws.host);
    let told =
        &["AWS KMS could not read the public key", "NotFoundException", "no such key in region eu-west-1"];
    bench.sign(&image, &key("alias/absent")).fails(1, told);
    bench.sign(&image, &key("alias/other")).fails(2, &["ENCRYPT_DECRYPT, not SIGN_VERIFY"]);
    bench
        .sign(&image, &key("alias/curve"))
        .fails(2, &["signs nothing that cosign verifies; ECC_NIST_P256 does"]);
    bench
        .sign(&image, "awskms://alias/app")
        .fails(2, &["`awskms://` needs an endpoint (or nothing), a slash"]);
    bench.unset("AWS_CA_BUNDLE");
    bench.sign(&image, &key("alias/absent")).fails(1, &["cannot be reached", "certificate"]);
    assert!(!bench.is_signed(&image).await);
}

/// The emulator asks nobody for permission, so a fake in front of it refuses, in AWS's words.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_permission_that_a_fake_aws_does_not_give_is_named() {
    let aws = EmulatedAws::start().await;
    aws.key("app", "ECC_NIST_P256", "SIGN_VERIFY");
    for (before, call, refusal) in [
        (
            0,
            "read the public key of",
            r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:iam::1:user/ci is not authorized to perform: kms:GetPublicKey on resource: app"}"#,
        ),
        (
            1,
            "sign with",
            r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:iam::1:user/ci is not authorized to perform: kms:Sign on resource: app"}"#,
        ),
    ] {
        let front = Front::new(aws.plain.trim_end_matches('/'), "POST ", before, Fault::Answer(400, refusal));
        let certificate = Certificate::from_authority("127.0.0.1");
        let tls = TlsFront::start(&certificate, front.url.trim_start_matches("http://")).await;
        let bench = bench_of(&certificate.authority_pem);
        let (image, key) = (bench.image("denied").await, format!("awskms://{}/alias/app", tls.host()));
        let named = format!("AWS KMS could not {call} `{key}`");
        let told =
            [&named, "is not authorized to perform: kms:", "the permissions kms:GetPublicKey and kms:Sign"];
        bench.sign(&image, &key).fails(1, &told).never_says(&[SECRET]);
        assert!(!bench.is_signed(&image).await);
    }
}
