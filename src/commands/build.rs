//! `kubectl build`.

use super::display::{self, Early, Shown};
use super::failure::Failure;
use super::registries::Passable;
use super::{files, identity, keys, print_lines, registries, report};
use crate::build::cache::CacheExport;
use crate::build::preflight;
use crate::build::reach::Place;
use crate::build::route::{PodContainer, Through};
use crate::build::signing::Signing;
use crate::build::{self, BuildOutcome, Deps, Site};
use crate::cluster::Connection;
use crate::cluster::builder::{self, BuilderSpec, Found};
use crate::cluster::buildkitd::RegistrySettings;
use crate::config::build::{BuildSettings, Parts, Progress};
use crate::config::builder::Place as Where;
use crate::config::env::Environment;
use crate::config::results::ResultKind;
use crate::config::sign::SignSettings;
use crate::config::{self, Misuse};
use crate::event::Events;
use crate::task::Cancel;
use crate::ui::printer;

/// Builds, and shows what came of it.
///
/// # Errors
/// Whatever kept it from its end.
pub(super) async fn run(parts: Parts, env: &dyn Environment, cancel: Cancel) -> Result<(), Failure> {
    let mut settings = crate::config::build::resolve(parts, env)?;
    let mode = display::mode(settings.progress, env)?;
    for (name, path) in [("--iidfile", &settings.iidfile), ("--metadata-file", &settings.metadata_file)] {
        if let Some(path) = path {
            files::clear(name, path)?;
        }
    }
    // What nobody named is written where it can be.
    settings.results.retain(|file| {
        !file.implied || file.kind == ResultKind::Outputs || files::clear(file.flag, &file.path).is_ok()
    });
    for file in settings.results.iter().filter(|file| !file.implied) {
        files::clear(file.flag, &file.path)?;
    }
    let (results, json_report) = (settings.results.clone(), settings.json_report);
    let quiet = settings.progress == Progress::Quiet;
    let (iidfile, metadata_file) = (settings.iidfile.clone(), settings.metadata_file.clone());
    let resume = resume_flags(&settings);
    let push = settings.request.push;
    let inline_cache = settings.request.caches.to.contains(&CacheExport::Inline);
    let ca_files = settings.registry.ca_file_of_each(&settings.request.repositories());
    let for_builder = settings.sign.as_ref().map(|sign| (sign.builder_key.clone(), sign.password.clone()));
    let trust = settings.sign.as_ref().map(|sign| sign.keyless.trust.clone()).unwrap_or_default();
    // While the cluster is asked, keys are unlocked: that takes longer than a small build.
    let mut signing = None;
    let mut early = Early::new();
    if let Some(sign) = settings.sign.take_if(|sign| keys::at_once(sign)) {
        signing = Some(unlock(sign, None, &early.events(), &cancel).await?);
    }
    let prepared = prepare(&settings, early.events());
    let prepared = cancel.guard(early.during(prepared)).await.map_err(Failure::interrupted)??;
    let BuildSettings { mut request, sign, .. } = settings;
    if let Some(sign) = sign {
        let events = early.events();
        let unlocking = unlock(sign, prepared.connection.as_ref(), &events, &cancel);
        signing = Some(early.during(unlocking).await?);
    }

    if let (Some((flag, password)), Some(signing)) = (for_builder, &mut signing) {
        let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
        let stored = prepared.builder_key.as_deref();
        let key = config::sign::builder_key(flag, stored, &directory, env)?;
        let events = early.events();
        let own = keys::unlock_builders(key, &password, prepared.connection.as_ref(), &events);
        let own = cancel.guard(early.during(own)).await.map_err(Failure::interrupted)??;
        let name = prepared.title.trim_start_matches("kubernetes:");
        signing.builders = own.map(|own| (own, name.to_owned()));
    }

    let Prepared { sites, registries, to_loosen, title, .. } = prepared;
    request.insecure_hosts = to_loosen;
    let registries::Registries { client, resolver, hosts, router } = registries;
    let shown = Shown::start(mode, title, env, early);
    let deps = Deps { sites, client, resolver, router, signing, resume: resume.clone() };
    let built = build::run(&request, deps, &shown.events, &cancel).await;
    let outcome = shown.end(built.map_err(|error| Failure::build(error, &resume))).await?;

    // The digests first: nobody else knows them.
    let verify = outcome.image.as_ref().map(|image| {
        let verify = report::Verification::of(image, &outcome.signers, outcome.formats, &hosts, trust);
        let verify = verify.attested(&outcome.signed).and(&request.signing, &outcome.signers, &ca_files);
        outcome.signed.iter().flat_map(|(repository, _)| verify.lines(repository)).collect::<Vec<_>>()
    });
    let verify = verify.unwrap_or_default();
    let printed = match json_report {
        true => print_lines([report::json(&outcome, &verify)]),
        false => print_lines(report::digests(&outcome, quiet)),
    };
    for file in &results {
        let content = report::result(&outcome, file.kind);
        let written = match file.kind {
            ResultKind::Outputs => files::append(&file.path, content.as_bytes()),
            _ => files::write(&file.path, content.as_bytes()),
        };
        written.map_err(|source| Failure::output(file.flag, &file.path, source))?;
    }
    write_files(&outcome, iidfile.as_deref(), metadata_file.as_deref())?;
    printed?;
    if quiet {
        return Ok(());
    }
    let mut remarks = Vec::new();
    if !push {
        let name = outcome.builds.first().map_or("", |build| build.builder.as_str());
        remarks.push(format!(
            "The result stays in the cache of builder {name}: add --push to send it to a registry."
        ));
        let unused =
            inline_cache.then(|| "An inline cache is part of a pushed image: none was written.".to_owned());
        remarks.extend(unused);
    }
    if !json_report {
        remarks.extend(report::written(&outcome.signed, outcome.formats));
        remarks.extend(report::logged(&outcome.signed));
        remarks.extend(verify);
    }
    printer::remark(remarks).await;
    Ok(())
}

/// Gathers keys and starts to unlock them.
async fn unlock(
    sign: SignSettings,
    cluster: Option<&Connection>,
    events: &Events,
    cancel: &Cancel,
) -> Result<Signing, Failure> {
    let SignSettings { keys, password, keyless, formats, formats_explicit, .. } = sign;
    let keys = async {
        identity::consent(&keyless).await?;
        keys::gather(keys, password, cluster).await
    };
    let keys = preflight::unlock(cancel.guard(keys).await.map_err(Failure::interrupted)??, events);
    identity::signing(keys, keyless, (formats, formats_explicit), cluster, events)
}

/// What a build works with, once the cluster was asked.
struct Prepared {
    connection: Option<Connection>,
    sites: Vec<Site>,
    registries: registries::Registries,
    to_loosen: Vec<String>,
    /// The reference of the builder's own key, as it stands on the builder.
    builder_key: Option<String>,
    title: String,
}

async fn prepare(settings: &BuildSettings, events: Events) -> Result<Prepared, Failure> {
    let in_cluster = matches!(settings.builder.place, Where::Cluster { .. });
    let for_secrets = settings.sign.as_ref().is_some_and(keys::need_cluster)
        || settings.sign.as_ref().is_some_and(keys::builders_needs_cluster)
        || settings.registry.needs_cluster();
    let connection = match in_cluster || for_secrets {
        true => {
            Some(Connection::connect(&settings.cluster.connect, &events).await.map_err(Failure::connect)?)
        }
        false => None,
    };
    let mut repositories = settings.request.written_to();
    repositories.extend(settings.request.caches.repositories().cloned());
    let timeout = settings.builder.timeout;
    let (sites, builder, title) = match (&settings.builder.place, &connection) {
        (Where::Cluster { name, image }, Some(connection)) => {
            let (spec, found) = find(settings, connection, name, image.clone()).await?;
            let known = found.registries().cloned().unwrap_or_default();
            let sites = build::sites(connection, spec, found, &settings.request).await;
            (sites.map_err(Failure::sites)?, known, format!("kubernetes:{name}"))
        }
        (Where::Unix(path), _) => {
            let place = Place::Unix { path: path.clone(), timeout };
            (vec![Site::only(place)], RegistrySettings::default(), format!("unix:{}", path.display()))
        }
        (Where::Tcp { host, port, tls }, _) => {
            let tls = tls.as_ref().map(Failure::read_tls).transpose()?;
            let place = Place::Tcp { host: host.clone(), port: *port, tls, timeout };
            (vec![Site::only(place)], RegistrySettings::default(), format!("tcp:{host}:{port}"))
        }
        (Where::Cluster { .. }, None) => unreachable!("a builder in the cluster connects to it"),
    };
    let passable = Passable {
        connection: connection.as_ref(),
        options: &settings.cluster.connect,
        through: match sites.first().map(|site| &site.place) {
            Some(Place::Cluster { found: Some(builder), .. }) => Through::Pod(PodContainer::from(&**builder)),
            Some(Place::Cluster { found: None, .. }) | None => Through::Awaited,
            Some(Place::Unix { .. } | Place::Tcp { .. }) => Through::Outside(title.clone()),
        },
        events,
    };
    let registries = registries::open(&settings.registry, passable, &builder, &repositories).await?;
    let to_loosen = registries::to_loosen(&settings.registry.hosts, &builder);
    let builder_key = builder.builder_key;
    Ok(Prepared { connection, sites, registries, to_loosen, builder_key, title })
}

/// Looks for the builder. One that has to be made is made for the registries that the flags speak of; one that is
/// there must know their CAs, because nothing that is sent with a build can tell it.
async fn find(
    settings: &BuildSettings,
    connection: &Connection,
    name: &str,
    image: Option<String>,
) -> Result<(BuilderSpec, Found), Failure> {
    let mut spec = BuilderSpec::named(name, settings.builder.timeout);
    spec.image = image;
    let context = settings.request.context.to_string_lossy();
    let found = builder::find(connection, &spec, &context).await.map_err(Failure::cluster)?;
    let repositories = settings.request.with_caches();
    let hosts = settings.registry.for_repositories(&repositories);
    let Some(known) = found.registries() else {
        if matches!(found, Found::Absent) {
            spec.registries = config::builder::registries(&hosts)?;
        }
        return Ok((spec, found));
    };
    // Caches may be anywhere: a CA that names no host need not be theirs.
    let pushed = settings.request.repositories();
    let meant = |host: &&config::registry::HostSettings| {
        pushed.iter().any(|repository| repository.registry == host.host)
            || settings.registry.hosts.iter().any(|flag| flag.host == host.host)
    };
    let pushed = hosts.iter().filter(meant);
    for host in pushed.filter(|host| !host.ca.is_empty()) {
        let at = known.hosts.get(&host.host);
        let unread = known.unread.iter().any(|(name, _)| *name == host.host);
        if !unread && at.is_none_or(|at| at.ca_pem.is_empty() && !at.insecure && !at.http) {
            return Err(Failure::builder_lacks_ca(name, &host.host));
        }
    }
    Ok((spec, found))
}

/// The flags that the command which finishes the job needs from this one.
fn resume_flags(settings: &BuildSettings) -> Vec<String> {
    let mut flags = settings.cluster.flags.clone();
    if let Where::Cluster { name, .. } = &settings.builder.place {
        // Its registry settings are the builder's.
        flags.extend(["--builder".to_owned(), name.clone()]);
    }
    flags.extend(settings.registry.flags.iter().cloned());
    if let Some(sign) = &settings.sign {
        flags.extend(sign.flags.iter().cloned());
        flags.extend((!settings.request.attests.is_empty()).then(|| "--attestations".to_owned()));
    }
    flags
}

fn write_files(
    built: &BuildOutcome,
    iidfile: Option<&std::path::Path>,
    metadata_file: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let write = |name, path: &std::path::Path, content: &[u8]| {
        files::write(path, content).map_err(|source| Failure::output(name, path, source))
    };
    if let (Some(path), Some(digest)) = (iidfile, built.digest()) {
        write("--iidfile", path, digest.to_string().as_bytes())?;
    }
    if let Some(path) = metadata_file {
        write("--metadata-file", path, &report::metadata(built))?;
    }
    Ok(())
}
