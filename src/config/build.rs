//! `kubectl build`'s arguments, resolved and checked.

use super::env::{Environment, names};
use super::misuse::Misuse;
use super::results::{self, ResultFile};
use super::source::{self, Source, Sourced};
use super::{attest, builder, cache, cluster, registry, sign};
use crate::build::Detail;
use crate::build::request::{BuildRequest, FrontendOptions};
use crate::cli::build::{BuilderArgs, OptionArgs, OutputArgs};
use crate::cli::{cluster::ClusterArgs, registry::RegistryArgs, signing::SigningArgs};
use crate::image::annotation::{Annotation, AnnotationError};
use crate::image::{Platform, PlatformError};
use crate::registry::Reference;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One build, resolved.
#[derive(Debug)]
pub struct BuildSettings {
    /// What is built.
    pub request: BuildRequest,
    /// Who builds.
    pub builder: builder::BuilderSettings,
    /// How the cluster is reached.
    pub cluster: cluster::ClusterSettings,
    /// How registries are reached.
    pub registry: registry::RegistrySettings,
    /// Who signs, if anyone.
    pub sign: Option<sign::SignSettings>,
    /// How progress is shown.
    pub progress: Progress,
    /// `--iidfile`, absolute.
    pub iidfile: Option<PathBuf>,
    /// `--metadata-file`, absolute.
    pub metadata_file: Option<PathBuf>,
    /// Files for the rest of a pipeline.
    pub results: Vec<ResultFile>,
    /// The final report is one JSON object.
    pub json_report: bool,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// tty on a terminal, else plain.
    Auto,
    /// Lines.
    Plain,
    /// A live view.
    Tty,
    /// One JSON object a line.
    RawJson,
    /// Nothing but errors.
    Quiet,
}

/// The arguments of a build, whichever command line they stood on.
#[derive(Debug)]
pub struct Parts {
    /// PATH.
    pub paths: Vec<OsString>,
    /// What is built.
    pub options: OptionArgs,
    /// What comes out.
    pub output: OutputArgs,
    /// Who builds.
    pub builder: BuilderArgs,
    /// Who signs.
    pub signing: SigningArgs,
    /// How registries are reached.
    pub registry: RegistryArgs,
    /// How the cluster is reached.
    pub cluster: ClusterArgs,
    /// `-v`s.
    pub verbose: u8,
}

/// Resolves a build's arguments.
///
/// # Errors
/// Whatever can't be meant; nothing has started then.
pub fn resolve(parts: Parts, env: &dyn Environment) -> Result<BuildSettings, Misuse> {
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let Parts { paths, options, output, builder, signing, registry, cluster, verbose } = parts;
    let context = context(&paths, options.file.as_ref(), &directory)?;
    let push = output.push.unwrap_or(false);
    let tags = tags(&options.tags)?;
    if push && tags.is_empty() {
        return Err(Misuse::PushWithoutTag);
    }
    let results = results::resolve(&output, push, &directory, env)?;
    let json_report = match output.report.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            let reason = "it is neither text nor json".to_owned();
            return Err(Misuse::Value { name: "--report".to_owned(), value: other.to_owned(), reason });
        }
    };
    let sign = sign::resolve_for_build(signing, push, &directory, env)?;
    let registry = registry::resolve(registry, &directory, env)?;
    let (dockerfile_dir, dockerfile_name) = dockerfile(options.file.as_ref(), &context, &directory)?;
    let absolute = |path: Option<PathBuf>| path.map(|path| directory.join(path));
    let iidfile = absolute(output.iidfile);
    let metadata_file = absolute(output.metadata_file);
    let platforms = platforms(&options.platforms, env)?;
    let cross = options.cross.unwrap_or_else(|| {
        // One that is not text is the frontend's to complain of.
        let text = std::fs::read_to_string(dockerfile_dir.join(&dockerfile_name));
        crosses(&text.unwrap_or_default())
    });
    let (frontend, entitlements) = frontend(&options, env)?;
    let progress = progress(output.progress, output.quiet, verbose, env)?;
    let caches =
        cache::resolve((&options.cache_from, &options.cache_to), &frontend.build_args, (&tags, &platforms))?;
    let request = BuildRequest {
        context,
        dockerfile_dir,
        dockerfile_name,
        tags,
        annotations: annotations(&options.annotations, &platforms)?,
        platforms,
        attests: attest::resolve(&options)?,
        emulate: options.emulate.unwrap_or(false),
        cross,
        options: frontend,
        caches,
        entitlements,
        push,
        signing: sign.as_ref().map(|sign| sign.options.clone()).unwrap_or_default(),
        // Only the builder's own settings tell for which hosts it has to be said.
        insecure_hosts: Vec::new(),
        digest_wanted: iidfile.is_some()
            || metadata_file.is_some()
            || json_report
            || progress == Progress::Quiet,
        recorded: metadata_file.is_some().then(|| recorded(env)).transpose()?.flatten(),
        warnings_wanted: metadata_file.is_some() && warnings(env)?,
    };
    Ok(BuildSettings {
        request,
        builder: builder::resolve(builder, &directory, env)?,
        cluster: cluster::resolve(cluster, &directory, env)?,
        registry,
        sign,
        progress,
        iidfile,
        metadata_file,
        results,
        json_report,
    })
}

/// Reads how much of what the daemons recorded goes into the metadata file.
fn recorded(env: &dyn Environment) -> Result<Option<Detail>, Misuse> {
    let name = names::METADATA_PROVENANCE;
    let Some(value) = env.get_filled(name) else { return Ok(Some(Detail::Min)) };
    match (value.as_str(), attest::boolean(&value)) {
        ("min", _) | (_, Some(true)) => Ok(Some(Detail::Min)),
        ("max", _) => Ok(Some(Detail::Max)),
        ("disabled", _) | (_, Some(false)) => Ok(None),
        _ => {
            let reason = "it is none of min, max and disabled".to_owned();
            Err(Misuse::Value { name: name.to_owned(), value, reason })
        }
    }
}

/// Reads whether warnings go into the metadata file.
fn warnings(env: &dyn Environment) -> Result<bool, Misuse> {
    let name = names::METADATA_WARNINGS;
    let Some(value) = env.get_filled(name) else { return Ok(false) };
    attest::boolean(&value).ok_or_else(|| {
        let reason = "it is neither true nor false".to_owned();
        Misuse::Value { name: name.to_owned(), value, reason }
    })
}

/// Resolves `--progress` and `-q`; BUILDKIT_PROGRESS counts where the flag is absent or `auto`, and `-v` turns `auto`
/// into `plain`, so that log lines and the live view don't fight.
///
/// # Errors
/// An unknown mode.
pub fn progress(
    flag: Option<String>,
    quiet: bool,
    verbose: u8,
    env: &dyn Environment,
) -> Result<Progress, Misuse> {
    if quiet {
        return Ok(Progress::Quiet);
    }
    let flag = flag.filter(|mode| mode != "auto");
    let Sourced { value, source } = source::resolve(flag, "--progress", env, names::PROGRESS, "auto");
    match value.as_str() {
        "auto" if verbose > 0 => Ok(Progress::Plain),
        "auto" => Ok(Progress::Auto),
        "plain" => Ok(Progress::Plain),
        "tty" => Ok(Progress::Tty),
        "rawjson" => Ok(Progress::RawJson),
        "quiet" => Ok(Progress::Quiet),
        _ => {
            let reason = "it is none of auto, plain, tty, rawjson and quiet".to_owned();
            Err(Misuse::Value { name: source.to_string(), value, reason })
        }
    }
}

fn context(paths: &[OsString], file: Option<&OsString>, directory: &Path) -> Result<PathBuf, Misuse> {
    let [path] = paths else { return Err(Misuse::Arguments) };
    if path.is_empty() {
        return Err(Misuse::EmptyContext);
    }
    if path == "-" {
        return Err(if file.is_some_and(|file| file == "-") {
            Misuse::StdinTwice
        } else {
            Misuse::StdinContext
        });
    }
    let given = PathBuf::from(path);
    let absolute = directory.join(&given);
    match std::fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => Ok(absolute),
        Ok(_) => Err(Misuse::ContextNotDirectory(given)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(match path.to_str() {
            Some(text) if is_remote(text) => Misuse::UrlContext(text.to_owned()),
            _ => Misuse::ContextNotFound(given),
        }),
        Err(source) => Err(Misuse::ContextUnreadable { path: given, source }),
    }
}

/// Whether a PATH that is no directory names something remote (buildkit frontend/dockerfile/dfgitutil).
fn is_remote(text: &str) -> bool {
    let schemes = [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
        "oci-layout://",
        "docker-image://",
    ];
    schemes.iter().any(|scheme| text.starts_with(scheme))
}

fn dockerfile(
    file: Option<&OsString>,
    context: &Path,
    directory: &Path,
) -> Result<(PathBuf, String), Misuse> {
    let path = match file {
        None => {
            let path = context.join("Dockerfile");
            let lower = context.join("dockerfile");
            if !path.exists() && lower.exists() { lower } else { path }
        }
        Some(file) if file == "-" => return Err(Misuse::DockerfileSource("stdin".to_owned())),
        Some(file) if file.to_str().is_some_and(is_remote) => {
            return Err(Misuse::DockerfileSource("a URL".to_owned()));
        }
        Some(file) => directory.join(file),
    };
    let shown = path.clone();
    let failed = |source| Misuse::Dockerfile { path: shown.clone(), source };
    std::fs::File::open(&path).map_err(failed)?;
    // A link that leaves its directory could not be followed inside the mounted one: mount the target's instead.
    let target = path.canonicalize().map_err(failed)?;
    let parent = path.parent().unwrap_or(directory);
    let inside = parent.canonicalize().is_ok_and(|parent| target.starts_with(parent));
    let path = if inside { path } else { target };
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(failed(std::io::Error::other("its name is not UTF-8"))),
    }
}

fn tags(values: &[String]) -> Result<Vec<Reference>, Misuse> {
    let parse = |value: &String| {
        let invalid =
            |reason: String| Misuse::Value { name: "--tag".to_owned(), value: value.clone(), reason };
        let reference: Reference =
            value.parse().map_err(|error: crate::registry::ReferenceError| invalid(error.to_string()))?;
        if reference.digest.is_some() {
            return Err(invalid("a tag is written, not a digest".to_owned()));
        }
        let tag = reference.tag_or_latest().map(str::to_owned);
        Ok(Reference { tag, ..reference })
    };
    values.iter().map(parse).collect()
}

fn frontend(options: &OptionArgs, env: &dyn Environment) -> Result<(FrontendOptions, Vec<String>), Misuse> {
    let mut build_args = BTreeMap::new();
    if let Some(epoch) = env.get_filled(names::SOURCE_DATE_EPOCH) {
        build_args.insert(names::SOURCE_DATE_EPOCH.to_owned(), epoch);
    }
    for argument in &options.build_args {
        match argument.split_once('=') {
            Some((name, value)) => build_args.insert(name.to_owned(), value.to_owned()),
            // Without a value it is the environment's; unset there, it isn't sent, as docker does.
            None => env.get(argument).and_then(|value| build_args.insert(argument.clone(), value)),
        };
    }
    let labels = options.labels.iter().map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    });
    let mut entitlements = Vec::new();
    for right in &options.allow {
        if !["network.host", "security.insecure"].contains(&right.as_str()) {
            return Err(Misuse::Entitlement(right.clone()));
        }
        entitlements.push(right.clone());
    }
    let network = match options.network.as_deref() {
        None | Some("default") => None,
        Some("none") => Some("none".to_owned()),
        Some("host") => {
            entitlements.push("network.host".to_owned());
            Some("host".to_owned())
        }
        Some(other) => return Err(Misuse::Network(other.to_owned())),
    };
    entitlements.sort();
    entitlements.dedup();
    let frontend = FrontendOptions {
        build_args,
        labels: labels.collect(),
        target: options.target.clone(),
        no_cache: options.no_cache.unwrap_or(false),
        pull: options.pull.unwrap_or(false),
        network,
        add_hosts: options.add_hosts.iter().map(|host| add_host(host)).collect::<Result<_, _>>()?,
        shm_size: options.shm_size.as_deref().map(shm_size).transpose()?,
        ulimits: options.ulimits.iter().map(|limit| ulimit(limit)).collect::<Result<_, _>>()?,
    };
    Ok((frontend, entitlements))
}

/// Resolves `--platform`: repeated, comma-separated or both, each platform once, in the order of asking.
fn platforms(flags: &[String], env: &dyn Environment) -> Result<Vec<Platform>, Misuse> {
    let (values, source) = match flags {
        [] => (env.get_filled(names::PLATFORM).into_iter().collect(), Source::Env(names::PLATFORM)),
        flags => (flags.to_vec(), Source::Flag("--platform")),
    };
    let mut platforms = Vec::new();
    for text in values.iter().flat_map(|value| value.split(',')) {
        let platform: Platform = text.trim().parse().map_err(|error: PlatformError| Misuse::Value {
            name: source.to_string(),
            value: text.to_owned(),
            reason: error.to_string(),
        })?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// Resolves `--annotation`. One for a platform that is not built would go nowhere; without `--platform` only the daemon
/// knows which is.
fn annotations(values: &[String], platforms: &[Platform]) -> Result<Vec<Annotation>, Misuse> {
    let mut annotations = Vec::new();
    for value in values {
        let invalid =
            |reason| Misuse::Value { name: "--annotation".to_owned(), value: value.clone(), reason };
        let parsed = Annotation::parse(value).map_err(|error: AnnotationError| invalid(error.to_string()))?;
        let elsewhere = |platform: &&Platform| !platforms.is_empty() && !platforms.contains(platform);
        if let Some(platform) = parsed.iter().filter_map(|it| it.platform.as_ref()).find(elsewhere) {
            return Err(invalid(format!("{platform} is not among the platforms that are built")));
        }
        annotations.extend(parsed);
    }
    Ok(annotations)
}

/// Whether a Dockerfile can be built for a platform that nothing here runs: a stage of it runs on the builder's own,
/// which is how Dockerfiles cross-compile, or nothing is run at all.
fn crosses(dockerfile: &str) -> bool {
    let mut runs = false;
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let own = ["--platform=$BUILDPLATFORM", "--platform=${BUILDPLATFORM}"];
        if first.eq_ignore_ascii_case("from") && own.contains(&second) {
            return true;
        }
        runs |= first.eq_ignore_ascii_case("run");
    }
    !runs
}

fn add_host(text: &str) -> Result<String, Misuse> {
    let invalid = || Misuse::Host(text.to_owned());
    let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if host.is_empty() || host.contains(',') || bare.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid());
    }
    Ok(format!("{}={bare}", host.to_lowercase()))
}

fn shm_size(text: &str) -> Result<u64, Misuse> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: Option<u64> = match &lower[digits.len()..] {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| {
        let reason = "a size is a number with b, k, m or g".to_owned();
        Misuse::Value { name: "--shm-size".to_owned(), value: text.to_owned(), reason }
    })
}

/// The limits that Linux has by these names (docker/go-units ulimit.go).
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimit(text: &str) -> Result<String, Misuse> {
    let invalid = |reason: &str| Misuse::Value {
        name: "--ulimit".to_owned(),
        value: text.to_owned(),
        reason: reason.to_owned(),
    };
    let (name, limits) = text.split_once('=').ok_or_else(|| invalid("it is written NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        return Err(invalid("there is no such limit"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().ok().filter(|&number| number >= -1);
    match (number(soft), number(hard)) {
        (Some(soft), Some(hard)) if hard == -1 || (soft != -1 && soft <= hard) => Ok(text.to_owned()),
        (Some(_), Some(_)) => Err(invalid("the soft limit is above the hard one")),
        _ => Err(invalid("limits are numbers, -1 for none")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("manifest[linux/arm64]:a=b", &["linux/arm64"], true)]
    #[case("manifest[linux/s390x]:a=b", &["linux/arm64"], false)]
    #[case("manifest[linux/s390x]:a=b", &[], true)]
    #[case("index:a=b", &["linux/arm64"], true)]
    fn an_annotation_is_of_a_platform_that_is_built(
        #[case] value: &str,
        #[case] platforms: &[&str],
        #[case] taken: bool,
    ) {
        let platforms: Vec<_> = platforms.iter().map(|text| text.parse().expect("a platform")).collect();
        assert_eq!(super::annotations(&[value.to_owned()], &platforms).is_ok(), taken);
    }

    #[rstest]
    #[case(
        "FROM --platform=$BUILDPLATFORM golang AS build\nRUN go build\nFROM scratch\nCOPY --from=build /x /\n",
        true
    )]
    #[case("from --platform=${BUILDPLATFORM} golang\nRUN go build\n", true)]
    #[case("FROM busybox\nCOPY . /\n", true)]
    #[case("FROM busybox\nRUN true\n", false)]
    #[case("FROM --platform=$TARGETPLATFORM busybox\n  run true\n", false)]
    fn a_dockerfile_crosses_if_nothing_of_the_other_platform_runs(#[case] text: &str, #[case] crosses: bool) {
        assert_eq!(super::crosses(text), crosses);
    }
}
