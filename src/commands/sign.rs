//! `kubectl buildkit sign`: finishes what an interrupted build left behind.

use super::display::{self, Early, Shown};
use super::failure::Failure;
use super::registries::Passable;
use super::{identity, keys, print_lines, registries, report};
use crate::build::finish::Finish;
use crate::build::preflight;
use crate::build::signing::Ready;
use crate::cli::buildkit::SignArgs;
use crate::cli::cluster::ClusterArgs;
use crate::cluster::Connection;
use crate::config::env::Environment;
use crate::config::sign::{SignSettings, SignTarget};
use crate::config::{self, Misuse};
use crate::registry::{Client, Descriptor, Digest, Repository};
use crate::task::Cancel;
use crate::ui::printer;

/// Signs, verifies, writes the tags.
///
/// # Errors
/// Whatever kept it from that; it can be run again.
pub(super) async fn run(
    args: SignArgs,
    cluster: ClusterArgs,
    verbose: u8,
    env: &dyn Environment,
    cancel: Cancel,
) -> Result<(), Failure> {
    let directory = env.current_dir().map_err(Misuse::WorkingDirectory)?;
    let SignArgs { references, tags, attestations, keys, annotations, how, builder, registry, progress } =
        args;
    let SignTarget { digest, repositories, tags } = config::sign::target(&references, &tags)?;
    let mut settings = config::sign::resolve(keys, &directory, env)?;
    settings.add(config::sign::options(how, ("--annotations", &annotations), env)?);
    let options = settings.options.clone();
    let trust = settings.keyless.trust.clone();
    let registry = config::registry::resolve(registry, &directory, env)?;
    let cluster = config::cluster::resolve(cluster, &directory, env)?;
    let mode = display::mode(config::build::progress(progress, false, verbose, env)?, env)?;
    let mut flags = cluster.flags.clone();
    flags.extend(builder.iter().flat_map(|name| ["--builder".to_owned(), name.clone()]));
    flags.extend(registry.flags.iter().cloned());
    flags.extend(settings.flags.iter().cloned());
    flags.extend(attestations.then(|| "--attestations".to_owned()));

    let mut written_to = repositories.clone();
    written_to.extend(options.storage.clone());
    let needs_cluster = keys::need_cluster(&settings)
        || keys::builders_needs_cluster(&settings)
        || registry.needs_cluster()
        || builder.is_some();
    let mut early = Early::new();
    let events = early.events();
    let prepared = async {
        let connection = match needs_cluster {
            true => Some(Connection::connect(&cluster.connect, &events).await.map_err(Failure::connect)?),
            false => None,
        };
        let known = registries::of_builder(builder.as_deref(), connection.as_ref()).await?;
        let passable = Passable {
            connection: connection.as_ref(),
            options: &cluster.connect,
            through: registries::through(builder.as_deref()),
            events: events.clone(),
        };
        let registries = registries::open(&registry, passable, &known, &written_to).await?;
        let SignSettings { keys, password, keyless, formats, formats_explicit, builder_key: flag, .. } =
            settings;
        identity::consent(&keyless).await?;
        let keys = keys::gather(keys, password.clone(), connection.as_ref()).await?;
        let keys = preflight::unlock(keys, &events);
        let key = config::sign::builder_key(flag, known.builder_key.as_deref(), &directory, env)?;
        let own = keys::unlock_builders(key, &password, connection.as_ref(), &events).await?;
        let formats = (formats, formats_explicit);
        let mut signing = identity::signing(keys, keyless, formats, connection.as_ref(), &events)?;
        signing.builders = own.map(|own| {
            let name = builder.clone().unwrap_or_else(|| config::builder::DEFAULT_NAME.to_owned());
            (own, name)
        });
        Ok::<_, Failure>((registries, signing))
    };
    let (registries, signing) =
        cancel.guard(early.during(prepared)).await.map_err(Failure::interrupted)??;

    let shown = Shown::start(mode, "sign".to_owned(), env, early);
    let work = async {
        let client = &registries.client;
        let ready = cancel.guard(signing.prepare(&shown.events)).await.map_err(Failure::interrupted)?;
        let Ready { signers, formats } = ready.map_err(|error| Failure::build(error.into(), &flags))?;
        let found = cancel.guard(find(client, &repositories, &digest)).await;
        let image = found.map_err(Failure::interrupted)??;
        let finish = Finish {
            client,
            signers: &signers,
            formats,
            options: &options,
            image: image.clone(),
            repositories: repositories.clone(),
            tags: tags.clone(),
            attest: attestations,
            attested: None,
        };
        let signed = finish.run(&shown.events, &cancel).await;
        let signed = signed.map_err(|(error, unfinished)| Failure::unfinished(error, &unfinished, &flags))?;
        let verify = report::Verification::of(&image, &signers, formats, &registries.hosts, trust);
        let ca_files = registry.ca_file_of_each(&repositories);
        let verify = verify.attested(&signed).and(&options, &signers, &ca_files);
        let mut remarks = report::written(&signed, formats);
        remarks.extend(report::logged(&signed));
        Ok((remarks, verify))
    };
    let result = work.await;
    let (remarks, verify) = shown.end(result).await?;
    print_lines(match tags.as_slice() {
        [] => repositories.iter().map(|repository| format!("{repository}@{digest}")).collect::<Vec<_>>(),
        tags => tags.iter().map(|tag| format!("{tag}@{digest}")).collect(),
    })?;
    let verify = repositories.iter().flat_map(|repository| verify.lines(repository));
    printer::remark(remarks.into_iter().chain(verify)).await;
    Ok(())
}

/// Makes sure that the image is in each of the repositories: a signature of one that isn't there could be made, too.
async fn find(client: &Client, repositories: &[Repository], digest: &Digest) -> Result<Descriptor, Failure> {
    let mut image = None;
    for repository in repositories {
        let found = client.head_manifest(repository, &digest.to_string()).await;
        let found = found.map_err(|error| Failure::registry(&error))?;
        image = Some(found.ok_or_else(|| Failure::no_image(repository, digest))?);
    }
    Ok(image.expect("something is signed"))
}
