//! Which `cosign verify` accepts a signature of ours, line by line; pinned against real cosign by
//! `integration/interop.rs`.

use super::{Format, Formats};
use crate::registry::{Digest, Repository};

/// How cosign reaches a registry, where it isn't over HTTPS with a known certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// The registry speaks plain HTTP.
    pub plain_http: bool,
    /// The registry's certificate isn't checked, or is signed by an authority that cosign doesn't know.
    pub insecure: bool,
}

/// What a line to verify with is made of.
#[derive(Clone, Copy, Debug)]
pub struct VerifyLines<'a> {
    /// Where the image is.
    pub repository: &'a Repository,
    /// Which image.
    pub image: &'a Digest,
    /// Where the signatures are, if elsewhere.
    pub storage: Option<&'a Repository>,
    /// What the verifier passes to `--key`; see [`KeyReference::public_reference`](super::key::KeyReference).
    pub key: &'a str,
    /// The formats that were written.
    pub formats: Formats,
    /// How to reach the registry.
    pub access: RegistryAccess,
}

/// A command that accepts the signature, for one generation of cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignLine {
    /// The generation, such as `cosign 3`.
    pub cosign: &'static str,
    /// The command, for a POSIX shell.
    pub line: String,
}

/// Returns what to run to verify the image, one line for each generation of cosign.
///
/// The kind of the key makes no difference: we sign what `cosign verify --key` assumes when it isn't told
/// otherwise.
pub fn verify_lines(of: &VerifyLines<'_>) -> Vec<CosignLine> {
    let root = format!("printf %s '{EMPTY_TRUSTED_ROOT}' > trusted-root.json && ");
    let (before, flags) = match of.formats.has(Format::Bundle) {
        true => (root.as_str(), " --trusted-root trusted-root.json"),
        false => ("", ""),
    };
    vec![
        CosignLine { cosign: "cosign 3", line: line(of, "", "") },
        CosignLine { cosign: "cosign 2", line: line(of, before, flags) },
    ]
}

/// cosign 2.6 asks for a trusted root as soon as it sees a bundle, even where nothing is looked up in it.
const EMPTY_TRUSTED_ROOT: &str =
    r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;

fn line(of: &VerifyLines<'_>, before: &str, flags: &str) -> String {
    let storage = of.storage.map(|storage| format!("COSIGN_REPOSITORY={storage} ")).unwrap_or_default();
    let http = if of.access.plain_http { " --allow-http-registry" } else { "" };
    let insecure = if of.access.insecure { " --allow-insecure-registry" } else { "" };
    let (key, repository, image) = (quoted(of.key), of.repository, of.image);
    format!(
        "{before}{storage}cosign verify --key {key} --insecure-ignore-tlog{flags}{http}{insecure} {repository}@{image}"
    )
}

/// Quotes a word for a POSIX shell where it needs it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@=+,".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(change: impl FnOnce(&mut VerifyLines<'_>)) -> Vec<String> {
        let (repository, image) = ("app".parse().unwrap(), Digest::of(b""));
        let access = RegistryAccess::default();
        let key = "cosign.pub";
        let mut of = VerifyLines {
            repository: &repository,
            image: &image,
            storage: None,
            key,
            formats: Formats::Both,
            access,
        };
        change(&mut of);
        let short = |line: CosignLine| line.line.replace(&image.to_string(), "DIGEST");
        verify_lines(&of).into_iter().map(short).collect()
    }

    #[test]
    fn each_generation_has_its_line() {
        let plain = "cosign verify --key cosign.pub --insecure-ignore-tlog docker.io/library/app@DIGEST";
        assert_eq!(lines(|of| of.formats = Formats::Legacy), [plain, plain]);
        let [three, two] = &lines(|_| ())[..] else { panic!("two generations") };
        assert_eq!(three, plain);
        assert_eq!(
            *two,
            format!("printf %s '{EMPTY_TRUSTED_ROOT}' > trusted-root.json && {plain}")
                .replace("tlog ", "tlog --trusted-root trusted-root.json ")
        );
        assert_eq!(lines(|of| of.formats = Formats::Bundle), lines(|_| ()));
    }

    #[test]
    fn what_is_special_shows() {
        let access = RegistryAccess { plain_http: true, insecure: true };
        let line = &lines(|of| (of.key, of.access) = ("it's.pub", access))[0];
        let expected =
            r"--key 'it'\''s.pub' --insecure-ignore-tlog --allow-http-registry --allow-insecure-registry ";
        assert!(line.contains(expected), "{line}");
        let storage = "ghcr.io/team/signatures".parse().unwrap();
        let (repository, image) = ("app".parse().unwrap(), Digest::of(b""));
        let of = VerifyLines {
            repository: &repository,
            image: &image,
            storage: Some(&storage),
            key: "cosign.pub",
            formats: Formats::Both,
            access: RegistryAccess::default(),
        };
        for CosignLine { line, .. } in verify_lines(&of) {
            assert!(line.contains("COSIGN_REPOSITORY=ghcr.io/team/signatures cosign verify"), "{line}");
        }
    }
}
