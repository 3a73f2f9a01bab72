//! Makes of the settings for identities and services what signing works with.

use super::failure::Failure;
use crate::build::identity::ServiceAccount;
use crate::build::preflight::Unlocking;
use crate::build::signing::Signing;
use crate::cluster::Connection;
use crate::config::Misuse;
use crate::config::keyless::{IdentityChoice, KeylessSettings, PUBLISHED_BY_KEY};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::identity::{Ambient, Given, TokenFile, TokenSource};
use crate::sign::{Formats, LogMode};
use crate::ui::prompt;
use std::sync::Arc;

/// Asks for consent where a signature would be published and nobody has given it; to be run before anything is drawn.
///
/// # Errors
/// No consent.
pub(super) async fn consent(settings: &KeylessSettings) -> Result<(), Failure> {
    let Some(log) = &settings.ask_consent else { return Ok(()) };
    let question = format!("The log {log} will show, {PUBLISHED_BY_KEY}. Go on?");
    if prompt::available() && prompt::confirm(&question).await.unwrap_or(false) {
        return Ok(());
    }
    Err(Misuse::PublicLog(log.clone()).into())
}

/// Joins keys, identity and services.
///
/// # Errors
/// Proxies or authorities that can't be used.
pub(super) fn signing(
    keys: Unlocking,
    settings: KeylessSettings,
    formats: (Formats, bool),
    connection: Option<&Connection>,
    events: &Events,
) -> Result<Signing, Failure> {
    let KeylessSettings { identity, services, http, notes, .. } = settings;
    // Reading the system's authorities takes its time, so it is done where somebody is to be asked.
    let talks = identity.is_some() || services.log_mode != LogMode::Off || !services.clocks.is_empty();
    let http = talks.then(|| Http::new(&http).map_err(Failure::services)).transpose()?;
    for note in notes {
        events.note(note);
    }
    let identity = match identity {
        None => None,
        Some(IdentityChoice::ServiceAccount { namespace, name }) => {
            let connection = connection.ok_or_else(|| Failure::account_without_cluster(&name))?;
            Some(Arc::new(ServiceAccount::new(connection.clone(), namespace, name)) as Arc<dyn TokenSource>)
        }
        Some(IdentityChoice::Given { text, place }) => Some(Arc::new(Given::new(text, place)) as _),
        Some(IdentityChoice::File(path)) => Some(Arc::new(TokenFile::new(path)) as _),
        Some(IdentityChoice::Ambient(source)) => {
            let http = http.clone().expect("an identity talks");
            Some(Arc::new(Ambient::new(source, http)) as _)
        }
    };
    let (formats, formats_explicit) = formats;
    Ok(Signing { keys, builders: None, identity, services, http, formats, formats_explicit })
}
