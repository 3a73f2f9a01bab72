//! Whether an identity signs, whose, and which services take part.

use super::env::{Environment, names};
use super::kms;
use super::misuse::Misuse;
use super::source::{self, Source};
use crate::cli::signing::IdentityArgs;
use crate::sign::http::HttpOptions;
use crate::sign::identity::{AUDIENCE, AmbientSource, IdentityToken, SPIFFE_SOCKET, SpiffeSocket};
use crate::sign::login::Flow;
use crate::sign::{
    LogMode, PUBLISHED_BY_IDENTITY, PUBLISHED_BY_KEY, ServicePlan, TrustParts, TrustRoot, TufRepository,
};
use secrecy::SecretString;
use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Where a pod's service account token is mounted for signing (cosign's provider `filesystem`).
const PROJECTED: &str = "/var/run/sigstore/cosign/oidc-token";

/// Where machines say who made them.
const GOOGLE_MACHINE: &str = "/sys/class/dmi/id/product_name";

/// Where an identity token comes from.
#[derive(Debug)]
pub enum IdentityChoice {
    /// It was given.
    Given {
        /// The token.
        text: SecretString,
        /// Flag or variable.
        place: &'static str,
    },
    /// A file, read when a token is needed.
    File(PathBuf),
    /// A service account, for which the API server makes one.
    ServiceAccount {
        /// Its namespace, if it was said.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// What runs us: a CI system, a cloud, a workload's agent.
    Ambient(AmbientSource),
    /// A person, who logs in.
    Login(LoginChoice),
}

/// How a person logs in.
#[derive(Debug)]
pub struct LoginChoice {
    /// Who we are to the provider.
    pub client_id: String,
    /// What we show for it, if anything.
    pub client_secret: Option<SecretString>,
    /// The flow, if it was said.
    pub flow: Option<Flow>,
    /// A browser can be opened on this machine.
    pub has_browser: bool,
    /// Which, if that was said.
    pub browser: Option<String>,
    /// Where it comes back to, if that was said.
    pub redirect: Option<Url>,
    /// How long a login is waited for.
    pub timeout: Duration,
}

/// Who signs beside or instead of keys, and with which services.
#[derive(Debug)]
pub struct KeylessSettings {
    /// Where the token comes from, if an identity signs.
    pub identity: Option<IdentityChoice>,
    /// The services.
    pub services: ServicePlan,
    /// How they are reached.
    pub http: HttpOptions,
    /// What is to be said before anything starts.
    pub notes: Vec<String>,
    /// What verifiers need to be told.
    pub trust: TrustAdvice,
    /// A key's signatures go to the public log, and nobody has agreed yet.
    pub ask_consent: Option<String>,
    /// The flags as given, without tokens, for command lines that we print to be run again.
    pub flags: Vec<String>,
}

/// What others need to verify, beside a key or a name.
#[derive(Clone, Debug, Default)]
pub struct TrustAdvice {
    /// Logs have the signatures.
    pub logged: bool,
    /// They are those of the public instance, which verifiers know.
    pub public: bool,
    /// The file with the authorities and logs of a private instance, as it was given.
    pub trusted_root: Option<String>,
}

impl TrustAdvice {
    /// Returns the file that a verifier passes to `--trusted-root`, with a name where none was given.
    pub fn file(&self) -> Option<&str> {
        match &self.trusted_root {
            Some(file) => Some(file),
            None if self.public => None,
            None => Some("trusted-root.json"),
        }
    }
}

impl KeylessSettings {
    /// Whether a cluster is needed.
    pub fn needs_cluster(&self) -> bool {
        matches!(self.identity, Some(IdentityChoice::ServiceAccount { .. }))
    }
}

/// Resolves who signs beside keys; `keys` says how many there are.
///
/// # Errors
/// Nobody to sign, choices that exclude one another, files and URLs that are none.
pub fn resolve(
    args: IdentityArgs,
    keys: usize,
    directory: &Path,
    env: &dyn Environment,
) -> Result<KeylessSettings, Misuse> {
    let flags = flags(&args);
    let by_variable = env.get_filled(names::COSIGN_EXPERIMENTAL).is_some_and(|value| is_true(&value));
    let named = args.identity_token.is_some() || args.service_account.is_some();
    let mut notes = Vec::new();
    let keyless = match keys {
        0 => args.keyless || named || by_variable,
        _ => args.keyless,
    };
    if keys == 0 && !keyless {
        return Err(Misuse::SignWithoutKey);
    }
    if named && !keyless {
        notes.push(
            "the identity is not used, since there is a key: add --keyless to sign with both".to_owned(),
        );
    }
    let mode = source::resolve(args.rekor.clone(), "--rekor", env, names::COSIGN_TLOG_UPLOAD, "");
    let parsed = Some(&mode.value).filter(|text| !text.is_empty()).map(|text| text.parse::<LogMode>());
    let mode = parsed.transpose().map_err(|reason| invalid(&mode.source.to_string(), &mode.value, reason))?;
    if keyless && mode.is_some_and(|mode| mode != LogMode::Must) {
        return Err(Misuse::KeylessUnlogged);
    }
    let log_asked = mode.is_none() && (args.rekor_url.is_some() || args.signing_config.is_some());
    let mode = match mode {
        _ if keyless => LogMode::Must,
        Some(mode) => mode,
        None if log_asked => LogMode::Must,
        None => LogMode::Off,
    };
    let mut services = services(&args, keyless || mode != LogMode::Off, directory, env)?;
    services.log_mode = mode;
    let public_log = services.public_log().map(Url::to_string);
    if let Some(log) = public_log.as_ref().filter(|_| keyless) {
        notes.push(format!("the log {log} will show, {PUBLISHED_BY_IDENTITY}"));
    }
    let by_variable = [names::YES, names::COSIGN_YES].into_iter().filter_map(|name| env.get_filled(name));
    let agreed = args.yes || by_variable.into_iter().any(|value| is_true(&value));
    (services.keyed, services.agreed) = (keys > 0, agreed);
    let public_log = public_log.filter(|_| keys > 0);
    if let Some(log) = public_log.as_ref().filter(|_| agreed) {
        notes.push(format!("the log {log} will show, {PUBLISHED_BY_KEY}"));
    }
    let ask_consent = public_log.filter(|_| !agreed);
    let trusted_root = args.trusted_root.as_deref().map(shown);
    let trusted_root = trusted_root.or_else(|| env.get_filled(names::COSIGN_TRUSTED_ROOT));
    let trust = TrustAdvice { logged: mode == LogMode::Must, public: services.public, trusted_root };
    let login = login(&args, directory, env)?;
    // A person may be given a second; a service that works may need some.
    let longest = login.timeout.max(Duration::from_secs(5));
    let http = HttpOptions { longest: Some(longest), ..super::services::http(env) };
    let identity = if keyless { Some(identity(args, login, directory, env)?) } else { None };
    Ok(KeylessSettings { identity, services, http, notes, trust, ask_consent, flags })
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn invalid(name: &str, value: &str, reason: impl ToString) -> Misuse {
    Misuse::Value { name: name.to_owned(), value: value.to_owned(), reason: reason.to_string() }
}

/// The order is the one that users are told: flags, the variable, the mounted file, what runs us, a login.
fn identity(
    args: IdentityArgs,
    login: LoginChoice,
    directory: &Path,
    env: &dyn Environment,
) -> Result<IdentityChoice, Misuse> {
    if let Some(text) = args.identity_token {
        return given(text);
    }
    if let Some(account) = args.service_account {
        let (namespace, name) = match account.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, account.clone()),
        };
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err(invalid("--service-account", &account, "write NAME or NAMESPACE/NAME"));
        }
        return Ok(IdentityChoice::ServiceAccount { namespace, name });
    }
    if !args.oidc_disable_ambient_providers {
        if let Some(text) = env.get_filled(names::SIGSTORE_ID_TOKEN) {
            return Ok(IdentityChoice::Given { text: text.into(), place: names::SIGSTORE_ID_TOKEN });
        }
        if Path::new(PROJECTED).exists() {
            return Ok(IdentityChoice::File(PROJECTED.into()));
        }
        if let Some(source) = ambient(directory, env)? {
            return Ok(IdentityChoice::Ambient(source));
        }
    }
    // A prompt that nobody sees would be a build that hangs.
    if env.get_filled(names::CI).is_some_and(|value| !matches!(value.as_str(), "0" | "false")) {
        return Err(Misuse::NoIdentity("CI is set"));
    }
    if !env.has_terminal() {
        return Err(Misuse::NoIdentity("standard error is no terminal"));
    }
    Ok(IdentityChoice::Login(login))
}

/// Reads how a person would log in, whether or not somebody has to: bad flags are bad anyway.
fn login(args: &IdentityArgs, directory: &Path, env: &dyn Environment) -> Result<LoginChoice, Misuse> {
    let given = |flag: &Option<String>, variable| flag.clone().or_else(|| env.get_filled(variable));
    let flow = given(&args.fulcio_auth_flow, names::COSIGN_FULCIO_AUTH_FLOW);
    let flow = flow.map(|flow| match flow.as_str() {
        "normal" => Ok(Flow::Browser),
        "device" => Ok(Flow::Device),
        _ => Err(invalid("--fulcio-auth-flow", &flow, "it is one of `normal`, `device`")),
    });
    let secret = args.oidc_client_secret_file.clone();
    let secret = secret.or_else(|| env.get_filled(names::COSIGN_OIDC_CLIENT_SECRET_FILE).map(PathBuf::from));
    let secret = secret.map(|path| {
        let path = directory.join(path);
        let read = std::fs::read_to_string(&path).map(SecretString::from);
        read.map_err(|source| Misuse::File { name: "--oidc-client-secret-file", path, source })
    });
    let redirect = given(&args.oidc_redirect_url, names::COSIGN_OIDC_REDIRECT_URL);
    let redirect = redirect.map(|text| {
        let wrong = |reason| invalid("--oidc-redirect-url", &text, reason);
        let url: Url = text.parse().map_err(|error: url::ParseError| wrong(error.to_string()))?;
        let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match url.scheme() == "http" && here {
            true => Ok(url),
            false => {
                Err(wrong("the browser comes back to this machine: `http://localhost:PORT/PATH`".to_owned()))
            }
        }
    });
    let timeout = args.sign_timeout.as_deref().unwrap_or("5m");
    let timeout = super::duration::parse(timeout)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| invalid("--sign-timeout", timeout, "it is a time such as `5m` or `90s`"))?;
    let browser = env.get_filled(names::BROWSER);
    let set = |variables: &[&str]| variables.iter().any(|name| env.get_filled(name).is_some());
    // In a session from elsewhere BROWSER is what opens one there, and sees to it that it finds its way back.
    let displayed = cfg!(target_os = "macos") || set(&names::DISPLAYS);
    Ok(LoginChoice {
        client_id: given(&args.oidc_client_id, names::COSIGN_OIDC_CLIENT_ID)
            .unwrap_or_else(|| AUDIENCE.to_owned()),
        client_secret: secret.transpose()?,
        flow: flow.transpose()?,
        has_browser: browser.is_some() || displayed && !set(&names::SSH),
        browser,
        redirect: redirect.transpose()?,
        timeout,
    })
}

fn given(text: String) -> Result<IdentityChoice, Misuse> {
    const PLACE: &str = "--identity-token";
    if text == "-" {
        let mut token = String::new();
        let read = std::io::stdin().take(64 * 1024).read_to_string(&mut token);
        read.map_err(|error| invalid(PLACE, "-", format!("standard input cannot be read: {error}")))?;
        return Ok(IdentityChoice::Given { text: token.into(), place: "standard input" });
    }
    if IdentityToken::looks_like(&text) {
        return Ok(IdentityChoice::Given { text: text.into(), place: PLACE });
    }
    // Neither is repeated: a damaged token is still most of a token.
    if text.len() > 4096 || text.matches('.').count() == 2 && !Path::new(&text).exists() && text.len() > 100 {
        return Err(invalid(PLACE, "…", "it is neither a token nor the path of a file that is there"));
    }
    Ok(IdentityChoice::File(text.into()))
}

/// CI systems come before clouds: they run in those, too.
fn ambient(directory: &Path, env: &dyn Environment) -> Result<Option<AmbientSource>, Misuse> {
    let url = |name: &str, value: &str| value.parse::<Url>().map_err(|error| invalid(name, value, error));
    let (request_url, request_token) = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN");
    if let (Some(at), Some(token)) = (env.get_filled(request_url), env.get_filled(request_token)) {
        return Ok(Some(AmbientSource::GitHub { url: url(request_url, &at)?, token: token.into() }));
    }
    if env.get_filled("GITHUB_ACTIONS").is_some() {
        return Err(Misuse::GitHubPermission);
    }
    let (token, job) = ("BUILDKITE_AGENT_ACCESS_TOKEN", "BUILDKITE_JOB_ID");
    if let (Some(token), Some(job)) = (env.get_filled(token), env.get_filled(job)) {
        let endpoint = "BUILDKITE_AGENT_ENDPOINT";
        let at = env.get_filled(endpoint).unwrap_or_else(|| "https://agent.buildkite.com/v3".to_owned());
        return Ok(Some(AmbientSource::Buildkite {
            endpoint: url(endpoint, &at)?,
            job,
            token: token.into(),
        }));
    }
    if env.get_filled("CIRCLECI").is_some_and(|value| is_true(&value)) {
        return Ok(Some(AmbientSource::CircleCi));
    }
    if let Some(name) = env.get_filled(names::GOOGLE_SERVICE_ACCOUNT_NAME) {
        let endpoint = env.get_filled(names::IAM_CREDENTIALS_ENDPOINT);
        let endpoint = endpoint.unwrap_or_else(|| "https://iamcredentials.googleapis.com".to_owned());
        let endpoint = url(names::IAM_CREDENTIALS_ENDPOINT, &endpoint)?;
        let source = Source::Env(names::GOOGLE_SERVICE_ACCOUNT_NAME);
        let credentials = kms::Reader { env, directory, source, shown: name.clone() }.google()?;
        return Ok(Some(AmbientSource::GoogleAccount { name, endpoint, credentials }));
    }
    let metadata = env.get_filled(names::GCE_METADATA_HOST);
    let machine = std::fs::read_to_string(GOOGLE_MACHINE).unwrap_or_default();
    if metadata.is_some() || matches!(machine.trim(), "Google" | "Google Compute Engine") {
        let host = metadata.unwrap_or_else(|| kms::GOOGLE_METADATA.to_owned());
        return Ok(Some(AmbientSource::Google { host }));
    }
    if let Some(text) = env.get_filled(names::SPIFFE_ENDPOINT_SOCKET) {
        let reason = "it is neither unix:///PATH nor tcp://IP:PORT";
        let socket = SpiffeSocket::parse(&text)
            .ok_or_else(|| invalid(names::SPIFFE_ENDPOINT_SOCKET, &text, reason))?;
        return Ok(Some(AmbientSource::Spiffe(socket)));
    }
    let agent = Path::new(SPIFFE_SOCKET).exists();
    Ok(agent.then(|| AmbientSource::Spiffe(SpiffeSocket::Unix(SPIFFE_SOCKET.into()))))
}

/// Finds who is trusted, if that is said: a TrustedRoot, or files with parts of one in the place of the public instance's.
///
/// # Errors
/// Files that can't be read, or hold something else.
pub(super) fn trust(
    flag: Option<&Path>,
    directory: &Path,
    env: &dyn Environment,
) -> Result<Option<TrustRoot>, Misuse> {
    let read = |name: &'static str, path: PathBuf| {
        let path = directory.join(path);
        let bytes =
            std::fs::read(&path).map_err(|source| Misuse::File { name, path: path.clone(), source })?;
        Ok::<_, Misuse>((bytes, shown(&path)))
    };
    let variable = |name| env.get_filled(name).map(PathBuf::from);
    if let Some(path) = flag.map(Path::to_owned).or_else(|| variable(names::COSIGN_TRUSTED_ROOT)) {
        let (json, path) = read("--trusted-root", path)?;
        let root = TrustRoot::parse(&json);
        return root.map(Some).map_err(|error| invalid("--trusted-root", &path, told(&error)));
    }
    let mut root = None;
    type Part = fn(Vec<u8>) -> TrustParts;
    let parts: [(&'static str, Part); 4] = [
        (names::SIGSTORE_ROOT_FILE, |pem| TrustParts { authority: Some(pem), ..TrustParts::default() }),
        (names::SIGSTORE_REKOR_PUBLIC_KEY, |pem| TrustParts { log: Some(pem), ..TrustParts::default() }),
        (names::SIGSTORE_CT_LOG_PUBLIC_KEY_FILE, |pem| TrustParts {
            certificate_log: Some(pem),
            ..TrustParts::default()
        }),
        (names::SIGSTORE_TSA_CERTIFICATE_FILE, |pem| TrustParts {
            clock: Some(pem),
            ..TrustParts::default()
        }),
    ];
    for (name, part) in parts {
        let Some(path) = variable(name) else { continue };
        let (pem, path) = read(name, path)?;
        let with = root.take().unwrap_or_else(TrustRoot::public).with(&part(pem));
        root = Some(with.map_err(|error| invalid(name, &path, told(&error)))?);
    }
    Ok(root)
}

/// Finds the TUF repository: the public instance's, or the one that `cosign initialize` or variables name.
///
/// # Errors
/// One without root metadata to begin with, files that can't be read.
pub(super) fn tuf(directory: &Path, env: &dyn Environment) -> Result<TufRepository, Misuse> {
    let folder = env.get_filled(names::TUF_ROOT).map(|path| directory.join(path));
    let folder = folder.or_else(|| Some(Path::new(&env.get_filled(names::HOME)?).join(".sigstore/root")));
    let remote = folder.as_ref().and_then(|folder| {
        let json = std::fs::read(folder.join("remote.json")).ok()?;
        Some(serde_json::from_slice::<RemoteJson>(&json).ok()?.mirror).filter(|mirror| !mirror.is_empty())
    });
    let named = env.get_filled(names::TUF_MIRROR).map(|mirror| (names::TUF_MIRROR, mirror));
    let named = named.or(remote.map(|mirror| ("remote.json of `cosign initialize`", mirror)));
    let public = TufRepository::public_mirror();
    let mirror = match &named {
        Some((name, mirror)) => mirror.parse::<Url>().map_err(|error| invalid(name, mirror, error))?,
        None => public.clone(),
    };
    // As sigstore-go names its folders (`pkg/tuf`).
    let place = mirror.as_str().trim_end_matches('/');
    let place =
        place.split_once("://").map_or(place, |(_, place)| place).replace(['/', ':'], "-").to_lowercase();
    let is_public = mirror == public;
    let root = match env.get_filled(names::TUF_ROOT_JSON) {
        Some(path) => {
            let path = directory.join(path);
            let read = std::fs::read(&path);
            Some(read.map_err(|source| Misuse::File { name: names::TUF_ROOT_JSON, path, source })?)
        }
        None if is_public => None,
        None => {
            let kept =
                folder.as_ref().and_then(|folder| std::fs::read(folder.join(&place).join("root.json")).ok());
            Some(kept.ok_or_else(|| {
                let (name, mirror) = named.as_ref().expect("it isn't the default");
                invalid(name, mirror, "trust in it has to begin somewhere: name its root.json in TUF_ROOT_JSON, or run `cosign initialize`")
            })?)
        }
    };
    // Ours beside cosign's, which names its files otherwise.
    let cache = folder.map(|folder| folder.join("kubectl-build").join(place));
    Ok(TufRepository { mirror, root, cache })
}

/// What `cosign initialize` leaves.
#[derive(serde::Deserialize)]
struct RemoteJson {
    mirror: String,
}

/// Flags come before their variables, a file excludes flags that name what it names, and where nothing is said at all
/// the public instance is meant.
fn services(
    args: &IdentityArgs,
    wanted: bool,
    directory: &Path,
    env: &dyn Environment,
) -> Result<ServicePlan, Misuse> {
    let file = |name: &'static str, path: &Path| {
        let path = directory.join(path);
        std::fs::read(&path).map_err(|source| Misuse::File { name, path, source })
    };
    let path_of = |flag: &Option<PathBuf>, variable| {
        flag.clone().or_else(|| env.get_filled(variable).map(PathBuf::from))
    };
    let urls = [
        ("--fulcio-url", &args.fulcio_url, names::COSIGN_FULCIO_URL),
        ("--rekor-url", &args.rekor_url, names::COSIGN_REKOR_URL),
        ("--timestamp-server-url", &args.timestamp_server_url, names::COSIGN_TIMESTAMP_SERVER_URL),
        ("--oidc-issuer", &args.oidc_issuer, names::COSIGN_OIDC_ISSUER),
    ];
    let config = path_of(&args.signing_config, names::COSIGN_SIGNING_CONFIG);
    if let (Some(_), Some((name, ..))) =
        (&args.signing_config, urls.iter().find(|(_, flag, _)| flag.is_some()))
    {
        return Err(Misuse::ServicesTwice(name));
    }
    let mut given = Vec::new();
    for (name, flag, variable) in urls {
        // A variable doesn't contradict a file: the file is the newer way, and the flag the stronger one.
        let value = flag.clone().or_else(|| env.get_filled(variable).filter(|_| config.is_none()));
        let url = value.map(|value| match value.parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(url),
            Ok(_) => Err(invalid(name, &value, "it is no http or https URL")),
            Err(error) => Err(invalid(name, &value, error)),
        });
        given.push(url.transpose()?);
    }
    let tuf = tuf(directory, env)?;
    let [authority, log, clock, login] = <[Option<Url>; 4]>::try_from(given).expect("four were asked for");
    let any = authority.is_some() || log.is_some() || clock.is_some();
    let mut plan = match config {
        Some(path) => {
            let json = file("--signing-config", &path)?;
            ServicePlan::parse(&json)
                .map_err(|error| invalid("--signing-config", &shown(&path), told(&error)))?
        }
        None if wanted && !any && tuf.root.is_none() => ServicePlan::public(),
        None => ServicePlan {
            authority,
            logs: log.into_iter().map(|url| (url, None)).collect(),
            clocks: clock.into_iter().collect(),
            ..ServicePlan::default()
        },
    };
    plan.login = login.or(plan.login);
    let named = trust(args.trusted_root.as_deref(), directory, env)?;
    // A repository of one's own knows its services; the public one knows only the public instance's.
    plan.tuf = Some(tuf).filter(|tuf| wanted && named.is_none() && (plan.public || tuf.root.is_some()));
    plan.trust = named.or(plan.trust);
    plan.issuer_is_must = args.oidc_issuer.is_some();
    Ok(plan)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn told(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Returns the flags for a command line that continues the work. Tokens are left out: they would have ended by then.
fn flags(args: &IdentityArgs) -> Vec<String> {
    let mut flags = Vec::new();
    if args.keyless {
        flags.push("--keyless".to_owned());
    }
    let mut push = |name: &str, value: Option<String>| {
        flags.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    let token = args.identity_token.as_deref();
    push(
        "--identity-token",
        token.map(|text| match Path::new(text).is_file() {
            true => text.to_owned(),
            false => "TOKEN".to_owned(),
        }),
    );
    push("--service-account", args.service_account.clone());
    push("--fulcio-url", args.fulcio_url.clone());
    push("--rekor-url", args.rekor_url.clone());
    push("--timestamp-server-url", args.timestamp_server_url.clone());
    push("--oidc-issuer", args.oidc_issuer.clone());
    push("--oidc-client-id", args.oidc_client_id.clone());
    push("--oidc-client-secret-file", args.oidc_client_secret_file.as_deref().map(shown));
    push("--oidc-redirect-url", args.oidc_redirect_url.clone());
    push("--fulcio-auth-flow", args.fulcio_auth_flow.clone());
    push("--sign-timeout", args.sign_timeout.clone());
    push("--signing-config", args.signing_config.as_deref().map(shown));
    push("--trusted-root", args.trusted_root.as_deref().map(shown));
    if let Some(how) = &args.rekor {
        flags.push(format!("--rekor={how}"));
    }
    let switches =
        [("--oidc-disable-ambient-providers", args.oidc_disable_ambient_providers), ("--yes", args.yes)];
    flags.extend(switches.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()));
    flags
}

#[cfg(test)]
mod tests;
