//! An emulator of AWS: KMS and STS; fakes of the services that give out keys.

use crate::emulated_aws::{
    CONTAINER_TOKEN, EXTERNAL_ID, EmulatedAws, FakeGate, POD_TOKEN, SSO_TOKEN, secret_of, session_of,
};
use crate::fake_cloud::FakeTunnel;
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

const ROLE: &str = "arn:aws:iam::123456789012:role";

/// The tool before a fake gate; nobody has given it any keys yet.
fn bench_before(gate: &FakeGate) -> Bench {
    let mut bench = Bench::new(&[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL_STS", &gate.sts),
    ]);
    let bundle = bench.file("ca.pem", &gate.authority_pem);
    bench.set("AWS_CA_BUNDLE", &bundle);
    bench
}

/// A profile of the credentials file.
fn keys_as(profile: &str, id: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {id}\naws_secret_access_key = {}\n", secret_of(id))
}

/// Signs an image of its own, and returns what the gate saw of that.
async fn signed_before(gate: &FakeGate, bench: &Bench, name: &str) -> Vec<String> {
    let image = bench.image(name).await;
    let _earlier = gate.calls();
    let signed = bench.sign(&image, &gate.key).ok();
    let (calls, secrets) = (gate.calls(), gate.secrets());
    signed.never_says(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
    bench.verify(&image, &gate.key).ok();
    calls
}

/// All of AWS's sources have keys, and one after the other goes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_fake_gate_of_aws_sees_the_keys_of_the_first_source_that_has_any() {
    let gate = FakeGate::start().await;
    let mut bench = bench_before(&gate);
    bench.set("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT");
    bench.set("AWS_SECRET_ACCESS_KEY", &secret_of("AKIAENVIRONMENT"));
    let token = bench.file("token", format!("{POD_TOKEN}\n"));
    bench.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    bench.set("AWS_ROLE_ARN", &format!("{ROLE}/pod"));
    let credentials = bench.file(".aws/credentials", keys_as("default", "AKIAPROFILE"));
    bench.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{}/container", gate.host));
    bench.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN);
    bench.unset("AWS_EC2_METADATA_DISABLED");
    bench.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("http://{}", gate.host));

    let calls = signed_before(&gate, &bench, "environment").await;
    assert_eq!(calls, ["GetPublicKey by AKIAENVIRONMENT", "Sign by AKIAENVIRONMENT"]);
    bench.unset("AWS_ACCESS_KEY_ID");
    let calls = signed_before(&gate, &bench, "pod").await;
    let all = ["AssumeRoleWithWebIdentity by a pod", "GetPublicKey by role/pod", "Sign by role/pod"];
    assert_eq!(calls, all);
    bench.unset("AWS_WEB_IDENTITY_TOKEN_FILE");
    let calls = signed_before(&gate, &bench, "default-profile").await;
    assert_eq!(calls, ["GetPublicKey by AKIAPROFILE", "Sign by AKIAPROFILE"]);
    std::fs::remove_file(credentials).unwrap();
    let calls = signed_before(&gate, &bench, "container").await;
    let all = ["GET /container", "GetPublicKey by ASIACONTAINER", "Sign by ASIACONTAINER"];
    assert_eq!(calls, all);
    bench.unset("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let calls = signed_before(&gate, &bench, "machine").await;
    let all = [
        "PUT /latest/api/token",
        "GET /latest/meta-data/iam/security-credentials/",
        "GET /latest/meta-data/iam/security-credentials/role-of-the-machine",
        "GetPublicKey by ASIAMACHINE",
        "Sign by ASIAMACHINE",
    ];
    assert_eq!(calls, all);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn what_fakes_of_aws_refuse_a_pod_a_container_and_a_machine_is_told() {
    let gate = FakeGate::start().await;
    let mut bench = bench_before(&gate);
    let image = bench.image("refused").await;
    let token = bench.file("token", "of-nobody-in-particular");
    bench.set("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    bench.set("AWS_ROLE_ARN", &format!("{ROLE}/pod"));
    let refused = format!("assuming {ROLE}/pod: InvalidIdentityToken");
    let told = &["AWS KMS could not read the public key", &refused];
    bench.sign(&image, &gate.key).fails(1, told).never_says(&["of-nobody-in-particular"]);
    assert_eq!(gate.calls(), ["AssumeRoleWithWebIdentity by nobody"]);
    bench.unset("AWS_WEB_IDENTITY_TOKEN_FILE");

    bench.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{}/container", gate.host));
    bench.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-nobody-in-particular");
    let told = &["the container's credential service", "/container) answered 401"];
    bench.sign(&image, &gate.key).fails(1, told).never_says(&["of-nobody-in-particular"]);
    // A pod of EKS has its token in a file, which comes first.
    bench.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/no/such/token");
    bench.sign(&image, &gate.key).fails(2, &["/no/such/token cannot be read"]);
    assert!(!bench.is_signed(&image).await);
    bench.file("token", format!("{CONTAINER_TOKEN}\n"));
    bench.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    let calls = signed_before(&gate, &bench, "eks").await;
    assert_eq!(calls, ["GET /container", "GetPublicKey by ASIACONTAINER", "Sign by ASIACONTAINER"]);

    bench.unset("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    bench.unset("AWS_EC2_METADATA_DISABLED");
    bench.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("http://{}", gate.host));
    gate.loses_its_role();
    let _earlier = gate.calls();
    let told = &["AWS KMS could not read the public key", "no AWS credentials", "this machine has no role"];
    bench.sign(&image, &gate.key).fails(2, told);
    let asked = ["PUT /latest/api/token", "GET /latest/meta-data/iam/security-credentials/"];
    assert_eq!(gate.calls(), asked);
    assert!(!bench.is_signed(&image).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_fake_gate_of_aws_sees_each_role_assumed_with_the_keys_of_its_source() {
    let gate = FakeGate::start().await;
    let mut bench = bench_before(&gate);
    bench.file(".aws/credentials", keys_as("base", "AKIAPROFILE"));
    let role = |profile: &str, source: &str| {
        format!("[profile {profile}]\nrole_arn = {ROLE}/{profile}\nsource_profile = {source}\n")
    };
    let id = format!("external_id = {EXTERNAL_ID}\n");
    let all = [role("ci", "base"), id.clone(), role("deploy", "ci"), id, role("denied", "base")];
    bench.file(".aws/config", all.concat());
    bench.set("AWS_PROFILE", "ci");
    let calls = signed_before(&gate, &bench, "one").await;
    assert_eq!(calls, ["AssumeRole by AKIAPROFILE", "GetPublicKey by role/ci", "Sign by role/ci"]);
    bench.set("AWS_PROFILE", "deploy");
    let calls = signed_before(&gate, &bench, "two").await;
    let all = [
        "AssumeRole by AKIAPROFILE",
        "AssumeRole by role/ci",
        "GetPublicKey by role/deploy",
        "Sign by role/deploy",
    ];
    assert_eq!(calls, all);

    let image = bench.image("denied").await;
    bench.set("AWS_PROFILE", "denied");
    let refused = format!("assuming {ROLE}/denied: AccessDenied");
    let told = &[&refused, "the role's trust policy must name the caller"];
    bench.sign(&image, &gate.key).fails(1, told).never_says(&[&secret_of("AKIAPROFILE")]);
    bench.set("AWS_PROFILE", "absent");
    bench.sign(&image, &gate.key).fails(2, &["there is no AWS profile `absent`"]);
    assert!(!bench.is_signed(&image).await);
}

const PORTAL: &str = "portal.sso.eu-north-1.amazonaws.com";
/// The names that AWS's own tools give to the logins of the session `corp` and of its address: their SHA-1.
const LOGIN: &str = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
const LOGIN_BY_URL: &str = ".aws/sso/cache/a51746d4aa793ae07b25e90c3a5db96fc7832bd7.json";

/// A profile as `aws configure sso` writes it, and one as it did before there were sessions.
const LOGINS: &str = "[profile dev]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Signer\n\
                      [sso-session corp]\nsso_region = eu-north-1\nsso_start_url = https://corp.awsapps.com/start\n\
                      sso_registration_scopes = sso:account:access\n\
                      [profile old]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-north-1\n\
                      sso_account_id = 123456789012\nsso_role_name = Signer\n";

fn login(token: &str, until: &str) -> String {
    json!({
        "startUrl": "https://corp.awsapps.com/start", "region": "eu-north-1", "accessToken": token,
        "expiresAt": until,
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_fake_gate_of_aws_sees_the_keys_of_who_has_logged_in_by_single_sign_on() {
    let gate = FakeGate::start().await;
    let mut bench = bench_before(&gate);
    // The tool knows the portal's address by heart.
    let certificate = Certificate::from_authority(PORTAL);
    let portal = TlsFront::start(&certificate, &gate.host).await;
    let tunnel = FakeTunnel::start(portal.host()).await;
    bench.set("HTTPS_PROXY", &tunnel.url);
    bench.file("ca.pem", format!("{}{}", gate.authority_pem, certificate.authority_pem));
    bench.file(".aws/config", LOGINS);
    for (profile, place) in [("dev", LOGIN), ("old", LOGIN_BY_URL)] {
        let path = bench.file(place, login(SSO_TOKEN, "2099-01-01T00:00:00Z"));
        bench.set("AWS_PROFILE", profile);
        let calls = signed_before(&gate, &bench, profile).await;
        let all = ["GET /federation/credentials", "GetPublicKey by ASIAPERSON", "Sign by ASIAPERSON"];
        assert_eq!(calls, all, "{profile}");
        assert_eq!(tunnel.asked(), [format!("{PORTAL}:443")], "{profile}");
        std::fs::remove_file(path).unwrap();
    }

    bench.file(LOGIN_BY_URL, login("of-nobody-in-particular", "2099-01-01T00:00:00Z"));
    let image = bench.image("refused").await;
    let told = &["AWS single sign-on", PORTAL, "401", "log in again with `aws sso login`"];
    bench.sign(&image, &gate.key).fails(1, told).never_says(&["of-nobody-in-particular"]);
    assert!(!bench.is_signed(&image).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_login_to_aws_that_has_expired_is_told_with_the_command_that_renews_it() {
    let mut bench = Bench::new(&[("AWS_REGION", "eu-west-1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
    bench.file(".aws/config", LOGINS);
    let image = bench.image("expired").await;
    for (profile, place) in [("dev", LOGIN), ("old", LOGIN_BY_URL)] {
        bench.set("AWS_PROFILE", profile);
        let gone = format!("the AWS login of profile `{profile}` is gone: `aws sso login`");
        let told = &["AWS KMS could not read the public key of `awskms:///alias/app`", gone.as_str()];
        // There is none at first. Portal and KMS are out of reach here: to ask them would end with another code.
        bench.sign(&image, "awskms:///alias/app").fails(2, told);
        bench.file(place, login(SSO_TOKEN, "2020-01-01T00:00:00Z"));
        bench.sign(&image, "awskms:///alias/app").fails(2, told).never_says(&[SSO_TOKEN]);
    }
    assert!(!bench.is_signed(&image).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_fake_gate_of_aws_sees_the_keys_of_a_profile_s_own_program() {
    let gate = FakeGate::start().await;
    let mut bench = bench_before(&gate);
    let keys = json!({
        "Version": 1, "AccessKeyId": "ASIAPROGRAM", "SecretAccessKey": secret_of("ASIAPROGRAM"),
        "SessionToken": session_of("ASIAPROGRAM"), "Expiration": "2099-01-01T00:00:00Z",
    });
    bench.file("keys.json", keys.to_string());
    bench.file(
        ".aws/config",
        "[profile corp]\ncredential_process = cat \"$HOME/keys.json\"\n\
         [profile broken]\ncredential_process = echo hidden-word; exit 3\n\
         [profile mute]\ncredential_process = echo hidden-word\n",
    );
    bench.set("AWS_PROFILE", "corp");
    let calls = signed_before(&gate, &bench, "corp").await;
    assert_eq!(calls, ["GetPublicKey by ASIAPROGRAM", "Sign by ASIAPROGRAM"]);

    let image = bench.image("refused").await;
    let _earlier = gate.calls();
    for (profile, word) in [("broken", "failed (exit status: 3)"), ("mute", "gave no JSON with keys")] {
        bench.set("AWS_PROFILE", profile);
        let told = format!("the profile's credential_process {word}");
        // The line may hold a password.
        bench.sign(&image, &gate.key).fails(2, &[&told]).never_says(&["hidden-word"]);
    }
    assert!(gate.calls().is_empty());
    assert!(!bench.is_signed(&image).await);
}
