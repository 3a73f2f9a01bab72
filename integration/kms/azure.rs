//! A fake of Azure Key Vault and Entra.

use crate::fake_cloud::{AZURE_SECRET, FakeCloud, TOKEN, WORKLOAD_TOKEN, Wrong};
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
