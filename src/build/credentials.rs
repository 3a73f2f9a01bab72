//! Answers the daemon's registry challenges with our own credentials: the password stays here wherever the registry
//! has a token service, because the token is then fetched by us.

use crate::registry::credentials::{Credential, Resolver};
use crate::registry::{self, Repository, TokenRequest};
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
    /// What is pushed to.
    pub(super) pushed: Vec<Repository>,
}

impl RegistryCredentials {
    /// Returns what a registry is told that knows nothing but passwords: the daemon asks for one for the whole host,
    /// so what it pushes there decides.
    async fn of_host(&self, host: &str) -> Result<Credential, CredentialsError> {
        let mut pushes: Vec<(&Repository, Credential)> = Vec::new();
        for repository in self.pushed.iter().filter(|repository| repository.registry == host) {
            let credential = self.resolver.lookup(host, Some(&repository.path)).await?;
            if !pushes.iter().any(|(_, known)| known.is(&credential)) {
                pushes.push((repository, credential));
            }
        }
        let credential = match &pushes[..] {
            [(_, only)] => only.clone(),
            _ => self.resolver.lookup(host, None).await?,
        };
        match (credential, &pushes[..]) {
            (Credential::Anonymous, [(one, _), (other, _), ..]) => Err(format!(
                "this registry takes passwords only, and BuildKit one for all of it, but those for {one} and {other} \
                 differ: push to them in builds of their own"
            )
            .into()),
            (Credential::Anonymous, _) => Ok(self.resolver.only_one(host).await?),
            (credential, _) => Ok(credential),
        }
    }
}

#[async_trait]
impl Credentials for RegistryCredentials {
    async fn basic(&self, host: &str) -> Result<Option<(String, SecretString)>, CredentialsError> {
        Ok(match self.of_host(host).await? {
            Credential::Basic { username, password } => Some((username, password)),
            // BuildKit's own rule: a refresh token travels as the secret of nobody.
            Credential::IdentityToken(token) => Some((String::new(), token)),
            Credential::Anonymous | Credential::RegistryToken(_) => None,
        })
    }

    async fn knows(&self, host: &str) -> bool {
        self.resolver.knows(host).await
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

/// Returns the repository that a token is for, if it is for one: `repository:team/app:pull,push`. Others that are only
/// pulled from beside the one that is pushed to are those that the daemon would mount blobs from; without that right
/// it uploads them.
fn scope_path(scopes: &[String]) -> Option<&str> {
    let scopes = scopes.iter().filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'));
    let scopes: Vec<(&str, &str)> = scopes.collect();
    let pushes = |actions: &str| actions.split(',').any(|action| action == "push");
    let pushed = scopes.iter().any(|(_, actions)| pushes(actions));
    let mut paths = scopes.iter().filter(|(_, actions)| !pushed || pushes(actions)).map(|(path, _)| *path);
    let first = paths.next()?;
    paths.all(|path| path == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::moby::filesync::v1::GetTokenAuthorityRequest;
    use crate::pb::moby::filesync::v1::auth_server::Auth as _;
    use crate::registry::credentials::{Document, HelperEnvironment};

    /// Returns the key by which a daemon knows a new session of a user with this docker configuration.
    async fn key(config: &str, host: &str) -> Vec<u8> {
        let document = Document::parse("config.json", config.as_bytes()).expect("a configuration");
        let resolver = Arc::new(Resolver::new(vec![document], HelperEnvironment::default()));
        let client = registry::Client::new(registry::Options::new(Arc::clone(&resolver))).expect("a client");
        let auth = auth::Auth::new(Arc::new(RegistryCredentials { resolver, client, pushed: Vec::new() }));
        let request = GetTokenAuthorityRequest { host: host.to_owned(), salt: vec![7; 32].into() };
        let answer = auth.get_token_authority(tonic::Request::new(request)).await.expect("a key");
        answer.into_inner().public_key.to_vec()
    }

    #[tokio::test]
    async fn only_sessions_that_know_nothing_of_a_registry_share_a_key() {
        let host = "r.example";
        let anonymous = key("{}", host).await;
        assert_eq!(key(r#"{"auths":{"q.example":{"auth":"dTpw"}}}"#, host).await, anonymous);
        for config in [
            r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#,
            r#"{"auths":{"r.example":{"registrytoken":"t"}}}"#,
            r#"{"auths":{"r.example/org":{"auth":"dTpw"}}}"#,
            r#"{"auths":{"r.example/org":{"registrytoken":"t"}}}"#,
        ] {
            let (one, other) = (key(config, host).await, key(config, host).await);
            assert_ne!(one, other, "{config}");
            assert_ne!(one, anonymous, "{config}");
        }
    }

    #[test]
    fn credentials_of_a_repository_are_used_only_for_a_token_of_it_alone() {
        let scopes = |list: &[&str]| list.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>();
        assert_eq!(scope_path(&scopes(&["repository:team/app:pull,push"])), Some("team/app"));
        assert_eq!(scope_path(&scopes(&["repository:a:pull", "repository:b:pull"])), None);
        assert_eq!(scope_path(&scopes(&["repository:a:pull", "repository:b:pull,push"])), Some("b"));
        assert_eq!(scope_path(&scopes(&["repository:a:pull,push", "repository:b:pull,push"])), None);
        assert_eq!(scope_path(&scopes(&["registry:catalog:*"])), None);
        assert_eq!(scope_path(&[]), None);
    }
}
