//! The nodes that builders can run on, by architecture.

use super::super::ClusterError;
use super::super::api::Operation;
use super::super::connect::Connection;
use super::super::manifest::NODE_ARCHITECTURE;
use super::super::mode::is_eligible;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRef {
    /// Its name.
    pub name: String,
    /// Its architecture, by Go's name.
    pub architecture: String,
    /// New pods of a builder can be scheduled there, for all that its taints say.
    pub eligible: bool,
}

/// Lists the nodes that run Linux; `None` where nodes may not be listed.
///
/// # Errors
/// The API server's.
pub async fn nodes(connection: &Connection) -> Result<Option<Vec<NodeRef>>, ClusterError> {
    let api: Api<Node> = Api::all(connection.client().clone());
    let every = ListParams::default();
    let listed = connection.call(Operation::everywhere("list", "nodes"), || api.list(&every)).await;
    match listed {
        Ok(nodes) => Ok(Some(nodes.items.iter().filter_map(node).collect())),
        Err(error) if error.is_forbidden() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn node(node: &Node) -> Option<NodeRef> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    if info.is_some_and(|info| !info.operating_system.is_empty() && info.operating_system != "linux") {
        return None;
    }
    let label = node.metadata.labels.as_ref().and_then(|labels| labels.get(NODE_ARCHITECTURE));
    let architecture = label.cloned().or_else(|| info.map(|info| info.architecture.clone()))?;
    let name = node.metadata.name.clone().unwrap_or_default();
    Some(NodeRef { name, architecture, eligible: is_eligible(node) })
}
