//! The registry credentials of a service account: what the kubelet would pull its pods' images with.

use super::ClusterError;
use super::api::{ApiError, Operation};
use super::connect::Connection;
use super::secret::{self, SecretBytes};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use std::collections::BTreeMap;

/// Reads the Secrets that a service account names, in `imagePullSecrets` and in `secrets`: each one's name and content.
/// Secrets that are not there are passed over, as the kubelet does.
///
/// # Errors
/// When the account is not there, or it or one of its Secrets may not be read.
pub async fn secrets(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<Vec<(String, BTreeMap<String, SecretBytes>)>, ClusterError> {
    let api: Api<ServiceAccount> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("get", "serviceaccounts", namespace, name);
    let account = connection.call(operation, || api.get(name)).await.map_err(|error| match error {
        ApiError::NotFound { .. } => {
            ClusterError::NoServiceAccount { name: name.to_owned(), namespace: namespace.to_owned() }
        }
        other => other.into(),
    })?;
    let mut names: Vec<String> = Vec::new();
    let pull = account.image_pull_secrets.unwrap_or_default().into_iter().map(|it| it.name);
    let others = account.secrets.unwrap_or_default().into_iter().filter_map(|it| it.name);
    for name in pull.chain(others) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    let read = |name: String| async move {
        match secret::read(connection, namespace, &name).await {
            Ok(content) => Ok(Some((name, content))),
            Err(ClusterError::NoSecret { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let found = futures_util::future::try_join_all(names.into_iter().map(read)).await?;
    Ok(found.into_iter().flatten().collect())
}
