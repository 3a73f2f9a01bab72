//! Tokens of service accounts (TokenRequest): what the API server vouches for.

use super::ClusterError;
use super::api::{ApiError, Operation};
use super::connect::Connection;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use secrecy::SecretString;

/// The shortest life that the API server gives a token, in seconds.
const LIFETIME: i64 = 600;

/// Has a token made for a service account, good for this audience alone.
///
/// # Errors
/// When the account is not there or its tokens may not be made, by name and namespace.
pub async fn request(
    connection: &Connection,
    namespace: &str,
    name: &str,
    audience: &str,
) -> Result<SecretString, ClusterError> {
    let api: Api<ServiceAccount> = Api::namespaced(connection.client().clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(LIFETIME),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let operation = Operation::one("create", "serviceaccounts/token", namespace, name);
    let params = PostParams::default();
    let made = connection.call(operation, || api.create_token_request(name, &params, &request)).await;
    let made = made.map_err(|error| match error {
        ApiError::NotFound { .. } => {
            ClusterError::NoServiceAccount { name: name.to_owned(), namespace: namespace.to_owned() }
        }
        other => other.into(),
    })?;
    Ok(made.status.map(|status| status.token).unwrap_or_default().into())
}
