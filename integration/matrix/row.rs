//! One row: an index is signed once, in registries with and without the referrers API, and every verifier looks at
//! it by every name that it has there.

use crate::registries::Registry;
use crate::support::{Bench, Ran, client, push_image};
use kubectl_build::registry::{Descriptor, Repository};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// What comes of signing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Every verifier accepts every name of it.
    Accepted,
    /// It is refused before anything is written, in these words.
    Refused(&'static [&'static str]),
}

/// Who signs, and somebody else.
pub(crate) struct Signer {
    /// The flags that name the signer.
    pub(crate) flags: Vec<String>,
    /// The flags by which a verifier asks for somebody else.
    pub(crate) stranger: Vec<String>,
}

/// Signs an index of two platforms in this format, `log` naming the log and the clock, if any, and looks at what
/// comes of it.
pub(crate) async fn check(bench: &Bench, signer: &Signer, format: &str, log: &[String], outcome: Outcome) {
    // An image of its own each time: the log keeps what earlier runs signed.
    let name = format!("{:?}", SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
    let registries = [bench.registry(), &Registry::without_referrers()];
    let [one, two] = registries.map(|registry| Index::push(&registry.host, &name));
    let indexes = [one.await, two.await];
    let mut sign = vec!["sign", "--progress", "plain", "--signature-format", format];
    sign.extend(signer.flags.iter().chain(log).map(String::as_str));
    for index in &indexes {
        sign.extend([&index.digest, "--tag", &index.tag]);
    }
    let signed = bench.tool(&sign);
    let names: Vec<&str> = indexes.iter().flat_map(Index::names).collect();
    if let Outcome::Refused(words) = outcome {
        signed.fails(2, words);
        for name in names.iter().filter(|name| name.contains('@')) {
            assert!(!bench.is_signed(name).await, "{name} is signed");
        }
        return;
    }
    let signed = signed.ok();
    // Signing again adds nothing, except for identities: their certificates are new each time.
    if signer.flags[0] == "--cosign-key" {
        bench.tool(&sign).ok().adds_nothing();
    }
    // The line as it is printed, for all names at once.
    let line = |generation: &str| {
        let lines =
            signed.stderr.lines().filter_map(|line| line.strip_prefix("verify with ")?.split_once(": "));
        let mut lines = lines.filter(|(of, line)| *of == generation && line.ends_with(&indexes[0].digest));
        let line = lines.next().unwrap_or_else(|| panic!("no line for {generation}:\n{}", signed.stderr)).1;
        line.replace(&indexes[0].digest, &names.join(" "))
    };
    // We ask no log for a key's signature unless told to.
    let by_logged_key = !log.is_empty() && line("cosign 3").contains(" --key ");
    let flags = if by_logged_key { " --insecure-ignore-tlog=false" } else { "" };
    let own = line("cosign 3").replace("cosign verify", &format!("kubectl-buildkit verify{flags}"));
    // We need not be told, nor have cosign beside us.
    let own = own
        .replace(" --signature-digest-algorithm sha384", "")
        .replace(" --signature-digest-algorithm sha512", "")
        .replace("cosign public-key --key", "kubectl-buildkit key public");
    let runs = [("cosign 2", line("cosign 2")), ("cosign 3", line("cosign 3")), ("kubectl-buildkit", own)];
    // All at the same time: each of them waits and computes by turns.
    let running = runs.each_ref().map(|(verifier, line)| {
        let mut command = bench.shell_command(verifier, line);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell")
    });
    let meant: Vec<String> = indexes.iter().flat_map(Index::meant).collect();
    for ((verifier, line), child) in runs.iter().zip(running) {
        let ran = Ran::of_output(&child.wait_with_output().expect("our child"));
        assert_eq!(ran.code, Some(0), "{verifier} refuses: {line}\n{}", ran.stderr);
        assert_eq!(said_of(&ran.stdout), meant, "{verifier}: {line}\n{}", ran.stdout);
    }
    // Logs that nobody trusts say nothing.
    if by_logged_key {
        let root =
            concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/signing/trusted-root-local.json");
        let key = ["--key", &signer.flags[1], "--insecure-ignore-tlog=false", "--trusted-root", root];
        bench.tool(&[&["verify"], &key[..], &[&indexes[0].digest]].concat()).fails(12, &[]);
    }
    let stranger = signer.stranger.iter().map(String::as_str);
    bench.tool(&["verify"].into_iter().chain(stranger).chain(names).collect::<Vec<_>>()).fails(12, &[]);
}

/// Returns which images the printed arrays are about, one for each name that the verifier was given.
fn said_of(stdout: &str) -> Vec<String> {
    let arrays = serde_json::Deserializer::from_str(stdout).into_iter::<Vec<serde_json::Value>>();
    let of = |array: Vec<serde_json::Value>| {
        let digest =
            |entry: &serde_json::Value| entry["critical"]["image"]["docker-manifest-digest"].to_string();
        let mut digests: Vec<String> = array.iter().map(digest).collect();
        digests.dedup();
        digests.join(" and ").replace('"', "")
    };
    arrays.map(|array| of(array.expect("an array"))).collect()
}

/// An index of two platforms that nobody has signed, under no tag.
struct Index {
    /// `REPOSITORY:TAG`, for a tag that is not there yet.
    tag: String,
    /// `REPOSITORY@DIGEST`.
    digest: String,
    platforms: [String; 2],
}

impl Index {
    async fn push(host: &str, name: &str) -> Self {
        let (client, repository) = (client(), format!("{host}/matrix").parse::<Repository>().unwrap());
        let amd64 = push_image(&client, &repository, &format!("amd64 {name}")).await;
        let arm64 = push_image(&client, &repository, &format!("arm64 {name}")).await;
        let entry = |architecture: &str, image: &Descriptor| {
            let mut entry = serde_json::to_value(image).unwrap();
            entry["platform"] = serde_json::json!({ "architecture": architecture, "os": "linux" });
            entry
        };
        let entries = [entry("amd64", &amd64), entry("arm64", &arm64)];
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries })
            .to_string();
        let digest = Descriptor::of(INDEX_TYPE, index.as_bytes()).digest;
        client.put_manifest(&repository, &digest.to_string(), INDEX_TYPE, index.into()).await.unwrap();
        let platforms = [amd64, arm64].map(|image| format!("{repository}@{}", image.digest));
        Self { tag: format!("{repository}:v"), digest: format!("{repository}@{digest}"), platforms }
    }

    /// Returns how it and its platforms are named.
    fn names(&self) -> [&str; 4] {
        let [one, two] = &self.platforms;
        [&self.tag, &self.digest, one, two]
    }

    /// Returns the digest that each of the names means.
    fn meant(&self) -> [String; 4] {
        let [one, two] = &self.platforms;
        [&self.digest, &self.digest, one, two].map(|name| name.split_once('@').unwrap().1.to_owned())
    }
}
