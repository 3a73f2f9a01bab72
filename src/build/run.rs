//! One build, start to end.

use super::credentials::RegistryCredentials;
use super::error::BuildError;
use super::finish::Finish;
use super::outcome::BuildOutcome;
use super::plan::{self, Delivery, SolvePlan};
use super::preflight::{self, Unlocking};
use super::reach::{self, Place, Reached};
use super::request::BuildRequest;
use crate::buildkit::Lost;
use crate::buildkit::solve::{self, Exporter, SolveError, SolveRequest};
use crate::event::Events;
use crate::registry::credentials::Resolver;
use crate::registry::{self, Descriptor};
use crate::session::auth::Auth;
use crate::session::filesync::{self, FileSync, LocalDir};
use crate::session::{Attachable, Session, SessionError, SessionOptions};
use crate::sign::Formats;
use crate::task::Cancel;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the daemon's own error is waited for once the session has failed.
const OWN_ERROR: Duration = Duration::from_secs(3);

/// What a build works with.
pub struct Deps {
    /// Where the builder is.
    pub place: Place,
    /// The registries, for our own calls.
    pub client: registry::Client,
    /// Credentials, for the daemon's.
    pub resolver: Arc<Resolver>,
    /// The keys and formats, if the build signs.
    pub signing: Option<(Unlocking, Formats)>,
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
    let Deps { place, client, resolver, signing } = deps;
    let repositories = request.repositories();
    let plan = plan::plan(request, signing.is_some());
    let formats = signing.as_ref().map(|(_, formats)| *formats).unwrap_or_default();

    // The builder is reached, and the solve begun, while keys and registries are checked: the daemon gets nothing to
    // build before they are. A builder that isn't there is made after.
    let (give_leave, leave) = watch::channel(false);
    let checked = async {
        let checking = async {
            match signing {
                Some((keys, _)) => {
                    preflight::check(keys, &client, &repositories, events).await.map_err(BuildError::from)
                }
                None => Ok(Vec::new()),
            }
        };
        let signers = cancel.guard(checking).await.map_err(BuildError::Interrupted)??;
        give_leave.send_replace(true);
        Ok::<_, BuildError>(signers)
    };
    let reference = solve::random_reference();
    let delivery = plan.delivery.clone();
    let solved = async {
        let reaching = async {
            if let Some(reached) = reach::find(&place, events).await? {
                return Ok::<_, BuildError>(reached);
            }
            // The sender is gone only where the check failed, and all this with it.
            let mut given = leave.clone();
            drop(given.wait_for(|given| *given).await);
            Ok(reach::make(&place, &request.context, events).await?)
        };
        let mut reached = cancel.guard(reaching).await.map_err(BuildError::Interrupted)??;
        let credentials = RegistryCredentials { resolver, client: client.clone() };
        let context = Context { request, plan, leave: leave.clone() };
        let response =
            solve_with_session(context, &mut reached, credentials, (&reference, events, cancel)).await?;
        Ok::<_, BuildError>((response, reached))
    };
    let (signers, (response, reached)) = tokio::try_join!(checked, solved)?;

    let builder = (reached.name.clone(), reached.pod.as_ref().map(|pod| pod.name.clone()));
    let mut outcome = BuildOutcome { response, reference, builder, ..BuildOutcome::default() };
    if delivery == Delivery::Cache {
        return Ok(outcome);
    }
    let image = descriptor(&outcome.response).ok_or(BuildError::NoDigest)?;
    outcome.image = Some(image.clone());
    if let Delivery::ByDigest(repositories) = delivery {
        let tags = request.tags.clone();
        let finish = Finish { client: &client, signers: &signers, formats, image, repositories, tags };
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

/// What is built, and when its files may be sent.
struct Context<'a> {
    request: &'a BuildRequest,
    plan: SolvePlan,
    leave: watch::Receiver<bool>,
}

async fn solve_with_session(
    Context { request, plan, leave }: Context<'_>,
    reached: &mut Reached,
    credentials: RegistryCredentials,
    (reference, events, cancel): (&str, &Events, &Cancel),
) -> Result<BTreeMap<String, String>, BuildError> {
    let locals = vec![
        LocalDir { name: plan::CONTEXT.to_owned(), root: request.context.clone() },
        LocalDir { name: plan::DOCKERFILE.to_owned(), root: request.dockerfile_dir.clone() },
    ];
    let sync = FileSync::new(locals, events.clone()).after(leave);
    let report = sync.report();
    let attachables: Vec<Box<dyn Attachable>> =
        vec![Box::new(sync), Box::new(Auth::new(Arc::new(credentials)))];
    let options = SessionOptions { shared_key: shared_key(request), attachables, events: events.clone() };
    let opened = cancel.guard(Session::open(reached.client.control(), options)).await;
    let mut session = opened.map_err(BuildError::Interrupted)?.map_err(BuildError::Session)?;

    let solve_request = SolveRequest {
        reference: reference.to_owned(),
        session_id: session.id().to_owned(),
        frontend: solve::DOCKERFILE.to_owned(),
        attrs: plan.attrs,
        exporters: plan.exporters.into_iter().map(|(kind, attrs)| Exporter { kind, attrs }).collect(),
        entitlements: plan.entitlements,
    };
    let client = reached.client.clone();
    let solving = solve::solve(&client, solve_request, events, cancel);
    tokio::pin!(solving);
    let solved = tokio::select! {
        biased;
        solved = &mut solving => solved.map_err(|error| failed(error, &report)),
        lost = reached.lost() => Err(BuildError::Pod(lost)),
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

/// Reads the image's descriptor from the exporter's reply.
fn descriptor(response: &BTreeMap<String, String>) -> Option<Descriptor> {
    let text = response.get("containerimage.descriptor")?;
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
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
        let descriptor = descriptor(&response).expect("a descriptor");
        assert_eq!((descriptor.digest, descriptor.size), (digest, 7));
        assert!(super::descriptor(&BTreeMap::new()).is_none());
    }
}
