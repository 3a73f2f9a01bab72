//! One builder's part of a build: reached, asked, solved.

use super::content;
use super::credentials::RegistryCredentials;
use super::error::BuildError;
use super::placement::{Group, How, Unplaced};
use super::plan::{self, Delivery, Share, SolvePlan};
use super::reach::{self, Place, Reached};
use super::record;
use super::request::BuildRequest;
use super::route::Router;
use super::settle::settle;
use crate::buildkit::solve::{self, Exporter, Pushing, SolveError, SolveRequest, Still};
use crate::buildkit::{Lost, Warnings};
use crate::event::Events;
use crate::image::Platform;
use crate::registry::credentials::Resolver;
use crate::registry::{self, Descriptor, Reference, Repository};
use crate::session::auth::Auth;
use crate::session::filesync::{self, FileSync, LocalDir};
use crate::session::{Attachable, Session, SessionError, SessionOptions};
use crate::sign::Attested;
use crate::task::Cancel;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the daemon's own error is waited for once the session has failed.
const OWN_ERROR: Duration = Duration::from_secs(3);

/// How long a push may tell nothing before we ask the registry ourselves whether it still answers.
const QUIET_PUSH: Duration = Duration::from_secs(20);

/// A builder, and what was planned for it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where it is.
    pub place: Place,
    /// What it builds; without a plan it builds everything, as its daemon can.
    pub group: Option<Group>,
    /// There may be nodes that nobody told of: they may not be listed.
    pub unlisted: bool,
}

impl Site {
    /// Returns the only builder of a build, which has no plan.
    pub fn only(place: Place) -> Self {
        Self { place, group: None, unlisted: false }
    }
}

/// What all parts have in common.
pub(super) struct Common<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) delivery: &'a Delivery,
    pub(super) client: &'a registry::Client,
    pub(super) resolver: &'a Arc<Resolver>,
    pub(super) router: &'a Router,
    /// A builder may be made: keys and registries were found to be in order, as far as that can be known without one.
    pub(super) make: watch::Receiver<bool>,
    /// All of them were.
    pub(super) leave: watch::Receiver<bool>,
    /// Several builders build at once.
    pub(super) joined: bool,
    /// What the builders attest will be signed.
    pub(super) sign_attested: bool,
}

/// What a part brought about.
pub(super) struct Solved {
    pub(super) response: BTreeMap<String, String>,
    pub(super) reached: Reached,
    /// The build's id at this daemon.
    pub(super) reference: String,
    /// The image, as the exporter replied it.
    pub(super) image: Option<Descriptor>,
    /// What it attested, where that is to be signed and it could be had from here.
    pub(super) attested: Option<Attested>,
    /// What it was warned of.
    pub(super) warnings: Warnings,
}

/// Reads the image's descriptor from the exporter's reply.
fn image(response: &BTreeMap<String, String>) -> Option<Descriptor> {
    let text = response.get("containerimage.descriptor")?;
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
}

/// Runs one part: reaches the builder, or makes it once that is allowed, and solves there.
pub(super) async fn run(
    common: &Common<'_>,
    site: &Site,
    events: &Events,
    cancel: &Cancel,
) -> Result<Solved, BuildError> {
    let Common { request, router, make, .. } = common;
    let placed: Option<Vec<(Platform, How)>> = site.group.as_ref().map(|group| group.platforms.clone());
    let platforms = match &placed {
        Some(placed) => placed.iter().map(|(platform, _)| platform.clone()).collect(),
        None => request.platforms.clone(),
    };
    let reaching = async {
        let reached = match reach::find(&site.place, events).await? {
            Some(reached) => reached,
            None => {
                // The sender is gone only where the check failed, and all this with it.
                drop(make.clone().wait_for(|given| *given).await);
                reach::make(&site.place, &request.context, events).await?
            }
        };
        if let Some(pod) = reached.pod_container() {
            router.builder_is(pod);
        }
        let emulate = request.emulate || reached.emulates;
        settle(&reached, request, placed, emulate, events).await.map_err(|error| match error {
            BuildError::Platform(error) => {
                BuildError::Platform(Box::new(Unplaced { unlisted: site.unlisted, ..*error }))
            }
            error => error,
        })?;
        Ok::<_, BuildError>(reached)
    };
    let mut reached = cancel.guard(reaching).await.map_err(BuildError::Interrupted)??;
    let builder_id = reached.id();
    let architecture = site.group.as_ref().map(|group| group.architecture.as_str());
    let joined = architecture.filter(|_| common.joined);
    let share = Share { platforms: &platforms, joined, builder_id: &builder_id };
    let plan = plan::plan(request, share, common.delivery);
    if let Some(architecture) = joined {
        for name in plan.exports.iter().filter_map(|cache| cache.attrs.get("ref")) {
            events.note(format!("the cache of what the {architecture} builder makes goes to {name}"));
        }
    }
    let reference = solve::random_reference();
    let warnings = Warnings::default();
    let solving = solve_with_session(common, plan, &mut reached, (&reference, &warnings, events, cancel));
    let mut response = solving.await?;
    let image = image(&response);
    let recorded = async {
        match request.recorded {
            Some(detail) => record::provenance(&reached.client, &reference, detail, events).await,
            None => BTreeMap::new(),
        }
    };
    let attested =
        async { content::attested(&reached.client, image.as_ref().filter(|_| common.sign_attested)?).await };
    let after = cancel.guard(async { tokio::join!(recorded, attested) }).await;
    let (recorded, attested) = after.map_err(BuildError::Interrupted)?;
    response.extend(recorded);
    Ok(Solved { response, reached, reference, image, attested, warnings })
}

async fn solve_with_session(
    Common { request, client, resolver, leave, .. }: &Common<'_>,
    plan: SolvePlan,
    reached: &mut Reached,
    (reference, warnings, events, cancel): (&str, &Warnings, &Events, &Cancel),
) -> Result<BTreeMap<String, String>, BuildError> {
    let locals = vec![
        LocalDir { name: plan::CONTEXT.to_owned(), root: request.context.clone() },
        LocalDir { name: plan::DOCKERFILE.to_owned(), root: request.dockerfile_dir.clone() },
    ];
    let sync = FileSync::new(locals, events.clone()).after(leave.clone());
    let report = sync.report();
    let mut written = if request.push { request.repositories() } else { Vec::new() };
    written.extend(request.caches.written().cloned());
    let credentials = RegistryCredentials {
        resolver: Arc::clone(resolver),
        client: (*client).clone(),
        pushed: written.clone(),
    };
    let attachables: Vec<Box<dyn Attachable>> =
        vec![Box::new(sync), Box::new(Auth::new(Arc::new(credentials)))];
    let options = SessionOptions { shared_key: shared_key(request), attachables, events: events.clone() };
    let opened = cancel.guard(Session::open(reached.client.control(), options)).await;
    let mut session = opened.map_err(BuildError::Interrupted)?.map_err(BuildError::Session)?;

    let pushing = Pushing::default();
    let solve_request = SolveRequest {
        reference: reference.to_owned(),
        session_id: session.id().to_owned(),
        frontend: solve::DOCKERFILE.to_owned(),
        attrs: plan.attrs,
        exporters: plan.exporters.into_iter().map(|(kind, attrs)| Exporter { kind, attrs }).collect(),
        imports: plan.imports,
        exports: plan.exports,
        entitlements: plan.entitlements,
        pushing: pushing.clone(),
        warnings: warnings.clone(),
    };
    let daemon = reached.client.clone();
    let solving = solve::solve(&daemon, solve_request, events, cancel);
    tokio::pin!(solving);
    let solved = tokio::select! {
        biased;
        solved = &mut solving => solved.map_err(|error| failed(error, &report)),
        lost = reached.lost() => Err(BuildError::Pod(lost)),
        mute = mute_registry(&pushing, client, &written, &request.caches.from) => Err(mute),
        error = session.closed() => match tokio::time::timeout(OWN_ERROR, &mut solving).await {
            Ok(solved) => solved.map_err(|error| failed(error, &report)),
            Err(_silent) => Err(BuildError::Session(error)),
        },
    };
    match solved {
        Ok(response) => {
            session.close().await;
            Ok(response)
        }
        Err(error) => {
            Err(cancel.guard(explain(error, reached)).await.unwrap_or_else(BuildError::Interrupted))
        }
    }
}

/// Returns once a push, or the reading of a cache, stands still and its registry does not answer us either, twice: the
/// daemon would wait forever. A registry that we cannot reach tells nothing.
async fn mute_registry(
    pushing: &Pushing,
    client: &registry::Client,
    written: &[Repository],
    read: &[Reference],
) -> BuildError {
    let silence = async |repository: &Repository, tag: Option<&str>| {
        let outcome = match tag {
            None => client.check_push(repository).await,
            Some(tag) => client.head_manifest(repository, tag).await.map(drop),
        };
        outcome.err().filter(|error| error.kind() == registry::Kind::Timeout)
    };
    loop {
        let suspects: Vec<(&Repository, Option<&str>)> = match pushing.stands_still(QUIET_PUSH).await {
            Still::Push => written.iter().map(|repository| (repository, None)).collect(),
            Still::Import => {
                read.iter().map(|from| (&from.repository, from.tag.as_deref().or(Some("latest")))).collect()
            }
        };
        for (repository, tag) in suspects {
            if silence(repository, tag).await.is_some()
                && let Some(source) = silence(repository, tag).await
            {
                return BuildError::Mute { repository: repository.clone(), source: Box::new(source) };
            }
        }
        tokio::time::sleep(QUIET_PUSH).await;
    }
}

/// The pod may know more than the connection: a moment is spent on asking.
async fn explain(error: BuildError, reached: &mut Reached) -> BuildError {
    let loss = match &error {
        BuildError::Lost { source, .. } => reached.explain(source, matches!(source, Lost::Silent(_))).await,
        BuildError::Session(source) => {
            reached.explain(source, matches!(source, SessionError::Silent(_))).await
        }
        BuildError::Failed(failure) if failure.may_come_from_stopping() => reached.going().await,
        _ => None,
    };
    match (loss, error) {
        (Some(loss), _) => BuildError::Pod(loss),
        (None, BuildError::Lost { source, .. }) => BuildError::Lost { builder: reached.name.clone(), source },
        (None, error) => error,
    }
}

/// What we saw ourselves while sending comes before what the daemon made of it.
fn failed(error: SolveError, report: &filesync::Report) -> BuildError {
    match error {
        SolveError::Cancelled(cause) => BuildError::Interrupted(cause),
        SolveError::Lost(source) => BuildError::Lost { builder: String::new(), source },
        SolveError::Failed(failure) => match report.take() {
            Some(error) => BuildError::Context(error),
            None => BuildError::Failed(failure),
        },
    }
}

/// The key under which the daemon keeps the previous copy of the context, to be sent only what changed: stable for
/// a directory. The path is hashed, because the daemon is shared and a path is nobody else's business.
fn shared_key(request: &BuildRequest) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let context = request.context.canonicalize().unwrap_or_else(|_| request.context.clone());
    let machine = rustix::system::uname();
    let mut key = machine.nodename().to_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(context.as_os_str().as_bytes());
    registry::Digest::of(&key).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_comes_from_the_reply() {
        let digest = registry::Digest::of(b"x");
        let json = format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,"annotations":{{"a":"b"}}}}"#
        );
        let response = BTreeMap::from([("containerimage.descriptor".to_owned(), STANDARD.encode(json))]);
        let descriptor = image(&response).expect("a descriptor");
        assert_eq!((descriptor.digest, descriptor.size), (digest, 7));
        assert!(image(&BTreeMap::new()).is_none());
    }
}
