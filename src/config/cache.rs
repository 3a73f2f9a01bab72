//! `--cache-from` and `--cache-to`, as buildx writes them.

use super::attest::{boolean, fields};
use super::misuse::Misuse;
use crate::build::cache::{self, CacheExport, Caches};
use crate::image::Platform;
use crate::registry::{Reference, ReferenceError};
use std::collections::BTreeMap;

const FROM: &str = "--cache-from";
const TO: &str = "--cache-to";

/// The build argument by which older pipelines ask for a cache in the image (buildx build/opt.go).
const INLINE: &str = "BUILDKIT_INLINE_CACHE";

/// Resolves the caches of a build of these platforms that is pushed to these tags.
///
/// # Errors
/// What is no cache, is none of ours, or would be written twice or over the image.
pub(super) fn resolve(
    (from, to): (&[String], &[String]),
    build_args: &BTreeMap<String, String>,
    (tags, platforms): (&[Reference], &[Platform]),
) -> Result<Caches, Misuse> {
    let mut caches = Caches::default();
    for text in from.iter().filter(|text| !text.is_empty()) {
        let invalid = |reason| Misuse::Value { name: FROM.to_owned(), value: text.clone(), reason };
        caches.from.extend(imports(text).map_err(invalid)?);
    }
    for text in to.iter().filter(|text| !text.is_empty()) {
        let invalid = |reason| Misuse::Value { name: TO.to_owned(), value: text.clone(), reason };
        for export in exports(text).map_err(invalid)? {
            if caches.to.iter().any(|known| known.name() == export.name()) {
                return Err(invalid("it is written twice".to_owned()));
            }
            if export.name().is_some_and(|name| is_over(name, tags, platforms)) {
                return Err(invalid(
                    "it would be written over the image: give it a tag of its own".to_owned(),
                ));
            }
            caches.to.push(export);
        }
    }
    let asked = build_args.get(INLINE).and_then(|value| boolean(value)).unwrap_or(false);
    if asked && !caches.to.contains(&CacheExport::Inline) {
        caches.to.push(CacheExport::Inline);
    }
    Ok(caches)
}

/// Whether a cache would stand under a tag of the image's, under its own name or that which a builder of these platforms
/// gives it.
fn is_over(name: &Reference, tags: &[Reference], platforms: &[Platform]) -> bool {
    let builders = platforms.iter().filter_map(|platform| cache::own(name, Some(&platform.architecture)));
    std::iter::once(name.clone()).chain(builders).any(|name| tags.contains(&name))
}

fn imports(text: &str) -> Result<Vec<Reference>, String> {
    let Some(Parsed { kind, name, settings }) = parse(text)? else {
        return text.split(',').map(reference).collect();
    };
    match (kind.as_str(), name, settings.first_key_value()) {
        ("registry", Some(name), None) => Ok(vec![reference(&name)?]),
        ("registry", None, _) => Err(NAMELESS.to_owned()),
        ("registry", _, Some((key, _))) => Err(format!("there is no setting `{key}`")),
        ("inline", ..) => Err("a cache in an image is read as `type=registry,ref=IMAGE`".to_owned()),
        (other, ..) => Err(unknown(other, "`registry`")),
    }
}

fn exports(text: &str) -> Result<Vec<CacheExport>, String> {
    let beside = |name: &str, settings| {
        let to = reference(name)?;
        match to.digest {
            None => Ok(CacheExport::Registry { to, settings }),
            Some(_) => Err("a tag is written, not a digest".to_owned()),
        }
    };
    let Some(Parsed { kind, name, settings }) = parse(text)? else {
        return text.split(',').map(|name| beside(name, BTreeMap::new())).collect();
    };
    match (kind.as_str(), name) {
        ("registry", Some(name)) => {
            let settings = settings.into_iter().map(|(key, value)| setting(key, &value));
            Ok(vec![beside(&name, settings.collect::<Result<_, _>>()?)?])
        }
        ("registry", None) => Err(NAMELESS.to_owned()),
        ("inline", None) if settings.is_empty() => Ok(vec![CacheExport::Inline]),
        ("inline", _) => {
            Err("`type=inline` has no settings: it is in the image, and of its layers only".to_owned())
        }
        (other, _) => Err(unknown(other, "`registry` or `inline`")),
    }
}

const NAMELESS: &str = "it says no name, such as `ref=REGISTRY/app:cache`";

fn unknown(kind: &str, known: &str) -> String {
    format!("there is no cache of type `{kind}` here: use {known}")
}

/// Checks a setting of a cache in a registry: the daemon passes over what it does not know.
fn setting(key: String, value: &str) -> Result<(String, String), String> {
    let one_of = |known: &[&str]| match known.contains(&value) {
        true => Ok(value.to_owned()),
        false => Err(format!("`{key}` is one of {}", known.join(", "))),
    };
    let value = match key.as_str() {
        "mode" => one_of(&["min", "max"]),
        "compression" => one_of(&["uncompressed", "gzip", "estargz", "zstd"]),
        "compression-level" => match value.parse::<u8>() {
            Ok(_) => Ok(value.to_owned()),
            Err(_) => Err("`compression-level` is a number".to_owned()),
        },
        "force-compression" | "ignore-error" | "image-manifest" | "oci-mediatypes" => match boolean(value) {
            Some(value) => Ok(value.to_string()),
            None => Err(format!("`{key}` is true or false")),
        },
        _ => Err(format!("there is no setting `{key}`")),
    }?;
    Ok((key, value))
}

fn reference(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.trim().parse().map_err(|error: ReferenceError| error.to_string())?;
    let tag = reference.tag_or_latest().map(str::to_owned);
    Ok(Reference { tag, ..reference })
}

struct Parsed {
    kind: String,
    name: Option<String>,
    settings: BTreeMap<String, String>,
}

/// Reads `type=TYPE,KEY=VALUE,…`; `None` for bare names, which are caches in registries.
fn parse(text: &str) -> Result<Option<Parsed>, String> {
    if !text.contains('=') {
        return Ok(None);
    }
    let (mut kind, mut name, mut settings) = (None, None, BTreeMap::new());
    for field in fields(text) {
        let bare = field.trim_matches('"');
        let (key, value) =
            bare.split_once('=').ok_or_else(|| format!("`{bare}` is not written KEY=VALUE"))?;
        let twice = match key.to_lowercase().as_str() {
            "type" => kind.replace(value.to_owned()),
            "ref" => name.replace(value.to_owned()),
            key => settings.insert(key.to_owned(), value.to_owned()),
        };
        if twice.is_some() {
            return Err(format!("`{key}` is said twice"));
        }
    }
    let kind = kind.ok_or("it says no type, such as `type=registry`")?;
    Ok(Some(Parsed { kind, name, settings }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn resolved(from: &[&str], to: &[&str], inline: &str) -> Result<Caches, String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let build_args = BTreeMap::from([(INLINE.to_owned(), inline.to_owned())]);
        let tags: Vec<Reference> =
            ["r.example/app:1", "r.example/app:cache-arm64"].map(|tag| tag.parse().expect("a tag")).into();
        let platforms: Vec<Platform> = vec!["linux/arm64".parse().expect("a platform")];
        resolve((&owned(from), &owned(to)), &build_args, (&tags, &platforms))
            .map_err(|error| error.to_string())
    }

    fn export(name: &str, settings: &[(&str, &str)]) -> CacheExport {
        let settings = settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        CacheExport::Registry { to: name.parse().expect("a reference"), settings }
    }

    #[rstest]
    #[case(&[], "0", &[])]
    #[case(&[], "1", &[CacheExport::Inline])]
    #[case(&["type=inline"], "1", &[CacheExport::Inline])]
    #[case(&["", "r.example/c"], "0", &[export("r.example/c:latest", &[])])]
    #[case(&["r.example/app:cache-amd64"], "0", &[export("r.example/app:cache-amd64", &[])])]
    #[case(&["type=registry,ref=r.example/c:1,mode=max,ignore-error=1"], "0",
        &[export("r.example/c:1", &[("mode", "max"), ("ignore-error", "true")])])]
    #[case(&["r.example/c:1,r.example/d:1", "type=inline"], "0",
        &[export("r.example/c:1", &[]), export("r.example/d:1", &[]), CacheExport::Inline])]
    fn what_is_left(#[case] to: &[&str], #[case] inline: &str, #[case] left: &[CacheExport]) {
        assert_eq!(resolved(&[], to, inline).map(|caches| caches.to), Ok(left.to_vec()));
    }

    #[test]
    fn what_is_begun_from() {
        let caches =
            resolved(&["r.example/a:1,b", "type=registry,ref=r.example/c"], &[], "").expect("caches");
        let names: Vec<String> = caches.from.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.example/a:1", "docker.io/library/b:latest", "r.example/c:latest"]);
    }

    #[rstest]
    #[case("type=local,dest=/tmp/c", "no cache of type `local` here: use `registry` or `inline`")]
    #[case("type=registry", "says no name")]
    #[case("ref=r.example/c", "says no type")]
    #[case("type=registry,ref=r.example/c,mode=all", "`mode` is one of min, max")]
    #[case("type=registry,ref=r.example/c,modes=max", "no setting `modes`")]
    #[case("type=registry,ref=r.example/c,ref=r.example/d", "`ref` is said twice")]
    #[case("type=registry,ref=r.example/c,image-manifest=maybe", "true or false")]
    #[case("type=inline,mode=max", "has no settings")]
    #[case("r.example/c:1,r.example/c:1", "written twice")]
    #[case("r.example/C", "lower case")]
    #[case("r.example/app:1", "over the image")]
    #[case("r.example/app:cache", "over the image")]
    fn what_is_no_cache_to_leave(#[case] to: &str, #[case] said: &str) {
        let error = resolved(&[], &[to], "").expect_err("refused");
        assert!(error.contains(said) && error.contains(TO), "{error}");
    }

    #[rstest]
    #[case("type=inline", "read as `type=registry,ref=IMAGE`")]
    #[case("type=gha", "no cache of type `gha` here: use `registry`")]
    #[case("type=registry,ref=r.example/c,mode=max", "no setting `mode`")]
    #[case("type=registry,r.example/c", "KEY=VALUE")]
    fn what_is_no_cache_to_begin_from(#[case] from: &str, #[case] said: &str) {
        let error = resolved(&[from], &[], "").expect_err("refused");
        assert!(error.contains(said) && error.contains(FROM), "{error}");
    }
}
