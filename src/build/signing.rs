//! Who signs this build: keys and identities, with the logs and clocks that see their signatures.

use super::preflight::{PreflightError, Unlocking};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::{
    self, Annotated, Formats, Identity, KeylessError, KeylessSigner, ServicePlan, Services, Signer,
};
use std::collections::BTreeMap;

/// What signing takes, before anything was asked.
pub struct Signing {
    /// The keys.
    pub keys: Unlocking,
    /// The key that signs for a builder, and that builder's name, which its signatures carry.
    pub builders: Option<(Unlocking, String)>,
    /// The identity, if one signs.
    pub identity: Option<Identity>,
    /// Certificate authority, logs, clocks and trust.
    pub services: ServicePlan,
    /// How they are reached, where any takes part.
    pub http: Option<Http>,
    /// The formats.
    pub formats: Formats,
    /// They were asked for: nothing else will do.
    pub formats_explicit: bool,
}

/// Signers that are ready.
#[derive(Default)]
pub struct Ready {
    /// Who signs.
    pub signers: Vec<Box<dyn Signer>>,
    /// In which formats.
    pub formats: Formats,
}

impl Signing {
    /// Unlocks keys, asks the services whether they answer, and finds out whether the identity would be accepted.
    ///
    /// # Errors
    /// The first that won't do.
    pub async fn prepare(self, events: &Events) -> Result<Ready, PreflightError> {
        let Self { keys, builders, identity, services: mut plan, http, formats: wish, formats_explicit } =
            self;
        let vouched = builders.is_some();
        let services = async {
            let Some(http) = &http else { return Ok((Services::default(), wish, None)) };
            let told = plan.public_log().is_some();
            // Who agreed to a key of his own has been told what a log shows of keys; of a builder's he hears below.
            let keyed = (plan.keyed || vouched) && !(told && plan.keyed);
            let agreed = |plan: &ServicePlan| match plan.public_log().filter(|_| keyed && !plan.agreed) {
                Some(log) => Err(PreflightError::Unagreed(log.to_string())),
                None => Ok(()),
            };
            agreed(&plan)?;
            if let Some(line) = plan.refresh(http).await.map_err(KeylessError::from)? {
                events.note(line);
            }
            agreed(&plan)?;
            if let Some(log) = plan.public_log() {
                let shows = [
                    (keyed || vouched).then_some(sign::PUBLISHED_BY_KEY),
                    identity.as_ref().filter(|_| !told).map(|_| sign::PUBLISHED_BY_IDENTITY),
                ];
                for shows in shows.into_iter().flatten() {
                    events.note(format!("the log {log} will show, {shows}"));
                }
            }
            let services = plan.resolve(http).await.map_err(KeylessError::from)?;
            let (formats, line) =
                services.formats(wish, formats_explicit, identity.is_some()).map_err(KeylessError::from)?;
            if let Some(line) = line {
                events.note(line);
            }
            let keyless = match &identity {
                Some(identity) => {
                    let (identity, http) = (identity.clone(), http.clone());
                    Some(KeylessSigner::prepare(identity, &plan, &services, http, events.clone()).await?)
                }
                None => None,
            };
            Ok::<_, PreflightError>((services, formats, keyless))
        };
        let builders = async {
            match builders {
                Some((key, name)) => Ok(Some((key.signers().await?, name))),
                None => Ok(None),
            }
        };
        let (keys, builders, (services, formats, keyless)) =
            tokio::try_join!(keys.signers(), builders, services)?;
        let witnessed = |key| {
            let signer = match &http {
                Some(http) => sign::witnessed(key, &services, plan.trust.clone(), http, events)
                    .map_err(PreflightError::Unloggable)?,
                None => key,
            };
            if let Some(hash) = signer.unusual_hash() {
                let name = signer.name();
                events.note(format!(
                    "`{name}` signs over {}, which verifiers have to be told: `--signature-digest-algorithm {hash}`",
                    hash.to_uppercase().replace("SHA", "SHA-")
                ));
            }
            Ok::<_, PreflightError>(signer)
        };
        let mut signers = keys.into_iter().map(witnessed).collect::<Result<Vec<_>, _>>()?;
        if let Some((keys, name)) = builders {
            let annotations = BTreeMap::from([("builder".to_owned(), name)]);
            for key in keys {
                signers.push(Box::new(Annotated::new(witnessed(key)?, annotations.clone())));
            }
        }
        signers.extend(keyless.map(|signer| Box::new(signer) as Box<dyn Signer>));
        Ok(Ready { signers, formats })
    }
}
