//! What a build brought about.

use crate::registry::{Descriptor, Digest, Reference, Repository};
use crate::sign::{Formats, SignReport, Signer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A finished build.
#[derive(Default)]
pub struct BuildOutcome {
    /// The image's descriptor, where an image was made.
    pub image: Option<Descriptor>,
    /// The tags that point at it now.
    pub tags: Vec<Reference>,
    /// What was signed, by repository.
    pub signed: Vec<(Repository, SignReport)>,
    /// Who signed it.
    pub signers: Vec<Box<dyn Signer>>,
    /// In which formats.
    pub formats: Formats,
    /// The exporter's reply, as it came; nothing where several builders each had one.
    pub response: BTreeMap<String, String>,
    /// What the builds were warned of, as BuildKit's client tells it.
    pub warnings: Vec<Value>,
    /// The builds, one for each builder that took part.
    pub builds: Vec<Builds>,
}

/// One builder's part, by the names under which it can be found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builds {
    /// The builder's name or address.
    pub builder: String,
    /// The pod's name, if there is one.
    pub pod: Option<String>,
    /// The build's id at the daemon.
    pub reference: String,
    /// The platforms, where any were asked for.
    pub platforms: String,
    /// What it made, where an image was made.
    pub digest: Option<Digest>,
}

impl BuildOutcome {
    /// Returns the image's digest, where an image was made.
    pub fn digest(&self) -> Option<&Digest> {
        self.image.as_ref().map(|image| &image.digest)
    }
}

/// What a build that failed after the push left behind: the image is in its repositories, and no tag moved but those
/// that are named.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The pushed image.
    pub image: Descriptor,
    /// Where it was pushed to.
    pub repositories: Vec<Repository>,
    /// The tags that were to be written.
    pub tags: Vec<Reference>,
    /// The tags that were written before it failed.
    pub written: Vec<Reference>,
    /// The tag whose write was under way and not refused: it may have been written.
    pub unsure: Option<Reference>,
    /// Signing was part of the job.
    pub signs: bool,
}

impl Unfinished {
    /// Returns the words of the command that finishes the job: `flags` are the build's own for keys, registries and
    /// cluster.
    pub fn resume(&self, flags: &[String]) -> Vec<String> {
        let mut words: Vec<String> = ["kubectl", "buildkit", "sign"].map(str::to_owned).to_vec();
        words.extend(flags.iter().cloned());
        for tag in &self.tags {
            words.extend(["--tag".to_owned(), tag.to_string()]);
        }
        words
            .extend(self.repositories.iter().map(|repository| format!("{repository}@{}", self.image.digest)));
        words
    }
}

/// Joins words into a line for a POSIX shell.
pub fn shell_line(words: &[String]) -> String {
    let quote = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_resumes_can_be_run_as_it_is() {
        let digest = Digest::of(b"image");
        let unfinished = Unfinished {
            image: Descriptor::bare("m", digest, 5),
            repositories: vec!["r.example/a".parse().expect("a repository")],
            tags: vec!["r.example/a:1".parse().expect("a reference")],
            written: Vec::new(),
            unsure: None,
            signs: true,
        };
        let flags = ["--cosign-key".to_owned(), "my key's.pem".to_owned()];
        let expected = format!(
            "kubectl buildkit sign --cosign-key 'my key'\\''s.pem' --tag r.example/a:1 r.example/a@{digest}"
        );
        assert_eq!(shell_line(&unfinished.resume(&flags)), expected);
    }
}
