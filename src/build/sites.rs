//! From a builder and the cluster's nodes to the pods that a build needs.

use super::part::Site;
use super::placement::{self, Group, Machine, Unplaced, Wanted};
use super::reach::Place;
use super::request::BuildRequest;
use crate::cluster::builder::{self, Builder, BuilderSpec, Found, NodeRef};
use crate::cluster::{ClusterError, Connection};
use std::collections::BTreeSet;

/// Why there is no pod for each platform.
#[derive(Debug, thiserror::Error)]
pub enum SitesError {
    /// The cluster failed us.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Nothing builds a platform.
    #[error(transparent)]
    Unplaced(#[from] Box<Unplaced>),
    /// A digest is wanted of what is no image yet.
    #[error("what several pods build has no digest before it is pushed")]
    NoDigest,
}

/// Returns where a build runs: on the builder's own pod, and on one more for each further architecture that its platforms
/// need and the nodes have. Where nodes may not be listed, the builder's pods have to do, and say themselves what they can.
///
/// # Errors
/// The cluster's, or a platform that nothing builds.
pub async fn sites(
    connection: &Connection,
    spec: BuilderSpec,
    found: Found,
    request: &BuildRequest,
) -> Result<Vec<Site>, SitesError> {
    let place = |spec: BuilderSpec, found: Found| Place::Cluster {
        connection: connection.clone(),
        spec: Box::new(spec),
        found: found.ready(),
    };
    if request.platforms.is_empty() {
        return Ok(vec![Site::only(place(spec, found))]);
    }
    let Some(nodes) = builder::nodes(connection).await? else {
        let sites = pods_only(connection, &spec, &found, request).await?;
        let only = || vec![Site { unlisted: true, ..Site::only(place(spec, found)) }];
        return Ok(sites.unwrap_or_else(only));
    };
    let home = home(&found, &nodes);
    let emulate = request.emulate || found.emulates();
    let wanted = Wanted { platforms: &request.platforms, emulate, cross: request.cross };
    let machines = machines(&nodes, home.as_deref());
    if machines.is_empty() {
        // Whatever the builder tolerates, or a scaler makes: its pod will tell.
        return Ok(vec![Site::only(place(spec, found))]);
    }
    let groups = placement::place(wanted, &machines, home.as_deref())?;
    if groups.len() > 1 && !request.push && request.digest_wanted {
        return Err(SitesError::NoDigest);
    }

    let several = nodes.iter().map(|node| &node.architecture).collect::<BTreeSet<_>>().len() > 1;
    let mut spec = spec;
    if several && matches!(found, Found::Absent) {
        // The first pod has to be where its part is; whichever node it got otherwise would decide.
        spec.architecture = groups.first().map(|group| group.architecture.clone());
    }
    let key = request.context.to_string_lossy();
    let (mut sites, mut first) = (Vec::new(), Some(found));
    for (at, group) in groups.into_iter().enumerate() {
        let at_home = match &home {
            Some(home) => group.architecture == *home,
            None => at == 0,
        };
        let (spec, found) = match first.take_if(|_| at_home) {
            Some(found) => (spec.clone(), found),
            None => {
                let sibling = spec.sibling(&group.architecture);
                let found = builder::find(connection, &sibling, &key).await?;
                (sibling, found)
            }
        };
        sites.push(Site { place: place(spec, found), group: Some(group), unlisted: false });
    }
    Ok(sites)
}

/// Returns where a build runs, by what the builder's pods say of themselves; none where there is no choice among them.
async fn pods_only(
    connection: &Connection,
    spec: &BuilderSpec,
    found: &Found,
    request: &BuildRequest,
) -> Result<Option<Vec<Site>>, SitesError> {
    let pods = builder::natives(connection, &spec.name, &request.context.to_string_lossy()).await?;
    if pods.len() < 2 {
        return Ok(None);
    }
    let machine = |(architecture, builder): &(String, Builder)| Machine {
        name: builder.pod.node.clone().unwrap_or_else(|| builder.pod.name.clone()),
        architecture: architecture.clone(),
    };
    let machines: Vec<Machine> = pods.iter().map(machine).collect();
    let home = match found {
        Found::Ready(builder) => pods.iter().find(|(_, own)| own.pod.name == builder.pod.name),
        _ => None,
    };
    let home = home.map(|(architecture, _)| architecture.as_str());
    let emulate = request.emulate || found.emulates();
    let wanted = Wanted { platforms: &request.platforms, emulate, cross: request.cross };
    let groups = placement::place(wanted, &machines, home)
        .map_err(|error| Box::new(Unplaced { unlisted: true, ..*error }))?;
    if groups.len() > 1 && !request.push && request.digest_wanted {
        return Err(SitesError::NoDigest);
    }
    let site = |group: Group| {
        let pod = pods.iter().find(|(architecture, _)| *architecture == group.architecture);
        let (_, builder) = pod.expect("groups are of the pods' architectures");
        let spec = Box::new(spec.sibling(&group.architecture));
        let place =
            Place::Cluster { connection: connection.clone(), spec, found: Some(Box::new(builder.clone())) };
        Site { place, group: Some(group), unlisted: true }
    };
    Ok(Some(groups.into_iter().map(site).collect()))
}

/// Returns the architecture of the builder's own pod, as far as it is decided.
fn home(found: &Found, nodes: &[NodeRef]) -> Option<String> {
    let (node, architecture) = match found {
        Found::Ready(builder) => (builder.pod.node.as_ref(), None),
        Found::Waiting { node, architecture, .. } => (node.as_ref(), architecture.clone()),
        Found::Absent => (None, None),
    };
    let of_node = || nodes.iter().find(|it| Some(&it.name) == node).map(|it| it.architecture.clone());
    architecture.or_else(of_node)
}

/// Returns the nodes that a pod can be on: those that take new ones, and those like the one that the builder is on.
fn machines(nodes: &[NodeRef], home: Option<&str>) -> Vec<Machine> {
    let open = |node: &&NodeRef| node.eligible || home == Some(node.architecture.as_str());
    let machine =
        |node: &NodeRef| Machine { name: node.name.clone(), architecture: node.architecture.clone() };
    nodes.iter().filter(open).map(machine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, architecture: &str, eligible: bool) -> NodeRef {
        NodeRef { name: name.to_owned(), architecture: architecture.to_owned(), eligible }
    }

    #[test]
    fn a_builder_is_at_home_where_it_is_meant_to_be_or_is() {
        let nodes = [node("a", "amd64", true), node("b", "arm64", true)];
        let waiting = |on: Option<&str>, meant: Option<&str>| Found::Waiting {
            registries: None,
            node: on.map(str::to_owned),
            architecture: meant.map(str::to_owned),
            emulate: false,
        };
        for (found, expected) in [
            (waiting(Some("b"), None), Some("arm64")),
            (waiting(Some("b"), Some("amd64")), Some("amd64")),
            (waiting(Some("gone"), None), None),
            (waiting(None, None), None),
            (Found::Absent, None),
        ] {
            assert_eq!(home(&found, &nodes).as_deref(), expected, "{found:?}");
        }
    }

    #[test]
    fn closed_nodes_count_only_where_the_builder_is_already() {
        let nodes = [node("a", "amd64", true), node("b", "arm64", false)];
        let names = |home| machines(&nodes, home).into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["a"]);
        assert_eq!(names(Some("arm64")), ["a", "b"]);
    }
}
