//! `--annotation` as docker has it: what is annotated, for which platform, and with what.

use super::{Platform, PlatformError};
use std::fmt;

/// What carries an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// An image's manifest.
    Manifest,
    /// An image's entry in the index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The index's entry in the layout or reply that names it.
    IndexDescriptor,
}

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What carries it.
    pub carrier: Carrier,
    /// The platform whose image is meant; all of them if none is named.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Why a text is no annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// It is not written as one.
    #[error(
        "an annotation is written [TYPE[PLATFORM]:]KEY=VALUE, such as `index:org.opencontainers.image.title=app`"
    )]
    Form,
    /// A word that is no carrier.
    #[error("`{0}` carries no annotations: write manifest, manifest-descriptor, index or index-descriptor")]
    Carrier(String),
    /// Only images have platforms.
    #[error("`{0}` takes no platform")]
    NoPlatform(Carrier),
    /// The platform is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::ManifestDescriptor => "manifest-descriptor",
            Self::Index => "index",
            Self::IndexDescriptor => "index-descriptor",
        })
    }
}

impl Carrier {
    fn of(word: &str) -> Result<Self, AnnotationError> {
        let all = [Self::Manifest, Self::ManifestDescriptor, Self::Index, Self::IndexDescriptor];
        let named = all.into_iter().find(|carrier| carrier.to_string() == word);
        named.ok_or_else(|| AnnotationError::Carrier(word.to_owned()))
    }
}

impl Annotation {
    /// Reads one `--annotation`: one annotation for each carrier that it names.
    ///
    /// # Errors
    /// [`AnnotationError`].
    pub fn parse(text: &str) -> Result<Vec<Self>, AnnotationError> {
        let (left, value) = text.split_once('=').ok_or(AnnotationError::Form)?;
        let (carriers, key) = match left.split_once(':') {
            Some((carriers, key)) => (carriers, key),
            None => ("manifest", left),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(AnnotationError::Form);
        }
        let annotation = |carrier: &str| {
            let (word, platform) = match carrier.split_once('[') {
                Some((word, rest)) => (word, Some(rest.strip_suffix(']').ok_or(AnnotationError::Form)?)),
                None => (carrier, None),
            };
            let carrier = Carrier::of(word)?;
            if platform.is_some() && matches!(carrier, Carrier::Index | Carrier::IndexDescriptor) {
                return Err(AnnotationError::NoPlatform(carrier));
            }
            let platform = platform.map(str::parse).transpose()?;
            Ok(Self { carrier, platform, key: key.to_owned(), value: value.to_owned() })
        };
        carriers.split(',').map(annotation).collect()
    }

    /// Returns the exporter's attribute for it (buildkit exporter/containerimage/exptypes/annotations.go).
    pub fn attribute(&self) -> String {
        let platform = self.platform.as_ref().map(|platform| format!("[{platform}]"));
        format!("annotation-{}{}.{}", self.carrier, platform.unwrap_or_default(), self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a.b=c", &["annotation-manifest.a.b=c"])]
    #[case("a.b=https://x.example:1/?q=1,2", &["annotation-manifest.a.b=https://x.example:1/?q=1,2"])]
    #[case("index:a=", &["annotation-index.a="])]
    #[case("manifest[linux/aarch64]:a=b", &["annotation-manifest[linux/arm64].a=b"])]
    #[case("index,manifest-descriptor[linux/arm/v7]:a=b",
        &["annotation-index.a=b", "annotation-manifest-descriptor[linux/arm/v7].a=b"])]
    fn annotations_become_attributes(#[case] text: &str, #[case] attributes: &[&str]) {
        let annotations = Annotation::parse(text).expect("an annotation");
        let written = annotations.iter().map(|it| format!("{}={}", it.attribute(), it.value));
        assert_eq!(written.collect::<Vec<_>>(), attributes);
    }

    #[rstest]
    #[case("a", "KEY=VALUE")]
    #[case("=b", "KEY=VALUE")]
    #[case("index:=b", "KEY=VALUE")]
    #[case("layer:a=b", "`layer`")]
    #[case("index[linux/arm64]:a=b", "takes no platform")]
    #[case("manifest[linux/arm64:a=b", "KEY=VALUE")]
    #[case("manifest[linux]:a=b", "no architecture")]
    fn what_is_no_annotation(#[case] text: &str, #[case] said: &str) {
        let error = Annotation::parse(text).expect_err("no annotation").to_string();
        assert!(error.contains(said), "{error}");
    }
}
