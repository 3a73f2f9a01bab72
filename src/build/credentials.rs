//! Answers the daemon's registry challenges with our own credentials: the password stays here wherever the registry
//! has a token service, because the token is then fetched by us.

use crate::registry::credentials::{Credential, Resolver};
use crate::registry::{self, TokenRequest};
use crate::session::auth::{self, Credentials, CredentialsError, Token};
use async_trait::async_trait;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;

/// The registry resolver and client, as the session's auth service sees them.
#[derive(Debug)]
pub(super) struct RegistryCredentials {
    pub(super) resolver: Arc<Resolver>,
    pub(super) client: registry::Client,
}

#[async_trait]
impl Credentials for RegistryCredentials {
    async fn basic(&self, host: &str) -> Result<Option<(String, SecretString)>, CredentialsError> {
        Ok(match self.resolver.lookup(host, None).await? {
            Credential::Basic { username, password } => Some((username, password)),
            // BuildKit's own rule: a refresh token travels as the secret of nobody.
            Credential::IdentityToken(token) => Some((String::new(), token)),
            Credential::Anonymous | Credential::RegistryToken(_) => None,
        })
    }

    async fn token(&self, ask: auth::TokenRequest) -> Result<Option<Token>, CredentialsError> {
        let credential = self.resolver.lookup(&ask.host, scope_path(&ask.scopes)).await?;
        if let Credential::RegistryToken(token) = credential {
            return Ok(Some(Token { token, expires_in: Duration::ZERO, issued_at: None }));
        }
        let auth::TokenRequest { host, realm, service, scopes } = ask;
        let request = TokenRequest { host, realm, service, scopes };
        let token = self.client.fetch_token(&request, &credential).await?;
        Ok(Some(Token { token: token.token, expires_in: token.expires_in, issued_at: token.issued_at }))
    }
}

/// Returns the repository that a token is for, if it is for one: `repository:team/app:pull,push`.
fn scope_path(scopes: &[String]) -> Option<&str> {
    let paths = scopes.iter().filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'));
    let mut paths = paths.map(|(path, _actions)| path);
    let first = paths.next()?;
    paths.all(|path| path == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_repository_are_used_only_for_a_token_of_it_alone() {
        let scopes = |list: &[&str]| list.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>();
        assert_eq!(scope_path(&scopes(&["repository:team/app:pull,push"])), Some("team/app"));
        assert_eq!(scope_path(&scopes(&["repository:a:pull", "repository:b:pull"])), None);
        assert_eq!(scope_path(&scopes(&["registry:catalog:*"])), None);
        assert_eq!(scope_path(&[]), None);
    }
}
