//! cosign's signatures under our eyes, both tools at one image, and tampering.

use crate::support::{Bench, Image, Key};
use bytes::Bytes;
use kubectl_build::registry::Digest;
use kubectl_build::sign::{Format, Formats, Manifest, Store as _};
use rstest::rstest;
use serde_json::Value;

/// How each generation signs without any service, in each format that it can write.
pub(crate) fn sign_lines(image: &Image) -> Vec<(&'static str, Format, String)> {
    let config = "printf %s '{\"mediaType\":\"application/vnd.dev.sigstore.signingconfig.v0.2+json\",\
                  \"rekorTlogConfig\":{},\"tsaConfig\":{}}' > sc.json && \
                  printf %s '{\"mediaType\":\"application/vnd.dev.sigstore.trustedroot+json;version=0.1\"}' > tr.json && ";
    vec![
        (
            "cosign 2",
            Format::Legacy,
            format!("cosign sign --key cosign.key --tlog-upload=false -y -a by=cosign {image}"),
        ),
        (
            "cosign 3",
            Format::Legacy,
            format!(
                "cosign sign --key cosign.key --new-bundle-format=false --use-signing-config=false \
                 --tlog-upload=false -y -a by=cosign {image}"
            ),
        ),
        (
            "cosign 3",
            Format::Bundle,
            format!(
                "{config}cosign sign --key cosign.key --signing-config sc.json --trusted-root tr.json -y \
                 -a by=cosign {image}"
            ),
        ),
    ]
}

/// Whether a signature of ours is accepted by that generation, by the plain line with an empty trusted root.
fn verify_line(generation: &str, image: &Image) -> String {
    let root = match generation {
        "cosign 2" => {
            "printf %s '{\"mediaType\":\"application/vnd.dev.sigstore.trustedroot+json;version=0.1\"}' > tr.json && "
        }
        _ => "",
    };
    let flag = if generation == "cosign 2" { " --trusted-root tr.json" } else { "" };
    format!("{root}cosign verify --key cosign.pub --insecure-ignore-tlog{flag} {image}")
}

/// Every key that cosign makes or imports opens here, and what cosign signs with it verifies here; but Ed25519,
/// which cosign signs pre-hashed, so that neither we nor `cosign verify` accept it.
#[rstest]
#[case(None)]
#[case(Some("p384-pkcs8"))]
#[case(Some("p521-sec1"))]
#[case(Some("rsa2048-pkcs1"))]
#[case(Some("rsa4096-pkcs8"))]
#[case(Some("ed25519-pkcs8"))]
#[tokio::test]
#[ignore = "needs the rig"]
async fn we_verify_what_cosign_signs(#[case] imported: Option<&str>) {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        let mut keys = std::collections::BTreeMap::new();
        for number in 0..3 {
            let image = bench.push_image(&format!("theirs{number}-{}", imported.unwrap_or("p256"))).await;
            let (generation, format, line) = sign_lines(&image).swap_remove(number);
            let key = keys.entry(generation).or_insert_with(|| Key::of_cosign(&bench, generation, imported));
            let prehashed = imported == Some("ed25519-pkcs8");
            if prehashed && format == Format::Bundle {
                bench.fail(generation, key, &line);
                continue;
            }
            bench.run(generation, key, &line);
            let verdict = bench.verify(&image, key.public(), &[("by", "cosign")]).await;
            let what = format!("{generation} {format} {imported:?} {}: {verdict:?}", bench.name);
            if prehashed {
                assert!(verdict.accepted.is_empty(), "{what}");
                bench.fail(generation, key, &verify_line(generation, &image));
                continue;
            }
            assert_eq!(
                verdict.accepted.iter().map(|found| found.format).collect::<Vec<_>>(),
                [format],
                "{what}"
            );
            assert_eq!(verdict.accepted[0].annotations["by"], "cosign", "{what}");
            let wanted = bench.verify(&image, key.public(), &[("by", "someone")]).await;
            assert!(wanted.accepted.is_empty(), "another annotation: {wanted:?}");
            let stranger = bench.verify(&image, Key::fixture("rsa3072-pkcs8").public(), &[]).await;
            assert!(stranger.accepted.is_empty(), "another key: {stranger:?}");
        }
    }
}

/// Both tools add to one image, in either order; nobody's signature is lost, and each verifies both.
#[rstest]
#[tokio::test]
#[ignore = "needs the rig"]
async fn cosign_and_we_share_an_image(#[values(true, false)] cosign_first: bool) {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for number in 0..3 {
            let image = bench.push_image(&format!("shared{number}-{cosign_first}")).await;
            let (generation, format, line) = sign_lines(&image).swap_remove(number);
            let (theirs, ours) = (Key::of_cosign(&bench, generation, None), Key::fixture("rsa2048-pkcs8"));
            let formats = if format == Format::Legacy { Formats::Legacy } else { Formats::Bundle };
            let before = match cosign_first {
                true => {
                    bench.run(generation, &theirs, &line);
                    parts(&bench, &image).await
                }
                false => {
                    bench.sign(&image, &ours, formats).await;
                    parts(&bench, &image).await
                }
            };
            match cosign_first {
                true => drop(bench.sign(&image, &ours, formats).await),
                false => drop(bench.run(generation, &theirs, &line)),
            }
            let after = parts(&bench, &image).await;
            assert_eq!((before.len(), after.len()), (1, 2), "{generation} {format} {}", bench.name);
            assert!(after.contains(&before[0]), "what was there first stays as it was: {after:?}");
            for key in [&theirs, &ours] {
                let verdict = bench.verify(&image, key.public(), &[]).await;
                assert_eq!((verdict.accepted.len(), verdict.refused.len()), (1, 1), "{verdict:?}");
                let reader = if format == Format::Bundle { "cosign 3" } else { generation };
                bench.run(reader, key, &verify_line(reader, &image));
            }
        }
    }
}

/// Returns the layers of the `.sig` image, or what refers to the image.
async fn parts(bench: &Bench, image: &Image) -> Vec<Value> {
    let read = async |tag: String, member: &str| {
        let found = bench.store.get_manifest(&image.repository, &tag).await.unwrap()?;
        let json: Value = serde_json::from_slice(&found.bytes).unwrap();
        json[member].as_array().cloned()
    };
    if let Some(layers) = read(format!("{}.sig", image.digest.tag()), "layers").await {
        return layers;
    }
    match bench.store.referrers(&image.repository, &image.digest).await.unwrap() {
        Some(listed) => listed.iter().map(|listed| Value::String(listed.digest.to_string())).collect(),
        None => read(image.digest.tag(), "manifests").await.unwrap(),
    }
}

/// A signature that cosign made with the same key isn't made once more, and the other way round for `.sig`
/// (cosign never looks for an earlier bundle).
#[tokio::test]
#[ignore = "needs the rig"]
async fn the_same_key_signs_once() {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for number in 0..3 {
            let image = bench.push_image(&format!("once{number}")).await;
            let (generation, format, line) = sign_lines(&image).swap_remove(number);
            let key = Key::of_cosign(&bench, generation, None);
            let formats = if format == Format::Legacy { Formats::Legacy } else { Formats::Bundle };
            bench.run(generation, &key, &line);
            let report = bench.sign_with(&image, &key, formats, &[("by", "cosign")]).await;
            assert!(report.subjects[0].signatures[0].reused, "{generation} {format}: {report:?}");
            assert_eq!(parts(&bench, &image).await.len(), 1);
        }
        for number in 0..2 {
            let image = bench.push_image(&format!("ours{number}")).await;
            let (generation, _, line) = sign_lines(&image).swap_remove(number);
            let key = Key::of_cosign(&bench, generation, None);
            bench.sign_with(&image, &key, Formats::Legacy, &[("by", "cosign")]).await;
            bench.run(generation, &key, &line);
            assert_eq!(parts(&bench, &image).await.len(), 1, "{generation} recognises ours");
        }
    }
}

/// Registries have no conditional write. What one of us overwrites, the other notices and writes again, unless
/// both act within the same few milliseconds; then signing again mends it.
#[tokio::test]
#[ignore = "needs the rig"]
async fn writers_at_the_same_time_notice_each_other() {
    let mut stood = 0;
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for round in 0..5 {
            let image = bench.push_image(&format!("race{round}")).await;
            let keys = ["p256-pkcs8", "p384-pkcs8", "ed25519-pkcs8"].map(Key::fixture);
            let [one, two, three] = &keys;
            tokio::join!(
                bench.sign(&image, one, Formats::Both),
                bench.sign(&image, two, Formats::Both),
                bench.sign(&image, three, Formats::Both),
            );
            for key in &keys {
                stood += bench.verify(&image, key.public(), &[]).await.accepted.len();
                bench.sign(&image, key, Formats::Both).await;
            }
            for key in &keys {
                let verdict = bench.verify(&image, key.public(), &[]).await;
                assert_eq!(verdict.accepted.len(), 2, "{} round {round}: {verdict:?}", bench.name);
            }
        }
    }
    // Blind writers would leave the bundles of the registry with the API and a third of all else: 30 of 60.
    assert!(stood >= 50, "only {stood} of 60 signatures stood at first");
}

/// A fallback entry that cosign wrote for a bundle of the same key is completed when we find it.
#[tokio::test]
#[ignore = "needs the rig"]
async fn the_fallback_index_is_complete() {
    let bench = Bench::without_referrers();
    let image = bench.push_image("fallback").await;
    let key = Key::of_cosign(&bench, "cosign 3", None);
    let (generation, _, line) = sign_lines(&image).swap_remove(2);
    bench.run(generation, &key, &line);
    bench.sign_with(&image, &key, Formats::Bundle, &[("by", "cosign")]).await;
    bench.sign(&image, &Key::fixture("p384-pkcs8"), Formats::Bundle).await;
    let entries = parts(&bench, &image).await;
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(entry["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
        assert_eq!(entry["annotations"]["dev.sigstore.bundle.content"], "dsse-envelope", "{entry}");
        let predicate = &entry["annotations"]["dev.sigstore.bundle.predicateType"];
        assert_eq!(predicate, "https://sigstore.dev/cosign/sign/v1");
    }
    bench.run("cosign 3", &key, &verify_line("cosign 3", &image));
}

/// What we sign along is what cosign can ask for.
#[tokio::test]
#[ignore = "needs the rig"]
async fn annotations_are_signed() {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for formats in [Formats::Legacy, Formats::Both] {
            let image = bench.push_image(&format!("annotated-{formats}")).await;
            let key = Key::fixture("p256-pkcs8");
            let annotations = [("z", "<&>"), ("env", "prod"), ("é", "ü \"quoted\"")];
            bench.sign_with(&image, &key, formats, &annotations).await;
            for generation in ["cosign 3", "cosign 2"] {
                let line = verify_line(generation, &image);
                bench.run(generation, &key, &format!("{line} -a env=prod -a 'z=<&>'"));
                // cosign 2.6 doesn't look at the annotations of bundles, its own included.
                if generation == "cosign 3" || formats == Formats::Legacy {
                    bench.fail(generation, &key, &format!("{line} -a env=dev"));
                }
            }
        }
    }
}

/// What someone with write access to the registry can do to a signature, and what becomes of it.
#[rstest]
#[tokio::test]
#[ignore = "needs the rig"]
async fn tampering_is_refused(#[values(Formats::Legacy, Formats::Bundle)] formats: Formats) {
    let key = Key::fixture("p256-pkcs8");
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        // Another image's signature under this image's digest, and the same with its content rewritten to name
        // this image.
        let good = bench.push_image("good").await;
        bench.sign(&good, &key, formats).await;
        for (number, content) in [kept as fn(String, &Image) -> String, rewritten].into_iter().enumerate() {
            let evil = bench.push_image(&format!("evil{number}-{formats}")).await;
            transplant(&bench, &good, &evil, formats, Change { content, signature: |bytes| bytes }).await;
            refused(&bench, &key, &evil).await;
        }
        // The right image and the right content, and one bit of the signature turned. A `.sig` tag names its
        // repository and can be written again; a bundle that is there stays there.
        for (number, signature) in [|bytes| bytes, turned as fn(Vec<u8>) -> Vec<u8>].into_iter().enumerate() {
            let image = match formats {
                Formats::Legacy => bench.push_image("good").await,
                _ => bench.push_image_to(&format!("twin{number}"), "good").await,
            };
            transplant(&bench, &good, &image, formats, Change { content: kept, signature }).await;
            if number == 0 {
                assert_eq!(
                    bench.verify(&image, key.public(), &[]).await.accepted.len(),
                    1,
                    "nothing was turned"
                );
                for generation in ["cosign 3", "cosign 2"] {
                    bench.run(generation, &key, &verify_line(generation, &image));
                }
            } else {
                refused(&bench, &key, &image).await;
            }
        }
        let good = bench.push_image("standing").await;
        bench.sign(&good, &key, formats).await;
        let other = Key::fixture("rsa2048-pkcs8");
        for generation in ["cosign 3", "cosign 2"] {
            // What nobody touched stands.
            bench.run(generation, &key, &verify_line(generation, &good));
            // With another key nothing passes.
            bench.fail(generation, &other, &verify_line(generation, &good));
        }
        assert!(bench.verify(&good, other.public(), &[]).await.accepted.is_empty());
    }
}

fn rewritten(content: String, evil: &Image) -> String {
    content.replace(&first_digest(&content), &evil.digest.hex())
}

fn kept(content: String, _: &Image) -> String {
    content
}

/// Turns a bit in the second number of an ECDSA signature.
fn turned(mut signature: Vec<u8>) -> Vec<u8> {
    let place = signature.len() * 3 / 4;
    signature[place] ^= 1;
    signature
}

/// Returns the first run of 64 hexadecimal digits.
fn first_digest(content: &str) -> String {
    let bytes = content.as_bytes();
    let start = (0..bytes.len().saturating_sub(64))
        .find(|start| bytes[*start..start + 64].iter().all(u8::is_ascii_hexdigit));
    start.map_or_else(|| "no digest".to_owned(), |start| content[start..start + 64].to_owned())
}

/// What is done to a signature on its way.
struct Change {
    /// To its payload or statement.
    content: fn(String, &Image) -> String,
    /// To its bytes.
    signature: fn(Vec<u8>) -> Vec<u8>,
}

/// Copies the signature of one image to the place of another's.
async fn transplant(bench: &Bench, from: &Image, to: &Image, formats: Formats, change: Change) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let (store, source, target) = (&bench.store, &from.repository, &to.repository);
    let reference = match formats {
        Formats::Legacy => format!("{}.sig", from.digest.tag()),
        _ => match store.referrers(source, &from.digest).await.unwrap() {
            Some(listed) => listed[0].digest.to_string(),
            None => {
                let index = store.get_manifest(source, &from.digest.tag()).await.unwrap().unwrap();
                let index: Value = serde_json::from_slice(&index.bytes).unwrap();
                index["manifests"][0]["digest"].as_str().unwrap().to_owned()
            }
        },
    };
    let manifest = store.get_manifest(source, &reference).await.unwrap().unwrap();
    let mut json: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let blob = async |descriptor: &Value| {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        store.get_blob(source, &digest, 1 << 20).await.unwrap()
    };
    store.put_blob(target, blob(&json["config"]).await).await.unwrap();
    let content = blob(&json["layers"][0]).await;
    let resigned = |text: &Value| -> Value {
        let bytes = engine.decode(text.as_str().unwrap()).unwrap();
        engine.encode((change.signature)(bytes)).into()
    };
    let mut changed = String::from_utf8(content.to_vec()).unwrap();
    if formats == Formats::Bundle {
        // The statement stands in the bundle in base64.
        let mut bundle: Value = serde_json::from_str(&changed).unwrap();
        let payload = engine.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
        let payload = (change.content)(String::from_utf8(payload).unwrap(), to);
        bundle["dsseEnvelope"]["payload"] = engine.encode(payload).into();
        let signature = &mut bundle["dsseEnvelope"]["signatures"][0]["sig"];
        *signature = resigned(signature);
        changed = bundle.to_string();
    } else {
        changed = (change.content)(changed, to);
        let signature = &mut json["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"];
        *signature = resigned(signature);
    }
    let digest = Digest::of(changed.as_bytes());
    json["layers"][0]["size"] = changed.len().into();
    json["layers"][0]["digest"] = digest.to_string().into();
    store.put_blob(target, Bytes::from(changed)).await.unwrap();
    if formats == Formats::Bundle {
        json["subject"]["digest"] = to.digest.to_string().into();
    }
    let bytes = Bytes::from(json.to_string());
    let pushed = Digest::of(&bytes);
    let at = match formats {
        Formats::Legacy => format!("{}.sig", to.digest.tag()),
        _ => pushed.to_string(),
    };
    let size = bytes.len();
    store
        .put_manifest(target, &at, Manifest { media_type: manifest.media_type.clone(), bytes })
        .await
        .unwrap();
    if formats == Formats::Bundle && store.referrers(target, &to.digest).await.unwrap().is_none() {
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"{}","digest":"{pushed}","size":{size},"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}}]}}"#,
            manifest.media_type
        );
        let index = Manifest {
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            bytes: index.into(),
        };
        store.put_manifest(target, &to.digest.tag(), index).await.unwrap();
    }
}

/// Both generations of cosign and we refuse, and not for want of a signature.
async fn refused(bench: &Bench, key: &Key, image: &Image) {
    let verdict = bench.verify(image, key.public(), &[]).await;
    assert!(verdict.accepted.is_empty(), "{verdict:?}");
    assert_eq!(verdict.refused.len(), 1, "there is something to refuse: {verdict:?}");
    for generation in ["cosign 3", "cosign 2"] {
        bench.fail(generation, key, &verify_line(generation, image));
    }
}
