//! A `sigstore-kms-test` program, which cosign takes as well.

use crate::support::{Bench, PLUGIN, PLUGIN_KEYS};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the rig"]
async fn a_plugin_signs_for_us_and_verifies_for_cosign() {
    let bench = Bench::new(&[]);
    bench.shell("cosign 3", PLUGIN_KEYS).ok();
    let image = bench.image("plugin").await;
    let told = &["unknown key scheme `test://`", "no program `sigstore-kms-test` on PATH"];
    bench.sign(&image, "test://slot/1").fails(2, told);
    bench.plugin("test", PLUGIN);
    bench.sign(&image, "test://slot/2").fails(1, &["`sigstore-kms-test` says: no such slot"]);
    bench.sign(&image, "test://slot/1").ok();
    bench.accept(&image, "plugin.pub");
    bench.accept(&image, "test://slot/1");

    bench.plugin("mute", "#!/bin/sh\necho 'cannot open the device' >&2\nexit 3\n");
    bench.sign(&image, "mute://1").fails(1, &["did not answer in JSON", "cannot open the device"]);
    let liar = PLUGIN.replace("-sign plugin.key", "-sign other.key");
    bench.plugin("liar", &liar);
    bench.shell("cosign 3", "openssl ecparam -name prime256v1 -genkey -noout -out other.key").ok();
    let image = bench.image("liar").await;
    bench.sign(&image, "liar://slot/1").fails(4, &["does not verify with the key's public half"]);
    assert!(!bench.is_signed(&image).await);
}
