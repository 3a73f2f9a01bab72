//! Nothing leaks: each key service's credentials, in each mode of progress, with all that the log can say, and in the
//! arguments of the programs that are started.

use crate::emulated_aws::EmulatedAws;
use crate::fake_cloud::{AZURE_SECRET, FakeCloud, GCP_KEY, GITLAB_TOKEN, TOKEN, WORKLOAD_TOKEN};
use crate::openbao::{OpenBao, ROOT};
use crate::support::Bench;
use crate::tls::{Certificate, TlsFront};
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_real_openbaos_token_is_told_in_no_mode() {
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    let bench = Bench::new(&[("VAULT_ADDR", &server.address), ("VAULT_TOKEN", ROOT)]);
    bench.tells_nothing("vault", "hashivault://app", &[ROOT]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn an_emulated_aws_s_secrets_are_told_in_no_mode() {
    const SECRET: &str = "wJalrXUtnFEMI-secret-of-the-test";
    const SESSION: &str = "session-token-of-the-test-9f3b";
    let aws = EmulatedAws::start().await;
    aws.key("app", "ECC_NIST_P256", "SIGN_VERIFY");
    let mut bench = Bench::new(&[
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SESSION),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let bundle = bench.file("ca.pem", &aws.authority_pem);
    bench.set("AWS_CA_BUNDLE", &bundle);
    let key = format!("awskms://{}/alias/app", aws.host);
    bench.tells_nothing("aws", &key, &[SECRET, SESSION]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn fake_clouds_secrets_are_told_in_no_mode() {
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("127.0.0.1");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let mut bench = Bench::new(&[
        ("AZURE_AUTHORITY_HOST", &format!("http://{}/", cloud.host)),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", AZURE_SECRET),
        ("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", &format!("http://{}/", cloud.host)),
        ("GITLAB_HOST", &format!("http://{}", cloud.host)),
        ("GITLAB_TOKEN", GITLAB_TOKEN),
        ("COSIGN_PASSWORD", "secret-of-the-key"),
    ]);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    let key = format!("azurekms://{}/app", front.host());
    bench.tells_nothing("azure", &key, &[TOKEN, AZURE_SECRET]).await;
    bench.unset("AZURE_CLIENT_SECRET");
    let token = bench.file("token", format!("{WORKLOAD_TOKEN}\n"));
    bench.set("AZURE_FEDERATED_TOKEN_FILE", &token);
    bench.tells_nothing("workload", &key, &[TOKEN, WORKLOAD_TOKEN]).await;

    let account = cloud.service_account();
    let private: serde_json::Value = serde_json::from_str(&account).expect("JSON");
    let private = private["private_key"].as_str().expect("a key");
    let lines: Vec<&str> = private.lines().filter(|line| !line.starts_with('-')).collect();
    let path = bench.file("account.json", &account);
    bench.set("GOOGLE_APPLICATION_CREDENTIALS", &path);
    bench.tells_nothing("google", &format!("gcpkms://{GCP_KEY}"), &[&[TOKEN], &lines[..]].concat()).await;

    bench.shell("cosign 3", "cosign generate-key-pair").ok();
    let pem = std::fs::read_to_string(bench.home().join("cosign.key")).expect("a key");
    let lines: Vec<&str> = pem.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).collect();
    let variable = |name: &str| format!("/api/v4/projects/group%2Fproject/variables/{name}");
    cloud.put(&variable("COSIGN_PRIVATE_KEY"), &pem);
    cloud.put(&variable("COSIGN_PASSWORD"), "secret-of-the-key");
    let secrets = [&[GITLAB_TOKEN, "secret-of-the-key"], &lines[..]].concat();
    bench.tells_nothing("gitlab", "gitlab://group/project", &secrets).await;
    cloud.put("/cosign.key", &pem);
    let url = format!("http://user:hidden-part@{}/cosign.key?signature=hidden-too", cloud.host);
    let secrets = [&["hidden-part", "hidden-too", "secret-of-the-key"], &lines[..]].concat();
    bench.tells_nothing("url", &url, &secrets).await;
}

/// A plugin gets the key's name and the digest: no password and no token of ours in its arguments.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_plugin_is_started_without_secrets_in_its_arguments() {
    let bench = Bench::new(&[("COSIGN_PASSWORD", "secret-of-the-key"), ("VAULT_TOKEN", ROOT)]);
    let noting = crate::support::PLUGIN.replacen(
        '\n',
        "\nfor argument; do echo \"$argument\" >>\"$HOME/arguments\"; done\n",
        1,
    );
    let path = bench.file("bin/sigstore-kms-test", noting);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let keys = "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out plugin.key && \
                openssl pkey -in plugin.key -pubout -out plugin.pub";
    bench.shell("cosign 3", keys).ok();
    let pem = std::fs::read_to_string(bench.home().join("plugin.key")).expect("a key");
    let lines: Vec<&str> = pem.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).collect();
    let secrets = [&["secret-of-the-key", ROOT], &lines[..]].concat();
    bench.tells_nothing("plugin", "test://slot/1", &secrets).await;
    let arguments = std::fs::read_to_string(bench.home().join("arguments")).expect("it ran");
    assert!(arguments.contains("signMessage"), "{arguments}");
    assert!(!secrets.iter().any(|secret| arguments.contains(secret)), "{arguments}");
}
