//! From any module's error to what a person reads: message, causes, hints and exit code, in this one place.

mod hints;

use super::interrupt;
use super::verify::Described;
use crate::build::SitesError;
use crate::build::error::BuildError;
use crate::build::finish::FinishError;
use crate::build::outcome::shell_line;
use crate::build::placement::Unplaced;
use crate::build::preflight::PreflightError;
use crate::build::reach::ReachError;
use crate::buildkit::failure::Class;
use crate::buildkit::{self, Source};
use crate::cluster::{ApiError, ClusterError, ConnectError};
use crate::config::Misuse;
use crate::config::builder::Tls;
use crate::registry::credentials::CredentialError;
use crate::registry::{Digest, OptionsError, Reference, RegistryError, Repository};
use crate::sign::http::{HttpError, HttpOptionsError};
use crate::sign::identity::IdentityError;
use crate::sign::key::{GitlabError, KeyError};
use crate::sign::kms::KmsError;
use crate::sign::login::LoginError;
use crate::sign::{
    KeylessError, NO_CERTIFICATE, RefusedSignature, ServiceError, SignError, TufError, WitnessError,
};
use crate::task::Cause;
use crate::ui::colours::Palette;
use crate::ui::progress::{FailedStep, NoTerminal};
use crate::ui::prompt::PromptError;
use crate::ui::report::{Excerpt, ExcerptLine, Report};
use std::error::Error;
use std::io;
use std::path::Path;

/// The build failed, or something else that the user can mend.
const FAILED: u8 = 1;
/// Usage, settings or keys; nothing was started.
pub(super) const USAGE: u8 = 2;
/// The cluster or the builder is not available.
const UNAVAILABLE: u8 = 3;
/// Pushed, but not signed or not tagged.
const UNFINISHED: u8 = 4;
/// `verify`: nobody signed the image (this and the next two as cosign's).
const NO_SIGNATURE: u8 = 10;
/// `verify`: the image is not there.
const NO_IMAGE: u8 = 11;
/// `verify`: others signed it, or something else.
const NO_MATCH: u8 = 12;
/// `verify`: an identity was asked for, and only keys signed.
const NO_CERTIFICATES: u8 = 13;
/// A bug of ours.
const BUG: u8 = 70;
/// BuildKit says that the fault is its own.
const INTERNAL: u8 = 100;
/// The builder's machine is out of something.
const EXHAUSTED: u8 = 102;

/// How many signatures that don't count are told of.
const REASONS_MAX: usize = 20;

/// What went wrong, as it is told.
#[derive(Debug)]
pub(super) struct Failure {
    /// Boxed: failures are rare, and every verb's result would be as large as this.
    report: Box<Report>,
    code: u8,
    /// The steps' own output says what failed.
    tells_steps: bool,
}

impl Failure {
    fn new(error: &(dyn Error + 'static), code: u8) -> Self {
        let mut report = Report::of(error);
        // A transparent wrapper has its source's text; nothing is said twice.
        let mut last = report.error.clone();
        report.causes.retain(|cause| {
            let news = !last.contains(cause.as_str());
            last.clone_from(cause);
            news
        });
        Self { report: Box::new(report), code, tells_steps: false }
    }

    fn said(text: impl Into<String>, code: u8) -> Self {
        let report = Report { error: text.into(), ..Report::default() };
        Self { report: Box::new(report), code, tells_steps: false }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.report.hints.push(hint.into());
        self
    }

    fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.report.hints.extend(hints);
        self
    }

    /// Adds what the display knows of the steps that failed.
    pub(super) fn with_steps(mut self, steps: Vec<FailedStep>) -> Self {
        if self.tells_steps {
            // Steps without output would only say the error once more.
            self.report.failed = steps.into_iter().filter(|step| !step.lines.is_empty()).collect();
        }
        self
    }

    /// Makes the kubectl lines among the hints reach the cluster that this command reached.
    pub(super) fn within(mut self, place: &[String]) -> Self {
        if !place.is_empty() {
            let flags = shell_line(place);
            for hint in &mut self.report.hints {
                *hint = reaching(hint, &flags);
            }
        }
        self
    }

    /// Prints it and returns the exit code.
    pub(super) async fn print(self, palette: &Palette) -> u8 {
        self.report.print(palette).await;
        self.code
    }

    /// Somebody asked to stop.
    pub(super) fn interrupted(cause: Cause) -> Self {
        Self::said("interrupted", interrupt::exit_code(cause))
    }

    /// No kubeconfig, or one that can't be used.
    pub(super) fn connect(error: ConnectError) -> Self {
        let hint = error.hint();
        Self::new(&error, UNAVAILABLE).hints(hint)
    }

    /// Something about a builder.
    pub(super) fn cluster(error: ClusterError) -> Self {
        let code = match &error {
            ClusterError::Name { .. } | ClusterError::Config(_) | ClusterError::Exists { .. } => USAGE,
            ClusterError::Unknown { .. } => FAILED,
            _ => UNAVAILABLE,
        };
        let hint = error.hint();
        Self::new(&error, code).hints(hint)
    }

    /// A key that is none.
    pub(super) fn key(name: &str, error: impl Error + 'static) -> Self {
        let mut failure = Self::said(format!("the signing key `{name}` cannot be used"), USAGE);
        failure.report.causes = Report::of(&error).causes;
        failure.report.causes.insert(0, error.to_string());
        failure
    }

    /// A key that could not be made or imported.
    pub(super) fn new_key(error: KeyError) -> Self {
        let text = match error {
            KeyError::WrongPassword => "the password does not decrypt it".to_owned(),
            KeyError::UnsupportedCipher(_) => format!("it is {error}"),
            error => format!("the key {error}"),
        };
        Self::said(text, USAGE)
    }

    /// Says which file a failure is about.
    pub(super) fn about_file(mut self, path: &Path) -> Self {
        let error = std::mem::take(&mut self.report.error);
        self.report.error = format!("{} cannot be imported: {error}", path.display());
        self
    }

    /// A key that is there already; a key that is replaced is gone for good.
    pub(super) fn key_exists(names: &str) -> Self {
        Self::said(format!("{names} is there already, and no key is replaced unasked"), USAGE)
            .hint("write another with `--output-key-prefix PREFIX`, or move the old one away")
    }

    /// A new key in a Secret that could not be made.
    pub(super) fn new_secret(reference: &str, error: ApiError) -> Self {
        if let ApiError::AlreadyExists { .. } = error {
            return Self::said(format!("{reference} is there already, and no key is replaced"), USAGE)
                .hint("make one of another name, or delete that Secret first, if nothing signs with it");
        }
        let hint = error.hint();
        Self::new(&error, UNAVAILABLE).hints(hint)
    }

    /// A new key that a GitLab project did not take.
    pub(super) fn new_in_gitlab(reference: &str, error: &GitlabError) -> Self {
        let code = if matches!(error, GitlabError::Exists(_)) { USAGE } else { FAILED };
        let mut failure = Self::said(format!("no key could be made in {reference}"), code);
        failure.report.causes.push(error.to_string());
        failure
    }

    /// A new key, and nobody to ask for its password.
    pub(super) fn no_new_password() -> Self {
        Self::said("the new key needs a password, and there is no terminal to ask on", USAGE)
            .hint("set COSIGN_PASSWORD (to nothing for an empty one), or use `--cosign-password-file`")
    }

    /// Two passwords that should have been one.
    pub(super) fn passwords_differ() -> Self {
        Self::said("the two passwords differ", USAGE)
    }

    /// A key to verify with that is none.
    pub(super) fn public_key(name: &str, error: impl Error + 'static) -> Self {
        let mut failure = Self::said(format!("the key `{name}` cannot verify"), USAGE);
        failure.report.causes = Report::of(&error).causes;
        failure.report.causes.insert(0, error.to_string());
        failure
    }

    /// What is to be verified isn't there.
    pub(super) fn nothing_there(reference: &Reference) -> Self {
        Self::said(format!("there is no image {reference}"), NO_IMAGE)
    }

    /// Signatures that can't be read.
    pub(super) fn unverified(error: &SignError) -> Self {
        let registry = error.store().and_then(|error| error.downcast_ref::<RegistryError>());
        Self::new(error, FAILED).hints(registry.and_then(hints::registry))
    }

    /// An image without a signature that counts.
    pub(super) fn not_signed(asked: &Described<'_>, key: &str, refused: &[RefusedSignature]) -> Self {
        if refused.is_empty() {
            return Self::said(asked.nothing(), NO_SIGNATURE)
                .hint("signatures that are kept elsewhere are found with `--signature-repository`");
        }
        let certified = refused.iter().any(|refused| refused.reason != NO_CERTIFICATE);
        let code = if certified { NO_MATCH } else { NO_CERTIFICATES };
        let mut failure = Self::said(asked.none_matches(key), code);
        failure.report.causes = refused.iter().take(REASONS_MAX).map(Described::reason).collect();
        if refused.len() > REASONS_MAX {
            failure.report.causes.push(format!("and {} more", refused.len() - REASONS_MAX));
        }
        failure
    }

    /// A key service's key that can't be used.
    pub(super) fn kms(error: &KmsError) -> Self {
        let code = if error.source.is_settings() { USAGE } else { FAILED };
        Self::new(error, code).hints(error.hint.clone())
    }

    /// Adds where a token's PIN may come from.
    pub(super) fn hint_pin(self) -> Self {
        self.hint("set COSIGN_PKCS11_PIN, or name a file with `pin-source=file:PATH`")
    }

    /// A key that another host keeps and does not give.
    pub(super) fn key_service(name: &str, error: &HttpError) -> Self {
        let mut failure = Self::said(format!("the key `{name}` cannot be read"), FAILED);
        failure.report.causes.push(error.to_string());
        failure
    }

    /// A Secret that can't be read.
    pub(super) fn secret(name: &str, error: ClusterError) -> Self {
        let hint = error.hint();
        let code = if matches!(error, ClusterError::NoSecret { .. }) { USAGE } else { UNAVAILABLE };
        let mut failure = Self::said(format!("`{name}` cannot be read"), code).hints(hint);
        failure.report.causes = Report::of(&error).causes;
        failure.report.causes.insert(0, error.to_string());
        failure
    }

    /// A password that nobody knows.
    pub(super) fn no_password(name: &str) -> Self {
        Self::said(format!("the signing key `{name}` is encrypted, and there is no password for it"), USAGE)
            .hint("set COSIGN_PASSWORD (to nothing for an empty one), or use `--cosign-password-file`")
    }

    /// A prompt that got no answer.
    pub(super) fn prompt(name: &str, error: PromptError) -> Self {
        Self::key(name, error).hint("set COSIGN_PASSWORD, or use `--cosign-password-file`")
    }

    /// `--registry-secret` with a builder that is in no cluster.
    pub(super) fn secret_without_cluster(name: &str) -> Self {
        Self::said(format!("there is no cluster to read the Secret `{name}` from"), USAGE)
    }

    /// A Secret of another type.
    pub(super) fn not_a_docker_secret(namespace: &str, name: &str) -> Self {
        Self::said(
            format!("the Secret `{name}` in namespace `{namespace}` holds no `.dockerconfigjson`"),
            USAGE,
        )
        .hint("make it with `kubectl create secret docker-registry`")
    }

    /// `--registry-service-account` with an account that holds no credentials.
    pub(super) fn no_pull_secrets(namespace: &str, name: &str) -> Self {
        Self::said(
            format!("the service account `{name}` in namespace `{namespace}` names no Secret with registry credentials"),
            USAGE,
        )
        .hint("`imagePullSecrets` of the account are meant, or name the Secret itself with `--registry-secret`")
    }

    /// `--service-account` with nothing to ask.
    pub(super) fn account_without_cluster(name: &str) -> Self {
        Self::said(format!("there is no cluster to make a token for the service account `{name}`"), USAGE)
    }

    /// Signing services that can't be reached as the environment says.
    pub(super) fn services(error: HttpOptionsError) -> Self {
        Self::new(&error, USAGE)
    }

    /// A TUF repository that says nothing that can be trusted.
    pub(super) fn tuf(error: TufError) -> Self {
        let hint = hints::tuf(&error);
        Self::new(&error, FAILED).hint(hint)
    }

    /// A docker configuration that is none.
    pub(super) fn credentials(error: CredentialError) -> Self {
        Self::new(&error, USAGE)
    }

    /// Certificates that are none.
    pub(super) fn registry_options(error: OptionsError) -> Self {
        Self::new(&error, USAGE)
    }

    /// A builder that doesn't know a CA that this build was given.
    pub(super) fn builder_lacks_ca(builder: &str, host: &str) -> Self {
        Self::said(format!("builder {builder} does not know the CA for {host} given with --registry-ca"), USAGE).hint(
            format!("make a builder that does: `kubectl buildkit create NAME --registry-ca {host}=FILE`, then build with `--builder NAME`"),
        )
    }

    /// `--progress tty` without a terminal.
    pub(super) fn no_terminal(error: NoTerminal) -> Self {
        Self::new(&error, USAGE).hint("use `--progress plain`")
    }

    /// A result file that can't be written.
    pub(super) fn output(name: &'static str, path: &Path, source: io::Error) -> Self {
        Self::new(&Misuse::Output { name, path: path.to_owned(), source }, FAILED)
    }

    /// Results that can't be written where standard output leads.
    pub(super) fn stdout(error: &io::Error) -> Self {
        let mut failure = Self::said("the result could not be written to standard output", FAILED);
        failure.report.causes.push(error.to_string());
        failure
    }

    /// A registry refused what isn't part of a build.
    pub(super) fn registry(error: &RegistryError) -> Self {
        Self::new(error, FAILED).hints(hints::registry(error))
    }

    /// What is to be signed isn't there.
    pub(super) fn no_image(at: &Repository, digest: &Digest) -> Self {
        Self::said(format!("there is no image {digest} in {at}"), FAILED)
            .hint("the registry may have removed it, being without a tag: build it again")
    }

    /// A finished push that could not be signed or tagged.
    pub(super) fn unfinished(
        error: FinishError,
        unfinished: &crate::build::Unfinished,
        flags: &[String],
    ) -> Self {
        let code = match &error {
            FinishError::Interrupted(cause) => interrupt::exit_code(*cause),
            _ => UNFINISHED,
        };
        let registry = match &error {
            // Signing knows its store only as some error.
            FinishError::Sign(error) => error.store().and_then(|error| error.downcast_ref::<RegistryError>()),
            error => find::<RegistryError>(error),
        };
        let registry = registry.and_then(hints::registry);
        let immutable = match &error {
            FinishError::Sign(SignError::TagImmutable { tag, .. }) => Some(hints::signature_tag(tag)),
            _ => None,
        };
        let service = find::<KmsError>(&error).and_then(|error| error.hint.clone());
        let keyless = find::<KeylessError>(&error);
        let login = keyless.and_then(hints::login);
        let token =
            keyless.filter(|error| matches!(error, KeylessError::Identity(_))).and_then(hints::keyless);
        let witness = match keyless {
            Some(KeylessError::Witness(error)) => Some(error),
            _ => find::<WitnessError>(&error),
        };
        let witness = witness.and_then(hints::witness).map(str::to_owned);
        let mut failure = Self::new(&error, code)
            .hints(immutable.or(registry))
            .hints(service)
            .hints(token)
            .hints(witness)
            .hints(login);
        for tag in &unfinished.tags {
            let state = match tag {
                tag if unfinished.written.contains(tag) => "points at the image",
                tag if unfinished.unsure.as_ref() == Some(tag) => "may have been moved: no answer came",
                _ => "was not moved",
            };
            failure = failure.hint(format!("{tag} {state}"));
        }
        let digest = &unfinished.image.digest;
        let at = unfinished.repositories.iter().map(|repository| format!("{repository}@{digest}"));
        let failure = failure.hint(format!("the image is there: {}", at.collect::<Vec<_>>().join(", ")));
        if !unfinished.signs {
            return failure.hint("build again: what was built is in the builders' caches");
        }
        failure
            .hint(format!("finish with: {}", shell_line(&unfinished.resume(flags))))
            .hint("soon: registries remove images without a tag after a while, some within an hour")
    }

    /// A build that did not come to its end; `flags` are those that the finishing command needs.
    pub(super) fn build(error: BuildError, flags: &[String]) -> Self {
        match error {
            BuildError::Unfinished { error, unfinished } => Self::unfinished(error, &unfinished, flags),
            BuildError::Interrupted(cause) => Self::interrupted(cause),
            BuildError::Failed(failure) => Self::daemon(&failure),
            BuildError::Preflight(error) => Self::preflight(&error),
            BuildError::Platform(error) => Self::unplaced(&error),
            BuildError::Reach(ReachError::Cluster(error)) => Self::cluster(error),
            BuildError::Reach(error) => Self::reach(&error),
            BuildError::Pod(loss) => {
                let hint = loss.hint();
                Self::new(&loss, UNAVAILABLE).hints(hint)
            }
            BuildError::Context(error) => Self::new(&error, FAILED)
                .hint("nothing was pushed; what the build does not need can be named in `.dockerignore`"),
            BuildError::Part { platforms, source } => {
                let mut failure = Self::build(*source, flags);
                failure.report.error = format!("{platforms}: {}", failure.report.error);
                failure.hint("the other platforms were stopped; nothing was tagged")
            }
            BuildError::Join(error) => {
                let registry = find::<RegistryError>(&error).and_then(hints::registry);
                Self::new(&error, FAILED)
                    .hints(registry)
                    .hint("no tag was moved; build again: what was built is in the builders' caches")
            }
            BuildError::Mute { ref source, .. } => {
                let hint = hints::registry(source);
                Self::new(&error, FAILED).hints(hint)
            }
            error @ BuildError::NoDigest => Self::new(&error, BUG),
            error @ (BuildError::Session(_) | BuildError::Lost { .. }) => Self::new(&error, UNAVAILABLE),
        }
    }

    fn preflight(error: &PreflightError) -> Self {
        match error {
            PreflightError::Key { source: KeyError::WrongPassword, password_source, .. } => {
                Self::new(error, USAGE).hint(format!("the password came from {password_source}"))
            }
            PreflightError::Key { .. } | PreflightError::Secret { .. } | PreflightError::Unloggable(_) => {
                Self::new(error, USAGE)
            }
            PreflightError::Unagreed(_) => Self::new(error, USAGE)
                .hint("nothing was signed; say `--yes` if that is meant, or name other services"),
            PreflightError::Kms(error) => Self::kms(error),
            PreflightError::Keyless(source) => {
                let mut failure = Self::new(source.as_ref(), keyless_code(source));
                if let Some(error) = find::<ClusterError>(source.as_ref()) {
                    failure = failure.hints(error.hint());
                }
                failure.hints(hints::keyless(source))
            }
            PreflightError::Push { source, .. } => Self::new(error, FAILED).hints(hints::registry(source)),
        }
    }

    /// No pod for each platform.
    pub(super) fn sites(error: SitesError) -> Self {
        match error {
            SitesError::Cluster(error) => Self::cluster(error),
            SitesError::Unplaced(error) => Self::unplaced(&error),
            error @ SitesError::NoDigest => Self::new(&error, USAGE).hint(
                "add `--push`, or leave out what asks for the digest: `-q`, `--iidfile`, `--metadata-file`",
            ),
        }
    }

    /// A platform that nothing builds.
    pub(super) fn unplaced(error: &Unplaced) -> Self {
        let os = &error.platform.os;
        let architecture = &error.platform.architecture;
        let failure = Self::new(error, UNAVAILABLE);
        let failure = match error.emulate {
            _ if os != "linux" => failure,
            true => failure.hint(format!(
                "QEMU is not there for it: run the image `tonistiigi/binfmt` with `--install {architecture}` in a privileged pod on the builder's node"
            )),
            false => failure.hint(format!("add a node of architecture {architecture}, or let QEMU run it with `--emulate`")),
        };
        let failure = match error.unlisted {
            true => failure.hint("you may not list nodes, so only the builder's own pods were looked at: for a pod on each architecture, have the ClusterRole `kubectl-build-nodes` (hack/rbac.yaml) bound to you"),
            false => failure,
        };
        failure
            .hint("if the Dockerfile cross-compiles, so that nothing of that platform is run, say `--cross`")
    }

    fn reach(error: &ReachError) -> Self {
        let hint = match error {
            ReachError::Exec(error) => error.hint(),
            ReachError::Pod { loss, .. } => loss.hint(),
            ReachError::Mute { stderr: Some(stderr), .. } => Some(format!("the pod says: {}", stderr.trim())),
            ReachError::Dial(_) => {
                Some("`--builder` takes a builder's name, `unix://PATH` or `tcp://HOST:PORT`".to_owned())
            }
            _ => None,
        };
        Self::new(error, UNAVAILABLE).hints(hint)
    }

    fn daemon(failure: &buildkit::failure::Failure) -> Self {
        let (code, hint) = match failure.class {
            Class::Internal => (INTERNAL, None),
            Class::ResourceExhausted => (EXHAUSTED, Some("the builder's node is out of disk or memory")),
            Class::Unavailable | Class::Timeout => (UNAVAILABLE, None),
            Class::Cancelled => (FAILED, Some("the daemon cancelled the build: is somebody stopping it?")),
            Class::Unsupported => (
                FAILED,
                Some(
                    "a newer builder may do it: `kubectl buildkit create NAME --image IMAGE`, then build with `--builder NAME`",
                ),
            ),
            Class::MessageTooLarge | Class::BuildFailed => (FAILED, hints::push(&failure.message)),
        };
        let killed = (failure.exit_code == Some(buildkit::failure::KILLED)).then_some(
            "the process was killed, most often because the builder ran out of memory: build with less in parallel, or give the builder more",
        );
        let mut failed = Self::said(failure.message.clone(), code).hints(hint.or(killed).map(str::to_owned));
        failed.report.excerpts = failure.sources.iter().map(excerpt).collect();
        failed.tells_steps = true;
        failed
    }

    /// Reads the key of a client certificate.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn read_tls(tls: &Tls) -> Result<buildkit::Tls, Self> {
        let identity = match &tls.client {
            None => None,
            Some((certificate, path)) => {
                let failed = |source| Misuse::File { name: "--builder-tls-key", path: path.clone(), source };
                Some((certificate.clone(), std::fs::read(path).map_err(failed)?.into()))
            }
        };
        Ok(buildkit::Tls { ca: tls.ca.clone(), identity, server_name: tls.server_name.clone() })
    }
}

impl From<Misuse> for Failure {
    fn from(error: Misuse) -> Self {
        let hint = error.hint();
        Self::new(&error, USAGE).hints(hint)
    }
}

/// A token or a wish that won't do is for the user to mend; a service that doesn't answer is a refusal.
fn keyless_code(error: &KeylessError) -> u8 {
    match error {
        KeylessError::Identity(IdentityError::Service { .. } | IdentityError::Http(_)) => FAILED,
        KeylessError::Identity(_) | KeylessError::Missing(_) => USAGE,
        KeylessError::Login(LoginError::Client { .. }) => USAGE,
        KeylessError::Service(ServiceError::Format { .. } | ServiceError::NoClock { .. }) => USAGE,
        _ => FAILED,
    }
}

/// Puts flags into each kubectl line of a hint that stands between backticks.
fn reaching(hint: &str, flags: &str) -> String {
    let with_flags = |(index, part): (usize, &str)| {
        let line = ["kubectl buildkit ", "kubectl build ", "kubectl "].into_iter().find_map(|start| {
            let rest = part.strip_prefix(start).filter(|_| index % 2 == 1)?;
            Some(format!("{start}{flags} {rest}"))
        });
        line.unwrap_or_else(|| part.to_owned())
    };
    hint.split('`').enumerate().map(with_flags).collect::<Vec<_>>().join("`")
}

fn excerpt(source: &Source) -> Excerpt {
    let lines = source.excerpt().into_iter();
    let lines = lines
        .map(|line| ExcerptLine { number: line.number, text: line.text, marked: line.at_fault })
        .collect();
    Excerpt { file: source.filename.clone(), lines }
}

/// Returns the first error of this type in a chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The runtime or the signal handlers could not be had.
pub(super) fn no_runtime(error: &io::Error) -> u8 {
    super::say_lines([format!("error: the system gives no threads or signals: {error}")]);
    BUG
}

/// Makes a panic say that it is a bug, restore the terminal and exit with 70.
#[expect(clippy::exit, reason = "a panic unwinds nowhere in the release build")]
pub(super) fn catch_bugs() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        crate::ui::terminal::restore();
        default(panic);
        super::say_lines(["error: this is a bug in kubectl-build; please report it with the lines above"]);
        std::process::exit(i32::from(BUG));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_whose_write_was_under_way_may_have_been_moved() {
        let tag =
            |name: &str| format!("r.example/a:{name}").parse::<crate::registry::Reference>().expect("a tag");
        let unfinished = crate::build::Unfinished {
            image: crate::registry::Descriptor::bare("m", Digest::of(b"image"), 5),
            repositories: vec!["r.example/a".parse().expect("a repository")],
            tags: vec![tag("1"), tag("2"), tag("3")],
            written: vec![tag("1")],
            signs: true,
            unsure: Some(tag("2")),
        };
        let failure = Failure::unfinished(FinishError::Interrupted(Cause::Interrupt), &unfinished, &[]);
        let told = &failure.report.hints[..3];
        assert_eq!(told[0], "r.example/a:1 points at the image");
        assert!(told[1].starts_with("r.example/a:2 may have been moved"), "{told:?}");
        assert_eq!(told[2], "r.example/a:3 was not moved");
    }

    #[test]
    fn hints_reach_the_cluster_that_was_asked_for() {
        let failure = Failure::said("no", FAILED)
            .hint("make one: `kubectl buildkit create NAME`, or ask `kubectl auth can-i get pods`; not `docker login`")
            .hint("finish with: kubectl buildkit sign --context a R@D");
        let place = ["--context".to_owned(), "my cluster".to_owned()];
        let hints = failure.within(&place).report.hints;
        assert_eq!(
            hints[0],
            "make one: `kubectl buildkit --context 'my cluster' create NAME`, or ask \
             `kubectl --context 'my cluster' auth can-i get pods`; not `docker login`"
        );
        assert_eq!(hints[1], "finish with: kubectl buildkit sign --context a R@D");
    }
}
