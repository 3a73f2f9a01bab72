//! Makes of the settings for identities and services what signing works with.

use super::failure::Failure;
use crate::build::identity::ServiceAccount;
use crate::build::preflight::Unlocking;
use crate::build::signing::Signing;
use crate::cluster::Connection;
use crate::config::Misuse;
use crate::config::keyless::{IdentityChoice, KeylessSettings, LoginChoice};
use crate::event::Events;
use crate::sign::http::Http;
use crate::sign::identity::{Ambient, Given, TokenFile, TokenSource};
use crate::sign::login::{Flow, LoginSettings, Opener};
use crate::sign::{Formats, Identity, LogMode, PUBLISHED_BY_KEY};
use crate::ui::{browser, prompt};
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
    // Only where somebody is to be asked.
    let talks = identity.is_some() || services.log_mode != LogMode::Off || !services.clocks.is_empty();
    let http = talks.then(|| Http::new(&http).map_err(Failure::services)).transpose()?;
    for note in notes {
        events.note(note);
    }
    let identity = match identity {
        None => None,
        Some(IdentityChoice::ServiceAccount { namespace, name }) => {
            let connection = connection.ok_or_else(|| Failure::account_without_cluster(&name))?;
            Some(from(ServiceAccount::new(connection.clone(), namespace, name)))
        }
        Some(IdentityChoice::Given { text, place }) => Some(from(Given::new(text, place))),
        Some(IdentityChoice::File(path)) => Some(from(TokenFile::new(path))),
        Some(IdentityChoice::Ambient(source)) => {
            let http = http.clone().expect("an identity talks");
            Some(from(Ambient::new(source, http)))
        }
        Some(IdentityChoice::Login(choice)) => Some(Identity::Login(login(choice))),
    };
    let (formats, formats_explicit) = formats;
    Ok(Signing { keys, builders: None, identity, services, http, formats, formats_explicit })
}

fn from(source: impl TokenSource + 'static) -> Identity {
    Identity::Source(Arc::new(source))
}

fn login(choice: LoginChoice) -> LoginSettings {
    let LoginChoice { client_id, client_secret, flow, has_browser, browser, redirect, timeout } = choice;
    let open = move |page: &str| browser::open(page, browser.as_deref());
    let open = (has_browser && flow != Some(Flow::Device)).then(|| Arc::new(open) as Opener);
    LoginSettings { client_id, client_secret, flow, open, redirect, timeout }
}
