//! The device flow: a code that is confirmed in a browser anywhere.

use super::token::RefusedJson;
use super::{LoggedIn, Login, LoginError, Pkce};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// How often is asked whether somebody has confirmed, where nothing is said (RFC 8628, section 3.2).
const INTERVAL: u64 = 5;
/// What is added whenever that was too often (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest that a code may be good, and the longest pause: what a provider says is not believed beyond.
const LONGEST: u64 = 24 * 3600;
const LONGEST_PAUSE: u64 = 60;

#[derive(Deserialize)]
struct DeviceJson {
    device_code: SecretString,
    user_code: String,
    verification_uri: Url,
    verification_uri_complete: Option<Url>,
    expires_in: u64,
    interval: Option<u64>,
}

impl Login {
    pub(super) async fn by_device(&self) -> Result<LoggedIn, LoginError> {
        let provider = &self.provider;
        let endpoint = provider.device.as_ref().expect("the flow was chosen for it");
        let pkce = Pkce::new()?;
        let fields = [
            ("scope", provider.scope.as_str()),
            ("code_challenge", pkce.challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        let answer = self.call(endpoint, &fields).await?;
        if !answer.is_success() {
            return Err(answer.refused(&RefusedJson::of(&answer).told()).into());
        }
        let device: DeviceJson = answer.json()?;
        let ends = Instant::now() + Duration::from_secs(device.expires_in.min(LONGEST));
        let code: String = device.user_code.chars().filter(|letter| !letter.is_control()).collect();
        self.ask(match &device.verification_uri_complete {
            Some(url) => format!("log in to sign: confirm the code {code}, with any browser, at\n{url}"),
            None => format!(
                "log in to sign: enter the code {code}, with any browser, at\n{}",
                device.verification_uri
            ),
        });
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device.device_code.expose_secret()),
            ("code_verifier", pkce.verifier.expose_secret()),
        ];
        let mut pause = Duration::from_secs(device.interval.unwrap_or(INTERVAL).clamp(1, LONGEST_PAUSE));
        loop {
            tokio::time::sleep(pause).await;
            if Instant::now() >= ends {
                return Err(LoginError::CodeEnded);
            }
            // One call that fails is no reason to let the person down: the code is still good.
            let Ok(answer) = self.call(&provider.token, &fields).await else { continue };
            if answer.is_success() {
                return self.granted(&answer, None).await;
            }
            let refused = RefusedJson::of(&answer);
            match refused.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => pause += SLOWER,
                "expired_token" => return Err(LoginError::CodeEnded),
                _ if answer.status.is_server_error() || answer.status.as_u16() == 429 => {}
                _ => {
                    let (issuer, reason) = (provider.issuer.clone(), refused.told());
                    return Err(LoginError::Refused { issuer, reason });
                }
            }
        }
    }
}
