//! What can be done about a failure, where the error itself does not say.

use crate::registry::{Kind, RegistryError};
use crate::sign::identity::IdentityError;
use crate::sign::login::LoginError;
use crate::sign::{KeylessError, ServiceError, TufError, WitnessError};

/// What can be done about 413.
const TOO_LARGE: &str = "the registry, or a proxy before it, limits how much is sent at once: raise that limit (nginx calls it `client_max_body_size`)";

/// Returns what can be done about a push that BuildKit says failed: it has no codes for that, only words.
pub(super) fn push(message: &str) -> Option<&'static str> {
    // Our own words, by the session: BuildKit puts nothing before them when it resolves a base image.
    let no_token = message.contains("cannot get a token for");
    // The latter of a cache (buildkit cache/remotecache/export.go).
    let pushes = message.contains("failed to push") || message.starts_with("error writing ");
    if !no_token && !pushes && !message.contains("failed to resolve") && !message.contains("pull") {
        return None;
    }
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // Statuses with their words: bare numbers stand in ports and digests, too.
    if has(&["401 Unauthorized", "unauthorized", "authentication required", "no basic auth credentials"]) {
        return Some("log in with `docker login`, or name a Secret with `--registry-secret`");
    }
    // Token services answer strangers as they answer those who lack a right: with a token that allows nothing, or 403.
    if no_token && has(&["403 Forbidden"]) || has(&["insufficient_scope", "may require authorization"]) {
        return Some(
            "log in with `docker login`, or name a Secret with `--registry-secret`; if you did, ask for the right to this repository",
        );
    }
    if has(&["403 Forbidden", "denied"]) {
        return Some(
            "the credentials are known to the registry, but may not do this: ask for the right to push",
        );
    }
    if has(&["x509", "certificate signed by unknown authority"]) {
        return Some(
            "make a builder that knows the CA: `kubectl buildkit create NAME --registry-ca HOST=FILE`",
        );
    }
    if has(&["server gave HTTP response to HTTPS client"]) {
        return Some(
            "make a builder that speaks plain HTTP to it: `kubectl buildkit create NAME --registry-http HOST`",
        );
    }
    if has(&["413 Request Entity Too Large"]) {
        return Some(TOO_LARGE);
    }
    if has(&["429 Too Many Requests", "toomanyrequests"]) {
        return Some(
            "the registry limits how often it is asked: try again later, or log in with `docker login`",
        );
    }
    if no_token {
        return None;
    }
    if has(&["no such host", "connection refused", "i/o timeout"]) {
        return Some("the builder's pod cannot reach the registry under that name");
    }
    if !pushes {
        return None;
    }
    if has(&["404 Not Found", "name unknown", "repository name not known"]) {
        return Some("make the repository at the registry first, or check its name");
    }
    // Of a 5xx often nothing is left but the registry's own words.
    Some("the registry has trouble, the step's output may say which: try again later")
}

/// Returns what can be done about an identity or services that can't be used.
pub(super) fn keyless(error: &KeylessError) -> Option<String> {
    let hint = match error {
        KeylessError::Identity(error) => match error {
            IdentityError::Expired { .. } => {
                "get a new token; a file is read again after the push, so one that is kept fresh (a projected token) outlasts any build"
            }
            IdentityError::Audience { .. } => {
                "ask for a token with that audience: `kubectl create token NAME --audience sigstore`, or `audience: sigstore` for a projected token"
            }
            IdentityError::Issuer { .. } => {
                "use a token of an issuer that is accepted, or another certificate authority with `--fulcio-url`"
            }
            IdentityError::NotAToken(_) | IdentityError::File { .. } => {
                "`--identity-token` takes a token, its file, or `-`"
            }
            _ => return None,
        },
        KeylessError::Service(ServiceError::Format { .. }) => {
            "leave `--signature-format` out, or say `--signature-format bundle`"
        }
        KeylessError::Service(ServiceError::NoClock { .. }) => "add `--timestamp-server-url URL`",
        KeylessError::Service(ServiceError::Tuf(error)) => tuf(error),
        KeylessError::Login(LoginError::Http(_)) | KeylessError::Service(_) | KeylessError::Http(_) => {
            "nothing was built; check the address, or try again when the service answers"
        }
        KeylessError::Login(_) => return login(error),
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Returns what can be done about a TUF repository.
pub(super) fn tuf(error: &TufError) -> &'static str {
    match error {
        TufError::NothingKept { .. } => {
            "run it once without `--offline`, or name a trust root with `--trusted-root FILE`"
        }
        TufError::Unreachable { .. } => "check TUF_MIRROR, or name a trust root with `--trusted-root FILE`",
        _ => {
            "whoever runs it has to mend it; if it was set up anew, run `cosign initialize` with its new root, or name a trust root with `--trusted-root FILE`"
        }
    }
}

/// Returns what can be done about logs and clocks that did not do.
pub(super) fn witness(error: &WitnessError) -> Option<&'static str> {
    match error {
        WitnessError::AlreadyLogged { .. } => Some(
            "RSA signs the same thing the same way each time: make it another thing with an annotation, such as `-a attempt=2`, or use an ECDSA key",
        ),
        WitnessError::Unverifiable(_) => Some(
            "either `--trusted-root` is of other services, or one of the clocks is wrong: certificate, log entry and timestamp must be of one time",
        ),
        _ => None,
    }
}

/// Returns what can be done about a login that did not come to pass.
pub(super) fn login(error: &KeylessError) -> Option<String> {
    let KeylessError::Login(error) = error else { return None };
    let hint = match error {
        LoginError::TimedOut { .. } => {
            "the line below asks to log in again; `--sign-timeout 15m` waits longer, `--identity-token FILE` needs no login"
        }
        LoginError::Client { wanted, .. } => {
            return Some(format!(
                "log in as `--oidc-client-id {wanted}`, or name another authority with `--fulcio-url`"
            ));
        }
        LoginError::Listen { .. } => "log in with a code instead: `--fulcio-auth-flow device`",
        _ => "to sign without a login use `--identity-token FILE`",
    };
    Some(hint.to_owned())
}

/// Returns what can be done about a registry's refusal.
pub(super) fn registry(error: &RegistryError) -> Option<String> {
    if let Some(hint) = error.hint() {
        return Some(hint.to_owned());
    }
    let host = error.registry();
    Some(match error.kind() {
        Kind::Unauthorized => {
            format!("log in with `docker login {host}`, or name a Secret with `--registry-secret`")
        }
        Kind::Denied => format!(
            "{host} knows the credentials, but they may not push here: ask for that right, or let the repository be made first"
        ),
        Kind::NotFound => format!("make the repository at {host} first, or check its name"),
        Kind::TagImmutable => "push another tag, or allow this one to be overwritten".to_owned(),
        Kind::RateLimited { retry_after: Some(pause) } => format!("try again in {} s", pause.as_secs()),
        Kind::RateLimited { retry_after: None } => "try again later".to_owned(),
        Kind::Rejected if error.status() == Some(413) => TOO_LARGE.to_owned(),
        Kind::Server | Kind::Timeout | Kind::Disconnected => format!("{host} has trouble: try again later"),
        Kind::UntrustedCertificate => format!("name its authority with `--registry-ca {host}=FILE`"),
        Kind::PlainHttp => format!("if that is meant, say `--registry-http {host}`"),
        Kind::NeedsTls => format!("leave out `--registry-http {host}`"),
        Kind::Dns | Kind::Refused | Kind::Unreachable => {
            format!(
                "check the name, and that {host} can be reached from here; what only the builder reaches takes `--registry-via builder`"
            )
        }
        _ => return None,
    })
}

/// Returns the ways out where a tag that collects signatures exists already and cannot be moved.
pub(super) fn signature_tag(tag: &str) -> String {
    let elsewhere = "`--signature-repository REPOSITORY` with one whose tags may be moved";
    match tag.ends_with(".sig") || tag.ends_with(".att") {
        true => format!("say `--signature-format bundle`, which needs no such tag, or {elsewhere}"),
        false => format!("the registry has no referrers API and needs this tag for bundles: say {elsewhere}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_gets_the_hint_for_its_words_and_not_for_its_digits() {
        let hint = |message: &str| push(message).unwrap_or_default();
        let refused = |words: &str| format!("failed to push 10.88.0.1:5000/app:401: {words}");
        assert!(hint(&refused("unauthorized")).contains("docker login"));
        assert!(hint(&refused("denied")).contains("ask for the right"));
        let scope =
            "push access denied, repository does not exist or may require authorization: insufficient_scope";
        assert!(hint(&refused(scope)).starts_with("log in with `docker login`"));
        let no_token = |words: &str| format!("cannot get a token for r.example: {words}");
        for status in ["401 Unauthorized", "403 Forbidden: denied (DENIED)"] {
            assert!(hint(&no_token(status)).starts_with("log in with `docker login`"));
            assert!(hint(&refused(&no_token(status))).starts_with("log in with `docker login`"));
        }
        assert_eq!(push(&refused(&no_token("connection refused"))), None, "we ask, not the pod");
        assert!(hint(&refused("unknown: repository name not known to registry")).contains("repository"));
        assert!(hint(&refused("toomanyrequests: slow down")).contains("try again later, or log in"));
        assert!(hint(&refused("unexpected status: 503 Service Unavailable")).contains("try again later"));
        assert!(hint(&refused("unknown: the storage is not there")).contains("try again later"));
        assert!(hint(&refused("dial tcp: lookup r: no such host")).contains("cannot reach"));
        assert!(hint("error writing layer blob: 401 Unauthorized").contains("docker login"), "of a cache");
        assert_eq!(push("process \"curl\" did not complete successfully: exit code: 1"), None);
        assert_eq!(push("failed to resolve source metadata for r/app:404: not found"), None);
    }
}
