//! A registry with a client, and cosign in a folder of its own.

use crate::peers::peer;
use crate::registries::Registry;
use async_trait::async_trait;
use bytes::Bytes;
use kubectl_build::event::Events;
use kubectl_build::registry::credentials::Resolver;
use kubectl_build::registry::{self, Client, Descriptor, Digest, Kind, Options, RegistryError, Repository};
use kubectl_build::sign::key::{KeyFile, PublicKey};
use kubectl_build::sign::{
    ATTESTATION_LIMIT, Formats, KeySigner, Manifest, SignOptions, SignReport, Signer, Store, StoreError,
    Verdict, VerifyRequest, Wanted, sign_image, verify_image,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) host: String,
    pub(crate) store: ClientStore,
    _registry: Registry,
}

/// A manifest that was pushed by digest.
pub(crate) struct Image {
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
    descriptor: Descriptor,
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.repository, self.digest)
    }
}

/// A key pair in a folder, as `cosign.key` (encrypted by cosign) or a plain one, and `cosign.pub`.
pub(crate) struct Key {
    pub(crate) folder: TempDir,
    pub(crate) signer: Box<dyn Signer>,
}

impl Key {
    /// Returns a plain key of the fixtures.
    pub(crate) fn fixture(name: &str) -> Self {
        let path = format!("{}/integration/fixtures/signing/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        let KeyFile::Plain(key) = KeyFile::parse(&std::fs::read(path).unwrap()).unwrap() else {
            panic!("{name} is a plain key")
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cosign.pub"), key.public().to_pem()).unwrap();
        Self { folder, signer: Box::new(KeySigner::new(name, key)) }
    }

    /// Returns a key pair that cosign made or imported, so that its private half is `cosign.key`, encrypted with
    /// the password `secret`.
    pub(crate) fn of_cosign(bench: &Bench, generation: &str, imported: Option<&str>) -> Self {
        let key = Self::fixture(imported.unwrap_or("p256-pkcs8"));
        std::fs::remove_file(key.path().join("cosign.pub")).unwrap();
        let line = match imported {
            None => "cosign generate-key-pair".to_owned(),
            Some(name) => {
                let pem =
                    format!("{}/integration/fixtures/signing/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
                format!("cosign import-key-pair --key {pem} --output-key-prefix cosign")
            }
        };
        bench.run(generation, &key, &line);
        let pem = std::fs::read(key.path().join("cosign.key")).unwrap();
        let KeyFile::Encrypted(encrypted) = KeyFile::parse(&pem).unwrap() else { panic!("cosign encrypts") };
        let opened = encrypted.decrypt(&"secret".into()).unwrap();
        assert_eq!(
            opened.public().to_pem(),
            std::fs::read_to_string(key.path().join("cosign.pub")).unwrap(),
            "the public half that cosign wrote"
        );
        Self { signer: Box::new(KeySigner::new("cosign.key", opened)), ..key }
    }

    pub(crate) fn public(&self) -> &PublicKey {
        self.signer.public_key().expect("keys of files are long-lived")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Bench {
    pub(crate) fn with_referrers() -> Self {
        Self::over("with the referrers API", Registry::with_referrers())
    }

    pub(crate) fn without_referrers() -> Self {
        Self::over("without the referrers API", Registry::without_referrers())
    }

    fn over(name: &'static str, registry: Registry) -> Self {
        let client = Client::new(Options::new(Arc::new(Resolver::anonymous()))).unwrap();
        Self { name, host: registry.host.clone(), store: ClientStore(client), _registry: registry }
    }

    /// Pushes an image without layers; the name makes its digest its own.
    pub(crate) async fn push_image(&self, name: &str) -> Image {
        self.push_image_to(name, name).await
    }

    /// Pushes the image of this name to another repository.
    pub(crate) async fn push_image_to(&self, place: &str, name: &str) -> Image {
        let repository: Repository =
            format!("{}/interop/{}", self.host, place.replace('_', "-")).parse().unwrap();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","author":"{name}","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[]}}"#,
            Digest::of(config.as_bytes()),
            config.len()
        );
        let descriptor = Descriptor::of(MANIFEST_TYPE, manifest.as_bytes());
        let digest = descriptor.digest;
        self.store.put_blob(&repository, config.into()).await.unwrap();
        let manifest = Manifest { media_type: MANIFEST_TYPE.to_owned(), bytes: manifest.into() };
        self.store.put_manifest(&repository, &digest.to_string(), manifest).await.unwrap();
        Image { repository, digest, descriptor }
    }

    /// Pushes an index of one image, under the tag `v` too.
    pub(crate) async fn push_index(&self, name: &str) -> Image {
        let Image { repository, descriptor, .. } = self.push_image(name).await;
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{{"mediaType":"{MANIFEST_TYPE}","digest":"{}","size":{},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
            descriptor.digest, descriptor.size
        );
        let descriptor = Descriptor::of(INDEX_TYPE, index.as_bytes());
        let digest = descriptor.digest;
        for place in [digest.to_string(), "v".to_owned()] {
            let manifest = Manifest { media_type: INDEX_TYPE.to_owned(), bytes: index.clone().into() };
            self.store.put_manifest(&repository, &place, manifest).await.unwrap();
        }
        Image { repository, digest, descriptor }
    }

    pub(crate) async fn sign(&self, image: &Image, key: &Key, formats: Formats) -> SignReport {
        self.sign_with(image, key, formats, &[]).await
    }

    pub(crate) async fn sign_with(
        &self,
        image: &Image,
        key: &Key,
        formats: Formats,
        annotations: &[(&str, &str)],
    ) -> SignReport {
        let options = SignOptions { annotations: map(annotations), ..SignOptions::default() };
        let request = options.request(image.repository.clone(), image.descriptor.clone(), formats);
        sign_image(&self.store, std::slice::from_ref(&key.signer), &request, &Events::off()).await.unwrap()
    }

    pub(crate) async fn verify(
        &self,
        image: &Image,
        key: &PublicKey,
        annotations: &[(&str, &str)],
    ) -> Verdict {
        let request = VerifyRequest {
            storage: image.repository.clone(),
            image: image.digest,
            wanted: Wanted::Signature,
            docker_reference: Some(image.repository.signing_name()),
            annotations: map(annotations),
            formats: Formats::Both,
            largest_attestation: ATTESTATION_LIMIT,
        };
        verify_image(&self.store, key, &request).await.unwrap()
    }

    /// Runs a shell line in the key's folder, where `cosign` is the one of this generation.
    pub(crate) fn shell(&self, generation: &str, key: &Key, line: &str) -> Output {
        let binary = match generation {
            "cosign 3" => peer("cosign"),
            "cosign 2" => peer("cosign2"),
            other => panic!("no peer {other}"),
        };
        let bin = key.path().join(generation.replace(' ', ""));
        if !bin.exists() {
            std::fs::create_dir(&bin).unwrap();
            std::os::unix::fs::symlink(binary, bin.join("cosign")).unwrap();
        }
        // Without a home there is no cache of trusted roots, and the proxy makes every look-up elsewhere fail
        // at once: what passes here passes offline.
        Command::new("timeout")
            .args(["60", "sh", "-c", line])
            .current_dir(key.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("HOME", key.path())
            .env("COSIGN_PASSWORD", "secret")
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .output()
            .unwrap()
    }

    /// Runs a verb of the binary under test in the key's folder, as [`shell`](Self::shell) does with cosign.
    pub(crate) fn tool(&self, key: &Key, arguments: &[&str]) -> Output {
        let link = key.path().join("kubectl-buildkit");
        if !link.exists() {
            #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
            let binary = std::env::var_os("KUBECTL_BUILD_BIN")
                .unwrap_or_else(|| env!("CARGO_BIN_EXE_kubectl-build").into());
            std::os::unix::fs::symlink(binary, &link).unwrap();
        }
        let public = std::fs::read_to_string(key.path().join("cosign.pub")).unwrap_or_default();
        // Without a terminal: a password that is asked for is one that is missing.
        Command::new("setsid")
            .args(["--wait", "timeout", "60"])
            .arg(link)
            .args(arguments)
            .current_dir(key.path())
            .env_clear()
            .env("HOME", key.path())
            .env("COSIGN_PASSWORD", "secret")
            .env("PUBLIC", public)
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// As [`shell`](Self::shell) for a line that must pass.
    pub(crate) fn run(&self, generation: &str, key: &Key, line: &str) -> String {
        let output = self.shell(generation, key, line);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{generation} ({}): {line}\n{stderr}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`shell`](Self::shell) for a line that must fail; returns what it said.
    pub(crate) fn fail(&self, generation: &str, key: &Key, line: &str) -> String {
        let output = self.shell(generation, key, line);
        assert!(!output.status.success(), "{generation} ({}) accepted: {line}", self.name);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Our registry client as a store of signatures.
pub(crate) struct ClientStore(pub(crate) registry::Client);

fn failed(error: RegistryError) -> StoreError {
    match error.kind() {
        Kind::TagImmutable => StoreError::TagImmutable(Box::new(error)),
        _ => StoreError::Other(Box::new(error)),
    }
}

#[async_trait]
impl Store for ClientStore {
    async fn get_manifest(&self, at: &Repository, reference: &str) -> Result<Option<Manifest>, StoreError> {
        let found = self.0.get_manifest(at, reference).await.map_err(failed)?;
        Ok(found.map(|found| Manifest { media_type: found.descriptor.media_type, bytes: found.bytes }))
    }

    async fn put_manifest(
        &self,
        at: &Repository,
        reference: &str,
        manifest: Manifest,
    ) -> Result<(), StoreError> {
        let put = self.0.put_manifest(at, reference, &manifest.media_type, manifest.bytes).await;
        put.map(drop).map_err(failed)
    }

    async fn get_blob(&self, at: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        let found = self.0.get_blob(at, digest, limit as u64).await.map_err(failed)?;
        found.ok_or_else(|| StoreError::Other(format!("{at} has no blob {digest}").into()))
    }

    async fn put_blob(&self, at: &Repository, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put_blob(at, bytes).await.map(drop).map_err(failed)
    }

    async fn referrers(
        &self,
        at: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        self.0.referrers(at, subject).await.map_err(failed)
    }
}
