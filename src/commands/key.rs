//! `kubectl buildkit key`: makes, imports and shows keys.

use super::display::Early;
use super::failure::Failure;
use super::{files, print_lines, verifiers};
use crate::cli::cluster::ClusterArgs;
use crate::cli::key::{GenerateArgs, ImportArgs, KeyVerb, PublicArgs};
use crate::cluster::{self, Connection};
use crate::config::env::Environment;
use crate::config::key::{self, NewKeyPlace};
use crate::config::sign::Password;
use crate::config::{self, Misuse};
use crate::sign::http::Http;
use crate::sign::key::{KeyError, SealedPair};
use crate::task::{self, Cancel};
use crate::ui::printer;
use crate::ui::prompt::{self, PromptError};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::Path;

/// Runs one of the verbs.
///
/// # Errors
/// Whatever kept it from its end; no half of a key stays without the other.
pub(super) async fn run(
    verb: KeyVerb,
    cluster: ClusterArgs,
    env: &dyn Environment,
    cancel: Cancel,
) -> Result<(), Failure> {
    let work = async {
        match verb {
            KeyVerb::Generate(args) => generate(args, cluster, env).await,
            KeyVerb::Import(args) => import(args, env).await,
            KeyVerb::Public(args) => public(args, cluster, env).await,
        }
    };
    cancel.guard(work).await.map_err(Failure::interrupted)?
}

async fn generate(args: GenerateArgs, cluster: ClusterArgs, env: &dyn Environment) -> Result<(), Failure> {
    let GenerateArgs { place, new } = args;
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let place = place.map(|place| key::place(&place, &directory, env)).transpose()?;
    if matches!(place, Some((_, NewKeyPlace::Kms(_)))) && new.cosign_password_file.is_some() {
        return Err(Misuse::PasswordUnused.into());
    }
    let settings = key::resolve(new, &directory, env)?;
    let Some((reference, place)) = place else {
        let replace = may_replace(&[&settings.private, &settings.public]).await?;
        let password = new_password(settings.password).await?;
        let pair = sealed(move || SealedPair::generate(&password)).await?;
        return write_pair(&settings.private, &settings.public, &pair, replace).await;
    };
    let replace = may_replace(&[&settings.public]).await?;
    let public = match place {
        NewKeyPlace::Secret { namespace, name } => {
            let cluster = config::cluster::resolve(cluster, &directory, env)?;
            let mut early = Early::new();
            let events = early.events();
            let connection = early.during(Connection::connect(&cluster.connect, &events)).await;
            let connection = connection.map_err(Failure::connect)?;
            let (pair, password) = new_pair(settings.password).await?;
            let entries = [
                ("cosign.key", pair.private.expose_secret().as_bytes()),
                ("cosign.password", password.expose_secret().as_bytes()),
                ("cosign.pub", pair.public.as_bytes()),
            ];
            let made = cluster::secret::create(&connection, &namespace, &name, entries).await;
            made.map_err(|error| Failure::new_secret(&reference, error))?;
            pair.public
        }
        NewKeyPlace::Gitlab(project, http) => {
            let http = Http::new(&http).map_err(Failure::services)?;
            let failed = |error| Failure::new_in_gitlab(&reference, &error);
            project.is_free(&http).await.map_err(failed)?;
            let (pair, password) = new_pair(settings.password).await?;
            project.keep(&http, &pair, &password).await.map_err(failed)?;
            pair.public
        }
        NewKeyPlace::Kms(kms) => kms.create(&reference).await.map_err(|error| Failure::kms(&error))?.to_pem(),
    };
    files::create(&settings.public, public.as_bytes(), files::Access::Everyone, replace)
        .map_err(|source| Failure::output("the public key", &settings.public, source))?;
    print_lines([&reference, &settings.public.display().to_string()])?;
    printer::remark([format!("sign with `--cosign-key {reference}`, verify with `--key {reference}`")]).await;
    Ok(())
}

/// Makes a pair for a place that keeps its password, too.
async fn new_pair(password: Password) -> Result<(SealedPair, SecretString), Failure> {
    let password = new_password(password).await?;
    let kept = password.clone();
    Ok((sealed(move || SealedPair::generate(&password)).await?, kept))
}

async fn import(args: ImportArgs, env: &dyn Environment) -> Result<(), Failure> {
    let ImportArgs { file, new } = args;
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let settings = key::resolve(new, &directory, env)?;
    let path = directory.join(&file);
    let failed = |source| Misuse::File { name: "FILE", path: path.clone(), source };
    let pem = zeroize::Zeroizing::new(std::fs::read(&path).map_err(failed)?);
    let replace = may_replace(&[&settings.private, &settings.public]).await?;
    let old = match &settings.password {
        _ if !SealedPair::has_password(&pem) => SecretString::default(),
        // Who says one password means it for both.
        Password::Given { .. } => new_password(settings.password.clone()).await?,
        Password::Ask if !prompt::available() => return Err(Failure::no_new_password()),
        Password::Ask => ask(&format!("Password of {}", file.display())).await?,
    };
    let password = new_password(settings.password).await?;
    let pair = sealed(move || SealedPair::import(&pem, &old, &password)).await;
    let pair = pair.map_err(|failure| failure.about_file(&file))?;
    write_pair(&settings.private, &settings.public, &pair, replace).await
}

async fn public(args: PublicArgs, cluster: ClusterArgs, env: &dyn Environment) -> Result<(), Failure> {
    let PublicArgs { key, cosign_password_file } = args;
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let (key, password) = key::existing(key, cosign_password_file.as_deref(), &directory, env)?;
    let connection = match verifiers::needs_cluster(&key) {
        true => {
            let cluster = config::cluster::resolve(cluster, &directory, env)?;
            let mut early = Early::new();
            let events = early.events();
            let connected = early.during(Connection::connect(&cluster.connect, &events)).await;
            Some(connected.map_err(Failure::connect)?)
        }
        false => None,
    };
    let found = verifiers::of_key(key, &password, connection.as_ref()).await?;
    print_lines([found.key.to_pem().trim_end()])
}

/// Makes a pair where it holds up nobody.
async fn sealed(
    make: impl FnOnce() -> Result<SealedPair, KeyError> + Send + 'static,
) -> Result<SealedPair, Failure> {
    task::spawn_blocking(make).join().await.map_err(Failure::new_key)
}

async fn write_pair(private: &Path, public: &Path, pair: &SealedPair, replace: bool) -> Result<(), Failure> {
    let bytes = pair.private.expose_secret().as_bytes();
    files::create(private, bytes, files::Access::Owner, replace)
        .map_err(|source| Failure::output("the private key", private, source))?;
    let written = files::create(public, pair.public.as_bytes(), files::Access::Everyone, replace);
    if let Err(source) = written {
        if !replace {
            // Without its other half it would be found and believed in one day.
            let _told_below = std::fs::remove_file(private);
        }
        return Err(Failure::output("the public key", public, source));
    }
    print_lines([private.display(), public.display()])?;
    let (private, public) = (private.display(), public.display());
    printer::remark([format!("sign with `--cosign-key {private}`, verify with `--key {public}`")]).await;
    Ok(())
}

/// Asks before files that are there are replaced; a key that is gone is gone for good.
async fn may_replace(paths: &[&Path]) -> Result<bool, Failure> {
    let there = paths.iter().filter(|path| path.symlink_metadata().is_ok());
    let there: Vec<_> = there.map(|path| path.display().to_string()).collect();
    if there.is_empty() {
        return Ok(false);
    }
    let there = there.join(" and ");
    if !prompt::available() {
        return Err(Failure::key_exists(&there));
    }
    match prompt::confirm(&format!("{there}: already there. Replace?")).await {
        Ok(true) => Ok(true),
        // The signal that ended the question cancels everything in a moment, and knows the exit code.
        Err(PromptError::Interrupted) => std::future::pending().await,
        _ => Err(Failure::key_exists(&there)),
    }
}

/// Finds the password of a new key: what was given, or what somebody types twice.
async fn new_password(password: Password) -> Result<SecretString, Failure> {
    let given = match password {
        Password::Given { text, source } if source == key::PASSWORD_FILE => {
            // Editors end files with a newline that nobody would type.
            let text = text.expose_secret();
            return Ok(text.strip_suffix('\n').unwrap_or(text).into());
        }
        Password::Given { text, .. } => return Ok(text),
        Password::Ask if !prompt::available() => return Err(Failure::no_new_password()),
        Password::Ask => ask("Password for the new key").await?,
    };
    let again = ask("The same again").await?;
    match given.expose_secret() == again.expose_secret() {
        true => Ok(given),
        false => Err(Failure::passwords_differ()),
    }
}

async fn ask(question: &str) -> Result<SecretString, Failure> {
    match prompt::password(question).await {
        Err(PromptError::Interrupted) => std::future::pending().await,
        answer => answer.map_err(|error| Failure::prompt("the new key", error)),
    }
}
