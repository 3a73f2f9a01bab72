//! Who signs this build: keys and identities, with the logs and clocks that see their signatures.

use super::preflight::{PreflightError, Unlocking};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::identity::TokenSource;
use crate::sign::{self, Formats, KeylessError, KeylessSigner, ServicePlan, Services, Signer};
use std::sync::Arc;

/// What signing takes, before anything was asked.
pub struct Signing {
    /// The keys.
    pub keys: Unlocking,
    /// The identity, if one signs.
    pub identity: Option<Arc<dyn TokenSource>>,
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
        let Self { keys, identity, services: plan, http, formats: wish, formats_explicit } = self;
        let services = async {
            let Some(http) = &http else { return Ok((Services::default(), wish, None)) };
            let services = plan.resolve(http).await.map_err(KeylessError::from)?;
            let (formats, line) =
                services.formats(wish, formats_explicit, identity.is_some()).map_err(KeylessError::from)?;
            if let Some(line) = line {
                events.note(line);
            }
            let keyless = match &identity {
                Some(source) => {
                    let (source, http) = (Arc::clone(source), http.clone());
                    Some(KeylessSigner::prepare(source, &plan, &services, http, events.clone()).await?)
                }
                None => None,
            };
            Ok::<_, PreflightError>((services, formats, keyless))
        };
        let (keys, (services, formats, keyless)) = tokio::try_join!(keys.signers(), services)?;
        let mut signers = Vec::new();
        for key in keys {
            let trust = plan.trust.clone();
            signers.push(match &http {
                Some(http) => sign::witnessed(key, &services, trust, http, events)
                    .map_err(PreflightError::Unloggable)?,
                None => key,
            });
        }
        signers.extend(keyless.map(|signer| Box::new(signer) as Box<dyn Signer>));
        Ok(Ready { signers, formats })
    }
}
