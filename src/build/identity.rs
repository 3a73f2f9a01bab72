//! Joins the cluster's tokens to signing.

use crate::cluster::{Connection, token};
use crate::sign::identity::{AUDIENCE, IdentityError, IdentityToken, TokenSource};
use async_trait::async_trait;
use secrecy::ExposeSecret as _;

/// A service account, whose tokens the API server makes when they are asked for.
pub struct ServiceAccount {
    connection: Connection,
    namespace: String,
    name: String,
}

impl ServiceAccount {
    /// Returns a source of this account's tokens; it is in the connection's namespace if nothing else is said.
    pub fn new(connection: Connection, namespace: Option<String>, name: String) -> Self {
        let namespace = namespace.unwrap_or_else(|| connection.namespace().to_owned());
        Self { connection, namespace, name }
    }
}

#[async_trait]
impl TokenSource for ServiceAccount {
    fn place(&self) -> String {
        format!("the service account {}/{}", self.namespace, self.name)
    }

    async fn token(&self) -> Result<IdentityToken, IdentityError> {
        let Self { connection, namespace, name } = self;
        let text = token::request(connection, namespace, name, AUDIENCE).await;
        let text =
            text.map_err(|error| IdentityError::Service { place: self.place(), source: Box::new(error) })?;
        IdentityToken::parse(text.expose_secret(), &self.place())
    }
}
