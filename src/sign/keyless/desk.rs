//! A login that runs beside a build, and what is left of it when the build is done.
//!
//! Tokens and certificates live for minutes, builds for hours. A provider that lets tokens be renewed is asked for a
//! fresh one when it is needed; of any other the certificate is taken as soon as somebody has logged in, and if it has
//! ended when it is needed, the person is asked again.

use super::{Certifier, Current, KeylessError};
use crate::sign::identity::IdentityToken;
use crate::sign::login::{LoggedIn, Login, LoginError};
use crate::sign::witness::chain;
use crate::task::{self, Task};
use secrecy::SecretString;
use std::sync::{Arc, Mutex};

/// Where somebody logs in, and is found again.
pub(super) struct Desk {
    login: Arc<Login>,
    certifier: Arc<Certifier>,
    begun: Mutex<Option<Waiting>>,
    /// What renews the token, and whose it is.
    renewal: tokio::sync::Mutex<Option<(SecretString, String)>>,
}

type Waiting = Task<Result<Arrived, KeylessError>>;

/// Somebody logged in.
enum Arrived {
    /// His token can be renewed at any time.
    Renewable(IdentityToken, SecretString),
    /// It can't, so this was taken while it was good.
    Certified(Current),
}

impl Desk {
    pub(super) fn new(login: Login, certifier: Arc<Certifier>) -> Self {
        Self { login: Arc::new(login), certifier, begun: Mutex::default(), renewal: Default::default() }
    }

    /// Asks the person to log in, and waits for nothing.
    pub(super) fn begin(&self) {
        *self.begun.lock().expect("nobody panics while holding it") = Some(self.offer());
    }

    fn offer(&self) -> Waiting {
        let (login, certifier) = (Arc::clone(&self.login), Arc::clone(&self.certifier));
        task::spawn("login", async move {
            let step = certifier.events.step("login", format!("waiting for {}", login.place()));
            let LoggedIn { token, refresh } = step.end(login.run().await)?;
            certifier.check(&token, &login.place())?;
            certifier.introduce(&token, &login.place());
            Ok(match refresh {
                Some(refresh) => Arrived::Renewable(token, refresh),
                None => Arrived::Certified(certifier.certify(&token, &login.place()).await?),
            })
        })
    }

    /// Returns a certificate that is good now. Whoever has to log in for it is waited for, but not for ever.
    pub(super) async fn certificate(&self) -> Result<Current, KeylessError> {
        let mut renewal = self.renewal.lock().await;
        let begun = self.begun.lock().expect("nobody panics while holding it").take();
        let events = &self.certifier.events;
        match begun {
            Some(waiting) if !waiting.is_finished() => {
                self.login.remind();
                return self.arrived(waiting, &mut renewal).await;
            }
            Some(over) => match over.join().await {
                Ok(Arrived::Certified(certificate)) if certificate.is_good() => return Ok(certificate),
                Ok(Arrived::Certified(_)) => {
                    events.note("the certificate ended before it was needed: please log in again");
                }
                Ok(Arrived::Renewable(token, refresh)) => *renewal = Some((refresh, token.subject)),
                Err(error) => events.note(format!("{}: please log in again", chain(&error))),
            },
            None => {}
        }
        if let Some((refresh, subject)) = renewal.take() {
            let place = self.login.place();
            let step = events.step("token", format!("getting a fresh identity token by {place}"));
            match step.end(self.login.refresh(&refresh, &subject).await) {
                Ok(LoggedIn { token, refresh }) => {
                    *renewal = refresh.map(|refresh| (refresh, subject));
                    return self.certifier.certify(&token, &place).await;
                }
                Err(error) => {
                    events
                        .note(format!("there is no fresh token, so please log in again: {}", chain(&error)));
                }
            }
        }
        self.arrived(self.offer(), &mut renewal).await
    }

    /// Waits for somebody who has been asked just now.
    async fn arrived(
        &self,
        waiting: Waiting,
        renewal: &mut Option<(SecretString, String)>,
    ) -> Result<Current, KeylessError> {
        let after = self.login.timeout();
        let waited = async {
            let mut waiting = waiting;
            loop {
                match waiting.join().await {
                    // A code may be good for less time than there is to confirm one.
                    Err(KeylessError::Login(LoginError::CodeEnded)) => waiting = self.offer(),
                    arrived => return arrived,
                }
            }
        };
        match tokio::time::timeout(after, waited).await.map_err(|_| LoginError::TimedOut { after })?? {
            Arrived::Certified(certificate) => Ok(certificate),
            Arrived::Renewable(token, refresh) => {
                *renewal = Some((refresh, token.subject.clone()));
                self.certifier.certify(&token, &self.login.place()).await
            }
        }
    }
}
