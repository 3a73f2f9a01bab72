//! Which `cosign verify` accepts a signature of ours, line by line; pinned against real cosign by
//! `integration/interop.rs`.

use super::Formats;
use super::key::KeyKind;
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
    /// The kind of the key.
    pub kind: KeyKind,
    /// The formats that were written.
    pub formats: Formats,
    /// How to reach the registry.
    pub access: RegistryAccess,
}

/// What one generation of cosign makes of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignLine {
    /// The generation, such as `cosign 3`.
    pub cosign: &'static str,
    /// The command that accepts it, for a POSIX shell; or why none does.
    pub line: Result<String, &'static str>,
}

/// Returns what to run to verify the image, one entry for each generation of cosign.
pub fn verify_lines(of: &VerifyLines<'_>) -> Vec<CosignLine> {
    [("cosign 3", cosign3(of)), ("cosign 2", cosign2(of))]
        .map(|(cosign, flags)| CosignLine { cosign, line: flags.map(|flags| line(of, &flags)) })
        .into()
}

/// cosign 2.6 asks for a trusted root as soon as it sees a bundle, even where nothing is looked up in it.
const EMPTY_TRUSTED_ROOT: &str =
    r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;

struct Flags {
    trusted_root: bool,
    flags: &'static [&'static str],
}

fn cosign3(of: &VerifyLines<'_>) -> Result<Flags, &'static str> {
    let _ = of.kind;
    Ok(Flags { trusted_root: false, flags: &[] })
}

fn cosign2(of: &VerifyLines<'_>) -> Result<Flags, &'static str> {
    match of.formats {
        Formats::Legacy => Ok(Flags { trusted_root: false, flags: &[] }),
        Formats::Both => Ok(Flags { trusted_root: true, flags: &[] }),
        Formats::Bundle => Ok(Flags { trusted_root: true, flags: &["--new-bundle-format"] }),
    }
}

fn line(of: &VerifyLines<'_>, flags: &Flags) -> String {
    let mut words: Vec<String> = Vec::new();
    if flags.trusted_root {
        words.push(format!("printf %s '{EMPTY_TRUSTED_ROOT}' > trusted-root.json &&"));
    }
    if let Some(storage) = of.storage {
        words.push(format!("COSIGN_REPOSITORY={storage}"));
    }
    words.push(format!("cosign verify --key {} --insecure-ignore-tlog", quoted(of.key)));
    if flags.trusted_root {
        words.push("--trusted-root trusted-root.json".to_owned());
    }
    words.extend(flags.flags.iter().map(|flag| (*flag).to_owned()));
    if of.access.plain_http {
        words.push("--allow-http-registry".to_owned());
    }
    if of.access.insecure {
        words.push("--allow-insecure-registry".to_owned());
    }
    words.push(format!("{}@{}", of.repository, of.image));
    words.join(" ")
}

/// Quotes a word for a POSIX shell where it needs it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@=+,".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
