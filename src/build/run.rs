//! One build, start to end.

use super::error::BuildError;
use super::finish::Finish;
use super::join::Join;
use super::outcome::{BuildOutcome, Builds, Unfinished, shell_line};
use super::part::{self, Common, Site, Solved};
use super::placement::Group;
use super::plan::{self, Delivery};
use super::preflight;
use super::record;
use super::request::BuildRequest;
use super::route::Router;
use super::signing::{Ready, Signing};
use crate::event::Events;
use crate::registry::credentials::Resolver;
use crate::registry::{self, Descriptor};
use crate::sign::Attested;
use crate::task::{Cancel, Cause};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What a build works with.
pub struct Deps {
    /// The builders, one for each architecture that is needed; at least one.
    pub sites: Vec<Site>,
    /// The registries, for our own calls.
    pub client: registry::Client,
    /// Credentials, for the daemon's.
    pub resolver: Arc<Resolver>,
    /// How registries are reached.
    pub router: Arc<Router>,
    /// Who signs, if the build does.
    pub signing: Option<Signing>,
    /// The flags that the command needs which would finish the job.
    pub resume: Vec<String>,
}

/// Runs a build.
///
/// # Errors
/// Whatever ended it; [`BuildError::Unfinished`] alone leaves something behind: an image that no tag points at.
pub async fn run(
    request: &BuildRequest,
    deps: Deps,
    events: &Events,
    cancel: &Cancel,
) -> Result<BuildOutcome, BuildError> {
    let Deps { sites, client, resolver, router, signing, resume } = deps;
    let repositories = request.repositories();
    let joined = sites.len() > 1;
    let delivery = plan::delivery(request, signing.is_some(), joined);
    let attest = !request.attests.is_empty();
    let sign_attested = attest && signing.is_some();

    // The builder is reached, and the solve begun, while keys and registries are checked: the daemon gets nothing to
    // build before they are. A builder that isn't there is made after, or before those registries are checked that are
    // reached through it.
    let (let_make, make) = watch::channel(false);
    let (give_leave, leave) = watch::channel(false);
    let checked = async {
        let checking = async {
            let mut written = match &signing {
                Some(_) => request.written_to(),
                // The index is pushed by us, from here.
                None if joined && request.push => repositories.clone(),
                None => return Ok(Ready::default()),
            };
            // Not those in registries that perhaps nobody but the builder reaches.
            let caches = request.caches.needed().filter(|cache| {
                let known = written.iter().any(|known| known.registry == cache.registry);
                known && !written.contains(cache)
            });
            let caches: Vec<_> = caches.cloned().collect();
            written.extend(caches);
            let (ready, later) = preflight::check(signing, &client, &written, events).await?;
            if !later.is_empty() {
                let_make.send_replace(true);
                router.builder_there().await;
                preflight::check_pushes(&client, &later, events).await?;
            }
            // Nobody is asked to log in for what would come to nothing.
            ready.signers.iter().for_each(|signer| signer.begin());
            Ok::<_, BuildError>(ready)
        };
        let ready = cancel.guard(checking).await.map_err(BuildError::Interrupted)??;
        let_make.send_replace(true);
        give_leave.send_replace(true);
        Ok::<_, BuildError>(ready)
    };
    let common = Common {
        request,
        delivery: &delivery,
        client: &client,
        resolver: &resolver,
        router: &router,
        make,
        leave,
        joined,
        sign_attested,
    };
    let (Ready { signers, formats }, solved) =
        tokio::try_join!(checked, parts(&common, &sites, events, cancel))?;

    let response = match &solved[..] {
        [only] => only.response.clone(),
        // What the whole image is, no builder knows; of what each recorded nothing is lost.
        several => {
            let all = several.iter().flat_map(|part| part.response.clone());
            all.filter(|(key, _)| key.starts_with(record::PROVENANCE)).collect()
        }
    };
    let builds = solved.iter().zip(&sites).map(|(part, site)| Builds {
        builder: part.reached.name.clone(),
        pod: part.reached.pod.as_ref().map(|pod| pod.name.clone()),
        reference: part.reference.clone(),
        platforms: site.group.as_ref().map(Group::names).unwrap_or_default(),
        digest: part.image.as_ref().map(|made| made.digest),
    });
    let mut warnings = Vec::new();
    for warning in solved.iter().filter(|_| request.warnings_wanted).flat_map(|part| part.warnings.so_far()) {
        // Builders read the same Dockerfile.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let mut outcome =
        BuildOutcome { warnings, response, builds: builds.collect(), ..BuildOutcome::default() };
    if delivery == Delivery::Cache {
        return Ok(outcome);
    }
    let pushed: Option<Vec<Descriptor>> = solved.iter().map(|part| part.image.clone()).collect();
    let pushed = pushed.ok_or(BuildError::NoDigest)?;
    let image = match &pushed[..] {
        [only] => only.clone(),
        // Nothing that several builders made is one image before it is pushed.
        _ if !request.push => return Ok(outcome),
        _ => {
            let platforms = request.platforms.as_slice();
            let annotations = request.annotations.as_slice();
            let join = Join {
                client: &client,
                pushed: &pushed,
                repositories: &repositories,
                platforms,
                annotations,
            };
            cancel.guard(join.run(events)).await.map_err(BuildError::Interrupted)??
        }
    };
    outcome.image = Some(image.clone());
    if let Delivery::ByDigest(repositories) = delivery {
        let tags = request.tags.clone();
        if !signers.is_empty() {
            // Somebody who is killed from here on says nothing any more.
            let step = events.step("pushed", format!("the image is pushed as {}", image.digest));
            let left = Unfinished {
                image: image.clone(),
                repositories: repositories.clone(),
                tags: tags.clone(),
                written: Vec::new(),
                unsure: None,
                signs: true,
            };
            step.line(format!(
                "should this be cut short, finish with: {}",
                shell_line(&left.resume(&resume))
            ));
            step.done();
        }
        let finish = Finish {
            client: &client,
            signers: &signers,
            formats,
            options: &request.signing,
            image,
            repositories,
            tags,
            attest,
            attested: solved
                .iter()
                .map(|part| part.attested.clone())
                .collect::<Option<Vec<_>>>()
                .map(Attested::join),
        };
        let signed = finish.run(events, cancel).await;
        outcome.signed = signed.map_err(|(error, unfinished)| BuildError::Unfinished {
            error,
            unfinished: Box::new(unfinished),
        })?;
    }
    (outcome.signers, outcome.formats) = (signers, formats);
    if request.push {
        outcome.tags.clone_from(&request.tags);
    }
    Ok(outcome)
}

/// Runs all parts at the same time. The first that fails ends the others, in order, and is the one that is told of.
async fn parts(
    common: &Common<'_>,
    sites: &[Site],
    events: &Events,
    cancel: &Cancel,
) -> Result<Vec<Solved>, BuildError> {
    if let [only] = sites {
        return Ok(vec![part::run(common, only, events, cancel).await?]);
    }
    let together = cancel.child();
    let first: Mutex<Option<BuildError>> = Mutex::new(None);
    let running = sites.iter().map(|site| async {
        let group = site.group.as_ref();
        let lane = group.map_or("", |group| group.architecture.as_str());
        let error = match part::run(common, site, &events.lane(lane), &together).await {
            Ok(solved) => return Some(solved),
            Err(error) => error,
        };
        let platforms = group.map(|group| group.names()).unwrap_or_default();
        let error = match error {
            BuildError::Interrupted(cause) => BuildError::Interrupted(cause),
            error => BuildError::Part { platforms, source: Box::new(error) },
        };
        first.lock().expect("no holder of the lock panics").get_or_insert(error);
        together.cancel(Cause::Terminate);
        None
    });
    let ended = futures_util::future::join_all(running).await;
    match (cancel.cause(), first.into_inner().expect("no holder of the lock panics")) {
        (Some(cause), Some(_)) => Err(BuildError::Interrupted(cause)),
        (None, Some(error)) => Err(error),
        (_, None) => Ok(ended.into_iter().flatten().collect()),
    }
}
