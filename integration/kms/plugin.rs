//! A `sigstore-kms-test` program, which cosign takes as well.

use crate::support::Bench;
use std::os::unix::fs::PermissionsExt as _;

/// A plugin as cosign's protocol has it, with OpenSSL behind: publicKey, signMessage and verifySignature.
const PLUGIN: &str = r#"#!/bin/sh
[ "$1" = v1 ] || { echo "protocol $1" >&2; exit 1; }
echo "a line for people" >&2
case "$2" in *'"keyResourceID":"slot/1"'*) ;; *) echo '{"errorMessage":"no such slot"}'; exit 1 ;; esac
case "$2" in
  *'"methodName":"publicKey"'*) printf '{"publicKey":{"publicKeyPEM":"%s"}}' "$(base64 -w0 plugin.pub)" ;;
  *'"methodName":"signMessage"'*)
    printf '{"signMessage":{"signature":"%s"}}' "$(openssl dgst -sha256 -sign plugin.key | base64 -w0)" ;;
  *'"methodName":"verifySignature"'*)
    echo "$2" | sed 's/.*"signature":"\([^"]*\)".*/\1/' | base64 -d >signature.bin
    if openssl dgst -sha256 -verify plugin.pub -signature signature.bin >/dev/null; then echo '{"verifySignature":{}}'
    else echo '{"errorMessage":"not mine"}'; fi ;;
  *) echo '{"errorMessage":"unknown method"}' ;;
esac
"#;

fn install(bench: &Bench, name: &str, text: &str) {
    let path = bench.file(&format!("bin/sigstore-kms-{name}"), text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_plugin_signs_for_us_and_verifies_for_cosign() {
    let bench = Bench::new(&[]);
    let keys = "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out plugin.key && \
                openssl pkey -in plugin.key -pubout -out plugin.pub";
    bench.shell("cosign 3", keys).ok();
    let image = bench.image("plugin").await;
    let told = &["unknown key scheme `test://`", "no program `sigstore-kms-test` on PATH"];
    bench.sign(&image, "test://slot/1").fails(2, told);
    install(&bench, "test", PLUGIN);
    bench.sign(&image, "test://slot/2").fails(1, &["`sigstore-kms-test` says: no such slot"]);
    bench.sign(&image, "test://slot/1").ok();
    bench.accept(&image, "plugin.pub");
    bench.accept(&image, "test://slot/1");

    install(&bench, "mute", "#!/bin/sh\necho 'cannot open the device' >&2\nexit 3\n");
    bench.sign(&image, "mute://1").fails(1, &["did not answer in JSON", "cannot open the device"]);
    let liar = PLUGIN.replace("-sign plugin.key", "-sign other.key");
    install(&bench, "liar", &liar);
    bench.shell("cosign 3", "openssl ecparam -name prime256v1 -genkey -noout -out other.key").ok();
    let image = bench.image("liar").await;
    bench.sign(&image, "liar://slot/1").fails(4, &["does not verify with the key's public half"]);
    assert!(!bench.is_signed(&image).await);
}
