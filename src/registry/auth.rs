//! Answers to a registry's challenges, kept per repository and access until they end.

use super::Repository;
use super::credentials::{Credential, Found, Resolver};
use super::error::{Kind, Presented, Trouble};
use super::token::{self, TokenRequest};
use super::wire::{Response, Wire};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// What a call needs to be allowed to do. Pushing includes pulling: both are asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
}

/// Who may do what at one registry.
pub(super) struct Auth {
    registry: String,
    resolver: Arc<Resolver>,
    /// Held while a token is fetched: calls that start together then share it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    grants: HashMap<(String, Access), Grant>,
    presented: HashMap<String, Presented>,
}

struct Grant {
    header: HeaderValue,
    until: Option<Instant>,
}

/// How a registry wants to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scopes: Vec<String> },
}

impl Auth {
    pub(super) fn new(registry: &str, resolver: Arc<Resolver>) -> Self {
        Self { registry: registry.to_owned(), resolver, state: Mutex::default() }
    }

    /// Returns the header to send with a call; none as long as the registry has asked for none.
    pub(super) async fn header(
        &self,
        wire: &Wire,
        repository: &Repository,
        access: Access,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let mut state = self.state.lock().await;
        if let Some(header) = state.granted(&repository.path, access) {
            return Ok(Some(header));
        }
        match state.challenge.clone() {
            Some(challenge) => self.grant(&mut state, challenge, wire, repository, access).await,
            None => Ok(None),
        }
    }

    /// Returns the header that answers a 401, given the header that earned it; none if there is nothing to
    /// answer with.
    pub(super) async fn answer(
        &self,
        wire: &Wire,
        repository: &Repository,
        access: Access,
        refused: (&Response, Option<&HeaderValue>),
    ) -> Result<Option<HeaderValue>, Trouble> {
        let (response, refused) = refused;
        let mut state = self.state.lock().await;
        match state.granted(&repository.path, access) {
            // Another call was faster.
            Some(header) if Some(&header) != refused => return Ok(Some(header)),
            _ => {}
        }
        if refused.is_some() {
            state.grants.retain(|_, grant| Some(&grant.header) != refused);
            self.resolver.forget().await;
        }
        let Some(challenge) = best_challenge(&response.headers) else {
            return Ok(None);
        };
        state.challenge = Some(challenge.without_scopes());
        let fresh = self.grant(&mut state, challenge, wire, repository, access).await?;
        Ok(fresh.filter(|fresh| Some(fresh) != refused))
    }

    /// Returns as whom a repository was spoken to, for messages, and whether a token service knew us: a 401
    /// means that we may not do something then, not that we are unknown.
    pub(super) async fn standing(&self, path: &str) -> (Presented, bool) {
        let state = self.state.lock().await;
        let presented = state.presented.get(path).cloned().unwrap_or_default();
        let bearer = matches!(state.challenge, Some(Challenge::Bearer { .. }));
        let known = bearer && matches!(presented, Presented::Known { .. });
        (presented, known && state.granted(path, Access::Pull).is_some())
    }

    async fn grant(
        &self,
        state: &mut State,
        challenge: Challenge,
        wire: &Wire,
        repository: &Repository,
        access: Access,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let path = &repository.path;
        let found = self.resolver.find(&self.registry, Some(path)).await.map_err(|error| {
            let what = format!("the credentials for {} cannot be looked up", self.registry);
            Trouble::new(Kind::Credentials, what).caused_by(error)
        })?;
        state.presented.insert(path.clone(), presented(&found));
        let (header, until) = match (challenge, &found.credential) {
            (Challenge::Basic, Credential::Basic { username, password }) => {
                (Some(token::basic(username, password)), None)
            }
            (Challenge::Basic, _) => (None, None),
            (Challenge::Bearer { .. }, Credential::RegistryToken(token)) => (token::bearer(token), None),
            (Challenge::Bearer { realm, service, scopes }, credential) => {
                let scopes = with_scope(path, access, scopes);
                let ask = TokenRequest { host: self.registry.clone(), realm, service, scopes };
                let token = token::fetch(wire, &ask, credential).await?;
                // A tenth less: the token must outlive the call, and clocks differ.
                (token::bearer(&token.token), Some(Instant::now() + token.expires_in.mul_f32(0.9)))
            }
        };
        if let Some(header) = &header {
            let grant = Grant { header: header.clone(), until };
            state.grants.insert((path.clone(), access), grant);
        }
        Ok(header)
    }
}

impl State {
    fn granted(&self, path: &str, access: Access) -> Option<HeaderValue> {
        [Access::Push, access].into_iter().find_map(|access| {
            let grant = self.grants.get(&(path.to_owned(), access))?;
            grant.until.is_none_or(|until| Instant::now() < until).then(|| grant.header.clone())
        })
    }
}

fn presented(found: &Found) -> Presented {
    let origin = found.origin.clone().unwrap_or_default();
    match &found.credential {
        Credential::Anonymous => Presented::Nothing,
        Credential::Basic { username, .. } => Presented::Known { user: Some(username.clone()), origin },
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => {
            Presented::Known { user: None, origin }
        }
    }
}

impl Challenge {
    /// The scopes of a challenge belong to the one call that was challenged.
    fn without_scopes(&self) -> Self {
        match self.clone() {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => Self::Bearer { realm, service, scopes: Vec::new() },
        }
    }
}

/// Takes any bytes for a header with challenges.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let _either_way = best_challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
}

/// Returns the challenge to answer: Bearer before Basic, others not at all.
fn best_challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges =
        texts.flat_map(|text| http_auth::parser::ChallengeParser::new(text).map_while(Result::ok));
    let mut basic = None;
    for challenge in challenges {
        let parameter = |name: &str| {
            let mut all = challenge.params.iter();
            all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if challenge.scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter("realm")
        {
            let scopes = parameter("scope").unwrap_or_default();
            let scopes = scopes.split_whitespace().map(str::to_owned).collect();
            return Some(Challenge::Bearer {
                realm,
                service: parameter("service").unwrap_or_default(),
                scopes,
            });
        }
    }
    basic
}

/// Returns the scopes to ask for: what the call needs, and what the registry says it needs beside.
fn with_scope(path: &str, access: Access, challenged: Vec<String>) -> Vec<String> {
    let resource = format!("repository:{path}:");
    let mut actions = match access {
        Access::Pull => vec!["pull".to_owned()],
        Access::Push => vec!["pull".to_owned(), "push".to_owned()],
    };
    let mut others = Vec::new();
    for scope in challenged {
        match scope.strip_prefix(&resource) {
            Some(more) => {
                let missing = more.split(',').map(str::to_owned).filter(|action| !action.is_empty());
                let missing: Vec<_> = missing.filter(|action| !actions.contains(action)).collect();
                actions.extend(missing);
            }
            None => others.push(scope),
        }
    }
    let mut scopes = vec![format!("{resource}{}", actions.join(","))];
    scopes.append(&mut others);
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn bearer(realm: &str, service: &str, scopes: &[&str]) -> Option<Challenge> {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned(), scopes })
    }

    #[rstest]
    #[case(&[r#"Basic realm="Registry""#], Some(Challenge::Basic))]
    #[case(&[r#"Bearer realm="https://a/t",service="r",scope="repository:x:pull,push""#], bearer("https://a/t", "r", &["repository:x:pull,push"]))]
    #[case(&[r#"bearer Realm="https://a/t""#], bearer("https://a/t", "", &[]))]
    #[case(&[r#"Basic realm="x", Bearer realm="https://a/t",service="r""#], bearer("https://a/t", "r", &[]))]
    #[case(&[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#], bearer("https://a/t", "", &[]))]
    #[case(&[r#"Bearer service="r""#], None)]
    #[case(&["Negotiate"], None)]
    #[case(&[], None)]
    fn challenges(#[case] headers: &[&str], #[case] expected: Option<Challenge>) {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        assert_eq!(best_challenge(&map), expected);
    }

    #[rstest]
    #[case(Access::Pull, &[], &["repository:a/b:pull"])]
    #[case(Access::Push, &["repository:a/b:pull"], &["repository:a/b:pull,push"])]
    #[case(Access::Pull, &["repository:a/b:pull,delete", "registry:catalog:*"], &["repository:a/b:pull,delete", "registry:catalog:*"])]
    fn scopes(#[case] access: Access, #[case] challenged: &[&str], #[case] expected: &[&str]) {
        let challenged = challenged.iter().map(ToString::to_string).collect();
        assert_eq!(with_scope("a/b", access, challenged), expected);
    }
}
