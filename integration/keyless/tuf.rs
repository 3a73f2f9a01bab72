//! A TUF repository says who is trusted: a real one, made by python-tuf, served on loopback.

use crate::bench::{Bench, Image};
use crate::front::request;
use crate::rig::text;
use crate::tool::{Ran, run};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A repository and the server of its files.
struct Repository {
    bench: Bench,
    folder: PathBuf,
    mirror: String,
    up: Arc<AtomicBool>,
    /// How many connections were made.
    asked: Arc<AtomicUsize>,
}

impl Repository {
    fn new() -> Self {
        let bench = Bench::new("default", "REGISTRY");
        let folder = bench.tool.home().join("tuf");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mirror = format!("http://{}", listener.local_addr().expect("an address"));
        let up = Arc::new(AtomicBool::new(true));
        let (files, serves) = (folder.clone(), Arc::clone(&up));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let Some((head, _)) = request(&mut client).filter(|_| serves.load(Ordering::Relaxed)) else {
                    continue;
                };
                let path = head.split(' ').nth(1).expect("a path").trim_start_matches('/');
                let file = std::fs::read(files.join(path));
                let (status, body) = file.map_or((404, Vec::new()), |body| (200, body));
                let _gone = write!(
                    client,
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                )
                .and_then(|()| client.write_all(&body));
            }
        });
        Self { bench, folder, mirror, up, asked }
    }

    /// Publishes a version.
    fn publish(&self, root: &str, version: u32, more: &[&str]) {
        let mut command = self.bench.rig.command(self.bench.rig.peer("tuf-repository"));
        command.arg(&self.folder).arg(root).args(["--version", &version.to_string()]).args(more);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Verifies an image by whom the repository trusts.
    fn verify(&self, image: &Image) -> Ran {
        self.verify_with(image, &[])
    }

    fn verify_with(&self, image: &Image, more: &[&str]) -> Ran {
        let subject = "https://kubernetes.io/namespaces/default/serviceaccounts/default";
        let asked = [
            "verify",
            "--registry-http",
            self.bench.host(),
            "--certificate-identity",
            subject,
            "--certificate-oidc-issuer",
            self.bench.services.get("OIDC_ISSUER"),
            "--insecure-ignore-sct",
            &image.reference,
        ];
        let mut command = self.bench.tool.command("kubectl-buildkit", &asked);
        command
            .args(more)
            .env("TUF_MIRROR", &self.mirror)
            .env("TUF_ROOT_JSON", self.folder.join("1.root.json"));
        run(command)
    }

    fn sign(&self, image: &Image) -> Ran {
        let mut command = self.bench.sign(image, &[], &["--service-account", "default"]);
        command.env("TUF_MIRROR", &self.mirror).env("TUF_ROOT_JSON", self.folder.join("1.root.json"));
        run(command)
    }
}

#[test]
#[ignore = "needs the rig"]
fn a_repository_says_who_is_trusted_and_which_services_there_are() {
    let repository = Repository::new();
    let Repository { bench, mirror, up, folder, asked } = &repository;
    let (ours, config) = (bench.services.get("TRUSTED_ROOT"), bench.services.get("SIGNING_CONFIG"));
    repository.publish(bench.services.get("EMULATOR_ROOT"), 1, &["--config", config]);
    let image = bench.image();
    // The services are known, and it trusts others: nothing of that is written.
    repository.sign(&image).fails(4, &["would not verify", "`--trusted-root` is of other services"]);
    repository.publish(ours, 2, &["--config", config, "--rotate"]);
    let signed = repository.sign(&image);
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    let found = repository.verify(&image);
    assert!(found.code == 0 && !found.stderr.contains("TUF"), "{}", found.stderr);

    // Who is to ask nobody takes what was fetched.
    let before = asked.load(Ordering::Relaxed);
    let found = repository.verify_with(&image, &["--offline"]);
    let told = "nobody is asked for a newer one: the trust root that was fetched before is used";
    assert!(found.code == 0 && found.stderr.contains(told), "{}", found.stderr);
    assert_eq!(asked.load(Ordering::Relaxed), before);

    // While nobody is there, what was fetched does.
    up.store(false, Ordering::Relaxed);
    let found = repository.verify(&image);
    let told = [mirror.as_str(), "that was fetched before is used"];
    assert!(found.code == 0 && told.iter().all(|told| found.stderr.contains(told)), "{}", found.stderr);
    assert_eq!(found.stderr.matches("the TUF repository").count(), 1, "{}", found.stderr);
    std::fs::rename(bench.tool.home().join(".sigstore"), bench.tool.home().join("kept")).expect("a cache");
    let hint = ["cannot be reached", "no earlier copy", "--trusted-root FILE"];
    repository.verify(&image).fails(1, &hint);
    repository.verify_with(&image, &["--offline"]).fails(1, &["was kept here", "without `--offline`"]);
    std::fs::remove_dir_all(bench.tool.home().join(".sigstore")).expect("a cache");
    std::fs::rename(bench.tool.home().join("kept"), bench.tool.home().join(".sigstore")).expect("a cache");
    up.store(true, Ordering::Relaxed);

    // What is served and wrong is refused, whatever was fetched before.
    let refused = |why: &str| {
        repository.verify(&image).fails(1, &[mirror, "is not to be trusted", why, "hint: "]);
    };
    repository.publish(ours, 1, &["--config", config]);
    refused("rollback");
    repository.publish(ours, 3, &["--config", config, "--days=-1"]);
    refused("expired");
    repository.publish(ours, 3, &["--config", config]);
    let timestamp = std::fs::read_to_string(folder.join("timestamp.json")).expect("metadata");
    std::fs::write(folder.join("timestamp.json"), timestamp.replace("\"version\":3", "\"version\":4"))
        .expect("a file");
    refused("signature threshold not met");
    std::fs::write(folder.join("timestamp.json"), timestamp).expect("a file");
    repository.verify(&image).ok();
    // Another repository under the same name, whose keys nobody knows.
    std::fs::remove_file(folder.with_extension("key")).expect("a key");
    repository.publish(ours, 4, &["--config", config]);
    refused("signature threshold not met");
}

/// What `cosign initialize` left is enough.
#[test]
#[ignore = "needs the rig"]
fn what_cosign_initialize_left_says_where_trust_comes_from() {
    let repository = Repository::new();
    let bench = &repository.bench;
    let config = bench.services.get("SIGNING_CONFIG");
    repository.publish(bench.services.get("TRUSTED_ROOT"), 1, &["--config", config]);
    let mut cosign = bench.rig.command(bench.rig.peer("cosign"));
    let root = repository.folder.join("1.root.json");
    cosign.args(["initialize", "--mirror", &repository.mirror, "--root"]).arg(&root);
    cosign.current_dir(bench.tool.home()).env("HOME", bench.tool.home());
    let output = cosign.output().expect("cosign runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let image = bench.image();
    let signed = run(bench.sign(&image, &[], &["--service-account", "default"]));
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    repository.verify(&image).ok();
    // A mirror alone is nobody to begin with.
    let mut command = bench.sign(&image, &[], &["--service-account", "default"]);
    command.env("TUF_MIRROR", "http://127.0.0.1:9/other");
    run(command).fails(2, &["TUF_MIRROR", "TUF_ROOT_JSON"]);
}

/// Without a network the public instance is trusted as it was when this program was made, after a short while.
#[test]
#[ignore = "needs the rig"]
fn without_a_network_what_is_built_in_is_trusted() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let (key, public) = bench.tool.key_pair("k", "");
    let mut command = bench.sign(&image, &[], &["--cosign-key", key.to_str().expect("UTF-8")]);
    command.env("COSIGN_PASSWORD", "");
    run(command).ok();
    let asked = ["verify", "--registry-http", bench.host(), "--key", public.to_str().expect("UTF-8")];
    let started = Instant::now();
    let ran =
        bench.tool.buildkit(&[&asked[..], &["--insecure-ignore-tlog=false", &image.reference]].concat());
    ran.fails(
        12,
        &[
            "https://tuf-repo-cdn.sigstore.dev",
            "built into this program is used",
            "no transparency log has it",
        ],
    );
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}
