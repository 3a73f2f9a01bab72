//! A real OpenBao.

use crate::openbao::{OpenBao, ROOT};
use crate::support::Bench;

fn bench(server: &OpenBao) -> Bench {
    Bench::new(&[("VAULT_ADDR", &server.address), ("VAULT_TOKEN", ROOT)])
}

/// All the kinds of keys, and each line that the report prints.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn cosign_accepts_what_a_real_openbao_signs() {
    let server = OpenBao::start();
    let bench = bench(&server);
    for kind in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096"] {
        server.key(kind, kind);
        let (image, signed) = bench.sign_and_verify(kind, &format!("hashivault://{kind}")).await;
        signed.never_says(&[ROOT]);
        bench.verify(&image, &format!("openbao://{kind}")).ok().never_says(&[ROOT]);
        let public = server.bao(&["read", "-format=json", &format!("transit/keys/{kind}")]);
        let public: serde_json::Value = serde_json::from_str(&public).unwrap();
        let pem = public["data"]["keys"]["1"]["public_key"].as_str().unwrap();
        bench.accept(&image, &bench.file(&format!("{kind}.pub"), pem));
    }
    server.key("ed25519", "ed25519");
    let (image, signed) = bench.sign_and_verify("ed25519", "openbao://ed25519").await;
    signed.never_says(&[ROOT]);
    let raw = server.bao(&["read", "-format=json", "transit/keys/ed25519"]);
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let raw = raw["data"]["keys"]["1"]["public_key"].as_str().unwrap();
    let line = format!(
        "{{ printf '\\060\\052\\060\\005\\006\\003\\053\\145\\160\\003\\041\\000'; echo {raw} | base64 -d; }} | \
         openssl pkey -pubin -inform DER -out ed25519.pub"
    );
    bench.shell("cosign 3", &line).ok();
    bench.accept(&image, "ed25519.pub");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_rotated_key_signs_with_its_latest_version_elsewhere_mounted_and_by_the_token_file() {
    let server = OpenBao::start();
    server.bao(&["secrets", "enable", "-path=team/sign", "transit"]);
    server.bao(&["write", "-f", "team/sign/keys/app", "type=ecdsa-p256"]);
    server.bao(&["write", "-f", "team/sign/keys/app/rotate"]);
    let mut bench = bench(&server);
    bench.set("TRANSIT_SECRET_ENGINE_PATH", "team/sign");
    bench.unset("VAULT_TOKEN");
    let image = bench.image("rotated").await;
    bench.sign(&image, "hashivault://app").fails(2, &["VAULT_TOKEN is not set", "~/.vault-token"]);
    bench.file(".vault-token", format!("{ROOT}\n"));
    let signed = bench.sign(&image, "hashivault://app").ok().never_says(&[ROOT]);
    let step = "asking Vault for a signature with hashivault://app\n";
    assert!(signed.stderr.contains(step), "{}", signed.stderr);
    let keys = server.bao(&["read", "-format=json", "team/sign/keys/app"]);
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let pem = |version: &str| keys["data"]["keys"][version]["public_key"].as_str().unwrap().to_owned();
    bench.accept(&image, &bench.file("new.pub", pem("2")));
    let old = bench.file("old.pub", pem("1"));
    let line = format!("cosign verify --key {old} --insecure-ignore-tlog {image}");
    assert_ne!(bench.shell("cosign 3", &line).code, Some(0), "the first version signed nothing");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn what_a_real_openbao_refuses_is_told_before_anything_is_written() {
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    server.key("symmetric", "aes256-gcm96");
    let reader = server.token("reader", r#"path "transit/keys/app" { capabilities = ["read"] }"#);
    let mut bench = bench(&server);
    let image = bench.image("refused").await;
    bench.verify(&image, "hashivault://app").fails(10, &[]);

    bench.sign(&image, "hashivault://absent").fails(
        1,
        &[
            "Vault could not read the public key of `hashivault://absent`",
            "there is no key `absent` in `transit`",
            "write -f transit/keys/absent type=ecdsa-p256",
        ],
    );
    bench.sign(&image, "hashivault://symmetric").fails(2, &["`aes256-gcm96`", "`ecdsa-p256` does"]);
    bench.sign(&image, "hashivault://a/b").fails(2, &["`hashivault://` needs the name of a key"]);

    bench.set("VAULT_TOKEN", &reader);
    // Who only verifies needs no right to sign.
    bench.verify(&image, "hashivault://app").fails(10, &[]);
    let told = &[
        "Vault could not sign with `hashivault://app`",
        "permission denied",
        "`update` on `transit/sign/app`",
    ];
    bench.sign(&image, "hashivault://app").fails(1, told).never_says(&[&reader]);

    bench.set("VAULT_TOKEN", "s.of-nobody-in-particular");
    let told = &["Vault could not read the public key", "403", "the token must be valid"];
    bench.sign(&image, "hashivault://app").fails(1, told).never_says(&["s.of-nobody-in-particular"]);

    let address = server.address.clone();
    drop(server);
    let told = &["cannot be reached", "refused", &address];
    bench.sign(&image, "hashivault://app").fails(1, told);
    bench.unset("VAULT_ADDR");
    bench.sign(&image, "openbao://app").fails(2, &["BAO_ADDR is not set"]);
    assert!(!bench.is_signed(&image).await);
}

/// The root has a key of the same name, and the token is good in the namespace only.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_key_in_a_namespace_of_a_real_openbao_signs_for_who_names_it() {
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    server.bao(&["namespace", "create", "org"]);
    server.bao(&["namespace", "create", "-namespace=org", "team"]);
    server.bao(&["secrets", "enable", "-namespace=org/team", "transit"]);
    server.bao(&["write", "-namespace=org/team", "-f", "transit/keys/app", "type=ecdsa-p256"]);
    let mut bench = bench(&server);
    let policy = bench.file("signer.hcl", r#"path "transit/*" { capabilities = ["read", "update"] }"#);
    server.bao(&["policy", "write", "-namespace=org/team", "signer", &policy]);
    let token = server.bao(&["token", "create", "-namespace=org/team", "-field=token", "-policy=signer"]);
    let pem = |path: &str| {
        let key = server.bao(&["read", "-format=json", path]);
        let key: serde_json::Value = serde_json::from_str(&key).unwrap();
        key["data"]["keys"]["1"]["public_key"].as_str().unwrap().to_owned()
    };
    let ours = bench.file("ours.pub", pem("org/team/transit/keys/app"));
    let root = bench.file("root.pub", pem("transit/keys/app"));

    bench.set("VAULT_TOKEN", &token);
    bench.set("VAULT_NAMESPACE", "org/team");
    let (image, signed) = bench.sign_and_verify("vault", "hashivault://app").await;
    signed.never_says(&[&token]);
    bench.verify(&image, "hashivault://app").ok();
    bench.verify(&image, &ours).ok();
    bench.accept(&image, &ours);
    bench.verify(&image, &root).fails(12, &["it is not a signature of this key"]);
    for name in ["VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE"] {
        bench.unset(name);
    }
    bench.set("BAO_ADDR", &server.address);
    bench.set("BAO_TOKEN", &token);
    bench.set("BAO_NAMESPACE", "org/team/");
    let image = bench.image("openbao").await;
    bench.sign(&image, "openbao://app").ok().never_says(&[&token]);
    bench.accept(&image, &ours);

    let image = bench.image("elsewhere").await;
    bench.set("BAO_NAMESPACE", "org/nowhere");
    let told = &["OpenBao could not read the public key of `openbao://app`", "404", "BAO_NAMESPACE"];
    bench.sign(&image, "openbao://app").fails(1, told).never_says(&[&token]);
    bench.unset("BAO_NAMESPACE");
    let told = &["OpenBao could not read the public key of `openbao://app`", "403", "permission denied"];
    bench.sign(&image, "openbao://app").fails(1, told).never_says(&[&token]);
    assert!(!bench.is_signed(&image).await);
    bench.set("BAO_TOKEN", ROOT);
    bench.sign(&image, "openbao://app").ok().never_says(&[ROOT]);
    bench.accept(&image, &root);
}
