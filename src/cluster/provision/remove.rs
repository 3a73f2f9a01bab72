//! Removes builders, and nothing else.

use super::{BUDGETS, CONFIG_MAPS, DEPLOYMENTS};
use crate::cluster::ClusterError;
use crate::cluster::api::{ApiError, Operation};
use crate::cluster::connect::Connection;
use crate::cluster::list;
use crate::cluster::manifest::{is_ours, query};
use crate::event::Events;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Removes a builder's objects. What has its name and not our labels stays, with a line that says so. The pods
/// go in the background.
///
/// # Errors
/// [`ClusterError::Unknown`] when there is nothing of ours, [`ClusterError::Foreign`] when the Deployment of that
/// name is somebody else's.
pub async fn remove(connection: &Connection, name: &str, events: &Events) -> Result<(), ClusterError> {
    let step = events.step("remove", format!("removing builder {name}"));
    step.end(remove_all(connection, name, events).await)
}

async fn remove_all(connection: &Connection, name: &str, events: &Events) -> Result<(), ClusterError> {
    let namespace = connection.namespace();
    let deployment = delete::<Deployment>(connection, DEPLOYMENTS, name).await?;
    if deployment == Outcome::Foreign {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        return Err(ClusterError::Foreign { kind: "deployment", name, namespace });
    }
    let siblings = siblings(connection, name).await?;
    for sibling in &siblings {
        delete_of::<Deployment>(connection, DEPLOYMENTS, sibling, name).await?;
    }
    // The Deployments are gone first: no new pod can miss its configuration.
    let config = delete::<ConfigMap>(connection, CONFIG_MAPS, name).await?;
    let budget = match delete::<PodDisruptionBudget>(connection, BUDGETS, name).await {
        Ok(outcome) => outcome,
        // Who could not make one need not remove one.
        Err(ClusterError::Api(error)) if error.is_forbidden() => Outcome::Absent,
        Err(error) => return Err(error),
    };
    let outcomes = [deployment, config, budget];
    if siblings.is_empty() && !outcomes.contains(&Outcome::Deleted) {
        let known = list::names(connection).await.unwrap_or_default();
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        return Err(ClusterError::Unknown { name, namespace, known });
    }
    if config == Outcome::Foreign {
        events.note(format!("the ConfigMap `{name}` stays: kubectl-build did not make it"));
    }
    Ok(())
}

/// Returns the names of the builder's Deployments for further architectures.
async fn siblings(connection: &Connection, name: &str) -> Result<Vec<String>, ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let parameters = ListParams::default().labels(&query(name));
    let operation = Operation::many("list", DEPLOYMENTS, namespace);
    let list = match connection.call(operation, || api.list(&parameters)).await {
        Ok(list) => list.items,
        // Who may not list them cannot have made them.
        Err(error) if error.is_forbidden() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let names = list.into_iter().filter(|it| is_ours(&it.metadata, name)).filter_map(|it| it.metadata.name);
    Ok(names.filter(|object| object != name).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Deleted,
    Foreign,
    Absent,
}

async fn delete<K>(
    connection: &Connection,
    resource: &'static str,
    name: &str,
) -> Result<Outcome, ClusterError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    delete_of::<K>(connection, resource, name, name).await
}

/// Deletes an object, if it is the builder's.
async fn delete_of<K>(
    connection: &Connection,
    resource: &'static str,
    name: &str,
    builder: &str,
) -> Result<Outcome, ClusterError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let namespace = connection.namespace();
    let api: Api<K> = Api::namespaced(connection.client().clone(), namespace);
    let operation = |verb| Operation::one(verb, resource, namespace, name);
    let object = match connection.call(operation("get"), || api.get(name)).await {
        Ok(object) => object,
        Err(ApiError::NotFound { .. }) => return Ok(Outcome::Absent),
        Err(error) => return Err(error.into()),
    };
    if !is_ours(object.meta(), builder) {
        return Ok(Outcome::Foreign);
    }
    // The object that was looked at, not one of that name made since.
    let uid = object.meta().uid.clone();
    let parameters = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match connection.call(operation("delete"), || api.delete(name, &parameters)).await {
        Ok(_) => Ok(Outcome::Deleted),
        Err(ApiError::NotFound { .. }) => Ok(Outcome::Absent),
        Err(error) => Err(error.into()),
    }
}
