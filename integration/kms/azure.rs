//! A fake of Azure Key Vault and Entra.

use crate::fake_cloud::{APP_HEADER, AZURE_SECRET, FakeCloud, TOKEN, WORKLOAD_TOKEN, Wrong};
use crate::support::Bench;
use crate::tls::{Certificate, TlsFront};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_azure_signs_and_refusals_are_told() {
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("127.0.0.1");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let key = format!("azurekms://{}/app", front.host());
    let login = format!("http://{}/", cloud.host);
    let mut bench = Bench::new(&[
        ("AZURE_AUTHORITY_HOST", &login),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", AZURE_SECRET),
    ]);
    let image = bench.image("untrusted").await;
    bench.sign(&image, &key).fails(1, &["Azure Key Vault", "cannot be reached", "certificate"]);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    let public = bench.file("azure.pub", cloud.azure_pem());

    let image = bench.image("secret").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, AZURE_SECRET]);
    bench.accept(&image, &public);
    assert!(front.accepted() > 0);

    bench.unset("AZURE_CLIENT_SECRET");
    let token = bench.file("token", format!("{WORKLOAD_TOKEN}\n"));
    bench.set("AZURE_FEDERATED_TOKEN_FILE", &token);
    let image = bench.image("workload").await;
    bench.sign(&image, &format!("{key}/0a1b")).ok().never_says(&[TOKEN, WORKLOAD_TOKEN]);
    bench.accept(&image, &public);

    bench.unset("AZURE_FEDERATED_TOKEN_FILE");
    bench.set("AZURE_POD_IDENTITY_AUTHORITY_HOST", &login);
    let image = bench.image("managed").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN]);
    bench.accept(&image, &public);

    let image = bench.image("refused").await;
    cloud.goes_wrong(Wrong::MaySign);
    let named = format!("Azure Key Vault could not sign with `{key}`");
    let told = &[&named, "keys sign permission", "Key Vault Crypto User"];
    bench.sign(&image, &key).fails(1, told);
    cloud.goes_wrong(Wrong::Nothing);
    bench
        .sign(&image, &key.replace("/app", "/absent"))
        .fails(1, &["404", "KeyNotFound", "check the vault's host"]);
    bench.set("AZURE_CLIENT_SECRET", "another~secret");
    let told = &["Microsoft Entra ID", "invalid_client", "AADSTS7000215", "AZURE_TENANT_ID"];
    bench.sign(&image, &key).fails(1, told).never_says(&["another~secret"]);
    assert!(!bench.is_signed(&image).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_fake_azure_signs_for_an_app_by_the_identity_of_its_service() {
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("127.0.0.1");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let key = format!("azurekms://{}/app", front.host());
    let mut bench = Bench::new(&[
        ("IDENTITY_ENDPOINT", &format!("http://{}/msi/token", cloud.host)),
        ("IDENTITY_HEADER", APP_HEADER),
        // The service of the machine below, which an app does not ask.
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &format!("http://{}/", cloud.host)),
    ]);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    let public = bench.file("azure.pub", cloud.azure_pem());

    let image = bench.image("app").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, APP_HEADER]);
    let logins = cloud.calls().iter().filter(|call| *call == "GET /msi/token").count();
    assert_eq!(logins, 1, "a token is kept while it is good");
    bench.accept(&image, &public);
    // One of several identities that the app has.
    bench.set("AZURE_CLIENT_ID", "client");
    let image = bench.image("one-of-several").await;
    bench.sign(&image, &key).ok().never_says(&[TOKEN, APP_HEADER]);
    bench.accept(&image, &public);
    let calls = cloud.calls();
    let mut logins = calls.iter().filter(|call| call.ends_with("/token")).peekable();
    assert!(logins.peek().is_some() && logins.all(|call| call == "GET /msi/token"), "{calls:?}");

    let image = bench.image("refused").await;
    bench.set("AZURE_CLIENT_ID", "another");
    let told =
        &["the managed identity service", "/msi/token) answered 400", "that it has with AZURE_CLIENT_ID"];
    bench.sign(&image, &key).fails(1, told).never_says(&[APP_HEADER]);
    bench.set("IDENTITY_HEADER", "of-another-app");
    let told = &["Azure Key Vault could not read the public key", "/msi/token) answered 401"];
    bench.sign(&image, &key).fails(1, told).never_says(&["of-another-app"]);
    assert!(!bench.is_signed(&image).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn what_a_fake_azure_refuses_a_machine_and_a_workload_is_told_before_anything_is_written() {
    let cloud = FakeCloud::start().await;
    let login = format!("http://{}/", cloud.host);
    let mut bench = Bench::new(&[
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &login),
        ("AZURE_AUTHORITY_HOST", &login),
        ("AZURE_CLIENT_ID", "another"),
    ]);
    // Nobody gets as far as the vault.
    let key = "azurekms://127.0.0.1:9/app";
    let image = bench.image("refused").await;
    let told = &[
        "the managed identity service",
        "/metadata/identity/oauth2/token) answered 400",
        "Identity not found",
    ];
    bench.sign(&image, key).fails(1, told);
    bench.set("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9/");
    let told =
        &["no Azure credentials", "AZURE_FEDERATED_TOKEN_FILE", "this machine has no managed identity"];
    bench.sign(&image, key).fails(2, told);

    bench.set("AZURE_TENANT_ID", "tenant");
    bench.set("AZURE_FEDERATED_TOKEN_FILE", "/no/such/token");
    bench.sign(&image, key).fails(2, &["/no/such/token cannot be read"]);
    let token = bench.file("token", "eyJ.of-nobody");
    bench.set("AZURE_FEDERATED_TOKEN_FILE", &token);
    let told = &["Microsoft Entra ID", "/tenant/oauth2/v2.0/token) answered 401", "invalid_client"];
    bench.sign(&image, key).fails(1, told).never_says(&["eyJ.of-nobody"]);
    assert!(!bench.is_signed(&image).await);
}
