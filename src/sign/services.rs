//! Which services take part: who gives certificates, which logs and clocks see signatures, who is trusted.
//!
//! [`ServicePlan`] is what flags and files say; [`ServicePlan::resolve`] asks the services themselves what they are.

use super::evidence::Content;
use super::http::{Http, HttpError, shown};
use super::trust::{Refreshed, TrustRoot, TufError, TufRepository};
use super::witness::{self, WitnessError};
use super::{Format, Formats};
use sigstore_verify::trust_root::{
    SIGSTORE_PRODUCTION_SIGNING_CONFIG, ServiceConfiguration, ServiceEndpoint, ServiceSelector, SigningConfig,
};
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// The protocol of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogVersion {
    /// Rekor v1: promises each entry with a time of its own.
    V1,
    /// Rekor v2 (rekor-tiles): proves inclusion only, so keyless signatures need a timestamp beside it.
    V2,
}

impl fmt::Display for LogVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V1 => "Rekor v1",
            Self::V2 => "Rekor v2",
        })
    }
}

/// A transparency log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where.
    pub url: Url,
    /// Its protocol.
    pub version: LogVersion,
}

impl Log {
    /// Whether a signature over this can carry the log's entry: `.sig` layers have a place for promises alone.
    pub(super) fn takes(&self, content: Content<'_>) -> bool {
        self.version == LogVersion::V1 || matches!(content, Content::Statement(_))
    }
}

/// Whether signatures are recorded in logs (`--rekor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogMode {
    /// They aren't.
    #[default]
    Off,
    /// They are, or there is no signature.
    Must,
    /// They are if the log is willing; only for keys.
    BestEffort,
}

impl FromStr for LogMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::Must),
            "false" => Ok(Self::Off),
            "best-effort" => Ok(Self::BestEffort),
            other => Err(format!("`{other}` is not one of `true`, `false`, `best-effort`")),
        }
    }
}

/// What flags and files say of the services.
#[derive(Clone, Debug, Default)]
pub struct ServicePlan {
    /// The certificate authority.
    pub authority: Option<Url>,
    /// Logs, with their protocol where it is known.
    pub logs: Vec<(Url, Option<LogVersion>)>,
    /// Timestamp authorities.
    pub clocks: Vec<Url>,
    /// Where people log in.
    pub login: Option<Url>,
    /// Whether logs are used.
    pub log_mode: LogMode,
    /// Who is trusted when signatures are read back.
    pub trust: Option<TrustRoot>,
    /// They are those of the public instance.
    pub public: bool,
    /// Only tokens of the issuer in `login` are taken.
    pub issuer_is_must: bool,
    /// Says who is trusted, and which services there are, where nothing else does.
    pub tuf: Option<TufRepository>,
    /// Keys sign, beside an identity or alone.
    pub keyed: bool,
    /// That a key's signatures become public was agreed to.
    pub agreed: bool,
}

/// What a public log shows of an identity that signs.
pub const PUBLISHED_BY_IDENTITY: &str =
    "for everybody and for good: the identity that signs, its issuer, and the digest of what is signed";
/// What it shows of a key.
pub const PUBLISHED_BY_KEY: &str =
    "for everybody and for good: the public key, its signatures, and the digests of what is signed";

/// Services that are known to answer.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// The logs.
    pub logs: Vec<Log>,
    /// The timestamp authorities.
    pub clocks: Vec<Url>,
    /// Whether logs are used.
    pub log_mode: LogMode,
}

/// Why services can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file that is no SigningConfig.
    #[error("it is no SigningConfig (the JSON that `cosign signing-config create` writes)")]
    Config(#[source] Box<dyn Error + Send + Sync>),
    /// A SigningConfig that asks for what it doesn't have.
    #[error("the SigningConfig {0}")]
    Selection(&'static str),
    /// One that doesn't answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// One that answers what it shouldn't.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// A TUF repository that says who is trusted.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// A v2 log without a clock can't date a keyless signature.
    #[error("the log {log} gives no time, so keyless signatures need a timestamp authority as well")]
    NoClock {
        /// Where.
        log: String,
    },
    /// What was asked for explicitly can't be had.
    #[error(
        "signatures in the `{format}` format cannot carry an entry of the log {log}, which speaks Rekor v2"
    )]
    Format {
        /// What was asked for.
        format: Formats,
        /// Where.
        log: String,
    },
}

impl ServicePlan {
    /// Returns the plan for the public instance.
    pub fn public() -> Self {
        let config = SigningConfig::from_json(SIGSTORE_PRODUCTION_SIGNING_CONFIG);
        let config = config.expect("the library's own snapshot is valid");
        let mut plan = Self::of(&config).expect("the library's own snapshot is valid");
        plan.trust = Some(TrustRoot::public());
        plan.public = true;
        plan
    }

    /// Reads the JSON of a SigningConfig, version 0.2.
    ///
    /// # Errors
    /// [`ServiceError::Config`] and [`ServiceError::Selection`].
    pub fn parse(json: &[u8]) -> Result<Self, ServiceError> {
        let text = std::str::from_utf8(json).map_err(|error| ServiceError::Config(Box::new(error)))?;
        let config = SigningConfig::from_json(text).map_err(|error| ServiceError::Config(Box::new(error)))?;
        Self::of(&config)
    }

    fn of(config: &SigningConfig) -> Result<Self, ServiceError> {
        let url = |endpoint: &ServiceEndpoint| {
            endpoint.url.parse::<Url>().map_err(|error| ServiceError::Config(Box::new(error)))
        };
        let logs = select(config.eligible_rekor_urls(None), &config.rekor_tlog_config)?;
        let logs = logs.into_iter().map(|endpoint| {
            let version = if endpoint.major_api_version == 1 { LogVersion::V1 } else { LogVersion::V2 };
            Ok::<_, ServiceError>((url(endpoint)?, Some(version)))
        });
        let clocks = select(config.eligible_tsa_urls(), &config.tsa_config)?;
        Ok(Self {
            authority: config.fulcio_url().map(url).transpose()?,
            login: config.oidc_url().map(url).transpose()?,
            logs: logs.collect::<Result<_, _>>()?,
            clocks: clocks.into_iter().map(url).collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    /// Returns the log that belongs to the public instance, if one is used that does.
    pub fn public_log(&self) -> Option<&Url> {
        let public = |log: &&Url| log.host_str().is_some_and(|host| host.ends_with(".sigstore.dev"));
        self.logs.iter().map(|(log, _)| log).filter(|_| self.log_mode != LogMode::Off).find(public)
    }

    /// Lets the TUF repository say what it knows better by now, if there is one; returns what is to be said about that.
    ///
    /// # Errors
    /// [`ServiceError::Tuf`].
    pub async fn refresh(&mut self, http: &Http) -> Result<Option<String>, ServiceError> {
        let Some(tuf) = &self.tuf else { return Ok(None) };
        let Refreshed { trust, services, note } = tuf.refresh(http).await?;
        self.trust = Some(trust);
        if let Some(services) =
            services.filter(|_| self.public || self.authority.is_none() && self.logs.is_empty())
        {
            let login = self.login.take().filter(|_| self.issuer_is_must);
            self.login = login.or(services.login);
            (self.authority, self.logs, self.clocks) = (services.authority, services.logs, services.clocks);
        }
        Ok(note)
    }

    /// Asks logs and clocks whether they answer, and logs which protocol they speak.
    ///
    /// # Errors
    /// The first that doesn't answer as it should.
    pub async fn resolve(&self, http: &Http) -> Result<Services, ServiceError> {
        let mut logs = Vec::new();
        if self.log_mode != LogMode::Off {
            for (url, version) in &self.logs {
                let asked = witness::log_version(http, url).await;
                let version = match (version, asked) {
                    (Some(version), Ok(_)) => *version,
                    (None, Ok(asked)) => asked,
                    // It may be back when the image is pushed; if not, the signature does without.
                    (_, Err(_)) if self.log_mode == LogMode::BestEffort => version.unwrap_or(LogVersion::V1),
                    (_, Err(error)) => return Err(error.into()),
                };
                logs.push(Log { url: url.clone(), version });
            }
        }
        for clock in &self.clocks {
            witness::probe_clock(http, clock).await?;
        }
        Ok(Services { logs, clocks: self.clocks.clone(), log_mode: self.log_mode })
    }
}

/// Of the services that a SigningConfig lists, the ones that it wants used: no two of one operator.
fn select<'a>(
    eligible: Vec<&'a ServiceEndpoint>,
    wanted: &ServiceConfiguration,
) -> Result<Vec<&'a ServiceEndpoint>, ServiceError> {
    let mut one_each: Vec<&ServiceEndpoint> = Vec::new();
    let mut sorted = eligible;
    // The newest first, among those of the highest version, which come first already.
    sorted.sort_by_key(|endpoint| {
        (std::cmp::Reverse(endpoint.major_api_version), std::cmp::Reverse(endpoint.valid_for.start))
    });
    for endpoint in sorted {
        let same =
            |other: &&ServiceEndpoint| endpoint.operator.is_some() && other.operator == endpoint.operator;
        if !one_each.iter().any(same) {
            one_each.push(endpoint);
        }
    }
    let count = match wanted.selector {
        ServiceSelector::All => one_each.len(),
        ServiceSelector::Any => 1,
        ServiceSelector::Exact => wanted.count.unwrap_or(1) as usize,
        _ => 1,
    };
    if wanted.selector == ServiceSelector::Exact && one_each.len() < count {
        return Err(ServiceError::Selection("wants more services than it lists"));
    }
    one_each.truncate(count);
    Ok(one_each)
}

impl Services {
    /// Returns the formats that signatures can have with these services, and a line on what had to give way.
    ///
    /// # Errors
    /// [`ServiceError::Format`] where the wish was explicit, [`ServiceError::NoClock`].
    pub fn formats(
        &self,
        wish: Formats,
        explicit: bool,
        keyless: bool,
    ) -> Result<(Formats, Option<String>), ServiceError> {
        if self.log_mode == LogMode::Off {
            return Ok((wish, None));
        }
        let second = self.logs.iter().find(|log| log.version == LogVersion::V2);
        let Some(log) = second.filter(|_| self.logs.iter().all(|log| log.version == LogVersion::V2)) else {
            return Ok((wish, None));
        };
        let at = shown(&log.url);
        if keyless && self.clocks.is_empty() {
            return Err(ServiceError::NoClock { log: at });
        }
        if !wish.has(Format::Legacy) {
            return Ok((wish, None));
        }
        if explicit {
            return Err(ServiceError::Format { format: wish, log: at });
        }
        let line = format!(
            "signatures are written as bundles only: the `.sig` format cannot carry entries of the log {at}, which speaks Rekor v2"
        );
        Ok((Formats::Bundle, Some(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(versions: &[LogVersion], clocks: usize) -> Services {
        let url: Url = "https://r.example/".parse().unwrap();
        Services {
            logs: versions.iter().map(|version| Log { url: url.clone(), version: *version }).collect(),
            clocks: vec![url; clocks],
            log_mode: LogMode::Must,
        }
    }

    #[test]
    fn what_the_services_cannot_do_gives_way_or_is_refused() {
        use LogVersion::{V1, V2};
        let (formats, line) = services(&[V2], 1).formats(Formats::Both, false, true).unwrap();
        assert!(formats == Formats::Bundle && line.unwrap().contains("Rekor v2"));
        assert!(matches!(
            services(&[V2], 1).formats(Formats::Legacy, true, true),
            Err(ServiceError::Format { format: Formats::Legacy, .. })
        ));
        assert!(matches!(
            services(&[V2], 0).formats(Formats::Bundle, true, true),
            Err(ServiceError::NoClock { .. })
        ));
        assert_eq!(services(&[V1], 0).formats(Formats::Both, true, true).unwrap(), (Formats::Both, None));
        assert_eq!(services(&[V1, V2], 1).formats(Formats::Both, true, true).unwrap(), (Formats::Both, None));
        let mut off = services(&[V2], 0);
        off.log_mode = LogMode::Off;
        assert_eq!(off.formats(Formats::Legacy, true, false).unwrap(), (Formats::Legacy, None));
    }

    #[test]
    fn the_public_instance_is_known() {
        let plan = ServicePlan::public();
        assert_eq!(plan.authority.as_ref().unwrap().as_str(), "https://fulcio.sigstore.dev/");
        assert_eq!(plan.logs.len(), 1);
        assert!(plan.public_log().is_none(), "no log is asked for");
        let logged = ServicePlan { log_mode: LogMode::Must, ..plan.clone() };
        assert_eq!(logged.public_log(), logged.logs.first().map(|(log, _)| log));
        assert!(plan.trust.unwrap().has_certificate_logs());
    }

    #[test]
    fn a_signing_config_says_which_to_use() {
        let endpoint = |url: &str, version: u32, operator: &str, from: &str| {
            format!(
                r#"{{"url":"{url}","majorApiVersion":{version},"validFor":{{"start":"{from}T00:00:00Z"}},"operator":"{operator}"}}"#
            )
        };
        let config = |selector: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls":[{}],"rekorTlogUrls":[{},{},{}],"rekorTlogConfig":{selector}}}"#,
                endpoint("https://ca.example", 1, "a", "2026-01-01"),
                endpoint("https://old.example", 1, "a", "2026-01-01"),
                endpoint("https://new.example", 2, "a", "2026-01-01"),
                endpoint("https://other.example", 1, "b", "2026-01-01"),
            )
        };
        let hosts = |selector: &str| {
            let plan = ServicePlan::parse(config(selector).as_bytes()).unwrap();
            plan.logs.iter().map(|(url, _)| url.host_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(hosts(r#"{"selector":"ANY"}"#), ["new.example"]);
        assert_eq!(hosts(r#"{"selector":"ALL"}"#), ["new.example", "other.example"]);
        assert_eq!(hosts(r#"{"selector":"EXACT","count":2}"#).len(), 2);
        let too_many = config(r#"{"selector":"EXACT","count":3}"#);
        assert!(matches!(ServicePlan::parse(too_many.as_bytes()), Err(ServiceError::Selection(_))));
        assert!(matches!(ServicePlan::parse(b"{}"), Err(ServiceError::Config(_))));
    }
}
