//! Which `cosign verify` accepts a signature of ours, line by line; pinned against real cosign by
//! `integration/interop.rs`.

use super::evidence::Certified;
use super::{Format, Formats};
use crate::registry::{Digest, Repository};
use std::collections::BTreeMap;

/// How cosign reaches a registry, where it isn't over HTTPS with a known certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryAccess<'a> {
    /// The registry speaks plain HTTP.
    pub plain_http: bool,
    /// The registry's certificate isn't checked, or is signed by an authority that cosign doesn't know.
    pub insecure: bool,
    /// The file of that authority, where there is one: it is checked then.
    pub ca_file: Option<&'a str>,
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
    /// Whose signature it is.
    pub by: SignedBy<'a>,
    /// The formats that were written.
    pub formats: Formats,
    /// How to reach the registry.
    pub access: RegistryAccess<'a>,
    /// What was signed along.
    pub annotations: &'a BTreeMap<String, String>,
    /// The hash that was signed over, if it is another than `cosign verify` assumes, by cosign's name for it.
    pub hash: Option<&'a str>,
}

/// Whose signature a verifier looks for.
#[derive(Clone, Copy, Debug)]
pub enum SignedBy<'a> {
    /// A key's that no log has; what the verifier passes to `--key`, see
    /// [`KeyReference::public_reference`](super::key::KeyReference).
    Key(&'a str),
    /// A key's that a log has.
    LoggedKey {
        /// What the verifier passes to `--key`.
        key: &'a str,
        /// The file with the log's key; `None` for the public log.
        trusted_root: Option<&'a str>,
    },
    /// An identity's.
    Identity {
        /// What its certificate says.
        certified: &'a Certified,
        /// The file with authorities and logs; `None` for the public instance.
        trusted_root: Option<&'a str>,
    },
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
/// otherwise, or tell it.
pub fn verify_lines(of: &VerifyLines<'_>) -> Vec<CosignLine> {
    let root =
        |file: Option<&str>| file.map(|file| format!(" --trusted-root {}", quoted(file))).unwrap_or_default();
    let both = |flags: &str| {
        let line = line(of, "", flags);
        vec![CosignLine { cosign: "cosign 3", line: line.clone() }, CosignLine { cosign: "cosign 2", line }]
    };
    let mut lines = match of.by {
        SignedBy::LoggedKey { key, trusted_root } => {
            both(&format!("--key {}{}", quoted(key), root(trusted_root)))
        }
        SignedBy::Identity { certified: Certified { identity, by_clock }, trusted_root } => {
            let name = |name: &Option<String>| quoted(name.as_deref().unwrap_or_default());
            let (subject, issuer) = (name(&identity.subject), name(&identity.issuer));
            // A private authority need not log certificates, and cosign has to be told.
            let unlogged = if identity.is_logged { "" } else { " --insecure-ignore-sct" };
            let root = root(trusted_root);
            let flags = format!(
                "--certificate-identity {subject} --certificate-oidc-issuer {issuer}{root}{unlogged}"
            );
            // cosign 2 looks for the log's time unless it is told of another.
            let clock = if *by_clock { " --use-signed-timestamps" } else { "" };
            vec![
                CosignLine { cosign: "cosign 3", line: line(of, "", &flags) },
                CosignLine { cosign: "cosign 2", line: line(of, "", &format!("{flags}{clock}")) },
            ]
        }
        SignedBy::Key(key) => {
            let flags = format!("--key {} --insecure-ignore-tlog", quoted(key));
            let three = CosignLine { cosign: "cosign 3", line: line(of, "", &flags) };
            let line = match of.formats.has(Format::Bundle) {
                true => {
                    let before = format!("printf %s '{EMPTY_TRUSTED_ROOT}' > trusted-root.json && ");
                    line(of, &before, &format!("{flags}{}", root(Some("trusted-root.json"))))
                }
                false => line(of, "", &flags),
            };
            vec![three, CosignLine { cosign: "cosign 2", line }]
        }
    };
    // cosign 2.6 looks for bundles beside the image alone.
    let in_vain = of.storage.is_some() && !of.formats.has(Format::Legacy);
    lines.retain(|line| !in_vain || line.cosign != "cosign 2");
    lines
}

/// cosign 2.6 asks for a trusted root as soon as it sees a bundle, even where nothing is looked up in it.
const EMPTY_TRUSTED_ROOT: &str =
    r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;

fn line(of: &VerifyLines<'_>, before: &str, flags: &str) -> String {
    let storage = of.storage.map(|storage| format!("COSIGN_REPOSITORY={storage} ")).unwrap_or_default();
    let http = if of.access.plain_http { " --allow-http-registry" } else { "" };
    let trust = match (of.access.ca_file, of.access.insecure) {
        (Some(file), _) => format!(" --registry-cacert {}", quoted(file)),
        (None, true) => " --allow-insecure-registry".to_owned(),
        (None, false) => String::new(),
    };
    let annotations: String = of
        .annotations
        .iter()
        .map(|(key, value)| format!(" -a {}", quoted(&format!("{key}={value}"))))
        .collect();
    let hash = of.hash.map(|hash| format!(" --signature-digest-algorithm {hash}")).unwrap_or_default();
    let (repository, image) = (of.repository, of.image);
    format!("{before}{storage}cosign verify {flags}{hash}{annotations}{http}{trust} {repository}@{image}")
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
    use crate::sign::CertificateIdentity;

    fn lines(change: impl FnOnce(&mut VerifyLines<'_>)) -> Vec<String> {
        let (repository, image) = ("app".parse().unwrap(), Digest::of(b""));
        let access = RegistryAccess::default();
        let (by, annotations) = (SignedBy::Key("cosign.pub"), BTreeMap::new());
        let mut of = VerifyLines {
            repository: &repository,
            image: &image,
            storage: None,
            by,
            formats: Formats::Both,
            access,
            annotations: &annotations,
            hash: None,
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

    fn lines_by(by: SignedBy<'_>) -> Vec<String> {
        let (repository, image) = ("app".parse().unwrap(), Digest::of(b""));
        let (formats, access) = (Formats::Both, RegistryAccess::default());
        let annotations = &BTreeMap::new();
        let (repository, image) = (&repository, &image);
        let of =
            VerifyLines { repository, image, storage: None, by, formats, access, annotations, hash: None };
        verify_lines(&of).into_iter().map(|line| line.line).collect()
    }

    #[test]
    fn identities_and_logs_have_their_flags() {
        let identity = CertificateIdentity {
            subject: Some("dev@example.com".to_owned()),
            issuer: Some("https://issuer.example/a b".to_owned()),
            not_before: jiff::Timestamp::UNIX_EPOCH,
            not_after: jiff::Timestamp::UNIX_EPOCH,
            spki: Vec::new(),
            is_logged: false,
        };
        let private = Certified { identity: identity.clone(), by_clock: true };
        let by = SignedBy::Identity { certified: &private, trusted_root: Some("root.json") };
        let told = lines_by(by);
        let expected = "cosign verify --certificate-identity dev@example.com --certificate-oidc-issuer \
                        'https://issuer.example/a b' --trusted-root root.json --insecure-ignore-sct docker.io/";
        assert!(told[0].starts_with(expected), "{told:?}");
        assert!(told[1].contains(" --use-signed-timestamps "), "{told:?}");
        let identity = CertificateIdentity { is_logged: true, ..identity };
        let public = Certified { identity, by_clock: false };
        let told = lines_by(SignedBy::Identity { certified: &public, trusted_root: None });
        assert!(!told[1].contains("--trusted-root") && !told[1].contains("sct"), "{told:?}");
        let told = &lines_by(SignedBy::LoggedKey { key: "k.pub", trusted_root: Some("root.json") })[0];
        assert!(told.starts_with("cosign verify --key k.pub --trusted-root root.json docker.io/"), "{told}");
    }

    #[test]
    fn what_is_special_shows() {
        let access = RegistryAccess { plain_http: true, insecure: true, ca_file: None };
        let line = &lines(|of| (of.by, of.access) = (SignedBy::Key("it's.pub"), access))[0];
        let expected =
            r"--key 'it'\''s.pub' --insecure-ignore-tlog --allow-http-registry --allow-insecure-registry ";
        assert!(line.contains(expected), "{line}");
        let line = &lines(|of| of.hash = Some("sha384"))[0];
        assert!(
            line.contains(" --insecure-ignore-tlog --signature-digest-algorithm sha384 docker.io/"),
            "{line}"
        );
        let access = RegistryAccess { insecure: true, ca_file: Some("our ca.pem"), ..Default::default() };
        let line = &lines(|of| of.access = access)[0];
        assert!(line.contains("--insecure-ignore-tlog --registry-cacert 'our ca.pem' docker.io/"), "{line}");
        let storage = "ghcr.io/team/signatures".parse().unwrap();
        let annotations = BTreeMap::from([("k".to_owned(), "<a b>".to_owned())]);
        let (repository, image) = ("app".parse().unwrap(), Digest::of(b""));
        let of = VerifyLines {
            repository: &repository,
            image: &image,
            storage: Some(&storage),
            by: SignedBy::Key("cosign.pub"),
            formats: Formats::Both,
            access: RegistryAccess::default(),
            annotations: &annotations,
            hash: None,
        };
        for CosignLine { line, .. } in verify_lines(&of) {
            assert!(line.contains(" -a 'k=<a b>' "), "{line}");
            assert!(line.contains("COSIGN_REPOSITORY=ghcr.io/team/signatures cosign verify"), "{line}");
        }
    }
}
