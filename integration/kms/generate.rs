//! `key generate` where a service makes or keeps the key: a real OpenBao, a plugin that cosign takes as well, an
//! emulator of AWS, fakes of Google Cloud, Azure and GitLab.

use crate::emulated_aws::EmulatedAws;
use crate::fake_cloud::{AZURE_SECRET, FakeCloud, GITLAB_TOKEN, TOKEN, Wrong};
use crate::openbao::{OpenBao, ROOT};
use crate::support::{Bench, PLUGIN, PLUGIN_KEYS, Ran};
use crate::tls::{Certificate, TlsFront};

impl Bench {
    fn generate(&self, place: &str, name: &str) -> Ran {
        self.tool(&["key", "generate", place, "--output-key-prefix", name])
    }

    /// Makes a key, signs with it, and lets cosign verify that with the public half that was written.
    async fn made(&self, place: &str, name: &str) {
        let made = self.generate(place, name).ok();
        assert_eq!(made.stdout, format!("{place}\n{name}.pub\n"));
        let public = format!("{name}.pub");
        let shown = self.tool(&["key", "public", place]).ok().stdout;
        assert_eq!(shown, std::fs::read_to_string(self.home().join(&public)).unwrap());
        let image = self.image(name).await;
        self.sign(&image, place).ok();
        self.accept(&image, &public);
    }

    /// Makes sure that a refused key leaves no public half behind.
    fn refused(&self, place: &str, code: i32, words: &[&str]) -> Ran {
        let ran = self.generate(place, "refused").fails(code, words);
        assert!(!self.home().join("refused.pub").exists());
        ran
    }
}

const THERE: &[&str] = &["could not make the key", "it is there already, and no key is replaced"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_key_is_made_in_a_real_openbao() {
    let server = OpenBao::start();
    let mut bench = Bench::new(&[("BAO_ADDR", &server.address), ("BAO_TOKEN", ROOT)]);
    bench.made("openbao://app", "app").await;
    bench.refused("openbao://app", 2, THERE);
    bench.refused("hashivault://app", 2, THERE);
    // What is in the way here is not overwritten either.
    bench.generate("openbao://other", "app").fails(2, &["app.pub is there already"]);
    bench.refused("openbao://app --x", 2, &["needs the name of a key"]);
    let kind = server.bao(&["read", "-field=type", "transit/keys/app"]);
    assert_eq!(kind, "ecdsa-p256");
    let reader = server.token("reader", r#"path "transit/keys/*" { capabilities = ["read"] }"#);
    bench.set("BAO_TOKEN", &reader);
    let told = &[
        "OpenBao could not make the key `openbao://new`",
        "403",
        "`create` and `update` on `transit/keys/new`",
    ];
    bench.refused("openbao://new", 1, told).never_says(&[&reader]);
    bench.set("BAO_TOKEN", ROOT);
    bench.set("TRANSIT_SECRET_ENGINE_PATH", "elsewhere");
    bench.refused("openbao://new", 1, &["no handler for route", "secrets enable -path=elsewhere transit"]);
}

/// The plugin writes down what it was asked: ours and cosign's way of making a key are the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_plugin_makes_a_key_for_us_and_for_cosign_alike() {
    let bench = Bench::new(&[]);
    let makes = format!(
        r#"#!/bin/sh
case "$2" in
  *'"methodName":"defaultAlgorithm"'*) printf '{{"defaultAlgorithm":{{"defaultAlgorithm":"p256-of-the-test"}}}}'; exit ;;
  *'"methodName":"createKey"'*)
    echo "$2" | sed 's/.*"createKey":{{\([^}}]*\)}}.*/\1/' >>asked
    {{ {PLUGIN_KEYS}; }} >&2
    printf '{{"createKey":{{"publicKeyPEM":"%s"}}}}' "$(base64 -w0 plugin.pub)"; exit ;;
  *'"methodName":"publicKey"'*) [ -e plugin.pub ] || {{ echo '{{"errorMessage":"no key yet"}}'; exit; }} ;;
esac
{}"#,
        PLUGIN.trim_start_matches("#!/bin/sh\n")
    );
    bench.plugin("test", &makes);
    bench.made("test://slot/1", "ours").await;
    bench.refused("test://slot/1", 2, THERE);
    std::fs::remove_file(bench.home().join("plugin.pub")).unwrap();
    bench.shell("cosign 3", "cosign generate-key-pair --kms test://slot/1 --output-key-prefix theirs").ok();
    let asked = std::fs::read_to_string(bench.home().join("asked")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert!(
        asked.len() == 2 && asked.iter().all(|asked| asked.contains(r#""algorithm":"p256-of-the-test""#)),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_key_is_made_in_an_emulated_aws_under_its_alias() {
    let aws = EmulatedAws::start().await;
    let mut bench = Bench::new(&[
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-the-test"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let bundle = bench.file("ca.pem", &aws.authority_pem);
    bench.set("AWS_CA_BUNDLE", &bundle);
    let place = format!("awskms://{}/alias/team/app", aws.host);
    bench.made(&place, "app").await;
    bench.refused(&place, 2, THERE);
    aws.key("symmetric", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT");
    bench.refused(&format!("awskms://{}/alias/symmetric", aws.host), 2, THERE);
    let id = format!("awskms://{}/1234abcd-12ab-34cd-56ef-1234567890ab", aws.host);
    bench.refused(&id, 2, &["only an alias can be chosen", "awskms:///alias/NAME"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn keys_are_made_by_fakes_of_google_and_azure() {
    let cloud = FakeCloud::start().await;
    let certificate = Certificate::from_authority("127.0.0.1");
    let front = TlsFront::start(&certificate, &cloud.host).await;
    let login = format!("http://{}/", cloud.host);
    let mut bench = Bench::new(&[
        ("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", &login),
        ("GCE_METADATA_HOST", &cloud.host),
        ("AZURE_AUTHORITY_HOST", &login),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", AZURE_SECRET),
    ]);
    let authority = bench.file("ca.pem", &certificate.authority_pem);
    bench.set("SSL_CERT_FILE", &authority);
    let google = "gcpkms://projects/p/locations/l/keyRings/new/cryptoKeys/app";
    let azure = format!("azurekms://{}/new", front.host());
    for (place, permission) in
        [(google, "cloudkms.cryptoKeys.get and .create"), (azure.as_str(), "Key Vault Crypto Officer")]
    {
        cloud.goes_wrong(Wrong::MayCreate);
        bench.refused(place, 1, &["could not make the key", "403", permission]).never_says(&[TOKEN]);
        cloud.goes_wrong(Wrong::Nothing);
        let versioned = if place == google { format!("{place}/versions/1") } else { format!("{place}/0a1b") };
        bench.refused(&versioned, 2, &["leave the version out"]);
    }
    for (place, name, public) in
        [(google, "google", cloud.google_pem()), (azure.as_str(), "azure", cloud.azure_pem())]
    {
        bench.generate(place, name).ok().never_says(&[TOKEN, AZURE_SECRET]);
        let written = std::fs::read(bench.home().join(format!("{name}.pub"))).unwrap();
        assert_eq!(pem::parse(written).unwrap(), pem::parse(public).unwrap());
        bench.refused(place, 2, THERE);
    }
    let calls = cloud.calls();
    let ring = "/v1/projects/p/locations/l/keyRings";
    for call in [ring, &format!("{ring}/new/cryptoKeys"), "/keys/new/create"] {
        assert!(calls.contains(&format!("POST {call}")), "{call}: {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_key_is_kept_in_a_fake_gitlabs_variables() {
    let cloud = FakeCloud::start().await;
    let mut bench = Bench::new(&[("COSIGN_PASSWORD", "secret-of-the-key"), ("GITLAB_TOKEN", GITLAB_TOKEN)]);
    bench.set("GITLAB_HOST", &format!("http://{}", cloud.host));
    let place = "gitlab://group/project";
    cloud.goes_wrong(Wrong::MayCreate);
    let told = &["no key could be made in gitlab://group/project", "403", "Maintainer", "`api`"];
    bench.refused(place, 1, told).never_says(&[GITLAB_TOKEN, "secret-of-the-key"]);
    // What was half done is undone, and the next attempt finds nothing in its way.
    cloud.goes_wrong(Wrong::Nothing);
    bench.made(place, "app").await;
    bench.refused(place, 2, &["COSIGN_PRIVATE_KEY is there already, and no key is replaced"]);
}
