//! From hyper's errors to kinds of trouble.

use super::dial::DialError;
use crate::registry::connect::{Fault, LookupError, RouteError};
use crate::registry::error::{Kind, Trouble};
use crate::registry::tls;
use hyper_util::client::legacy;
use std::error::Error;
use std::io;
use std::sync::Arc;

/// Says what a failed exchange with `at` was.
pub(super) fn explain(error: legacy::Error, at: &str) -> Trouble {
    if let Some(trouble) = routed(&error) {
        return trouble;
    }
    match find::<DialError>(&error) {
        None => broken(error, at),
        Some(dial @ DialError::Timeout(..)) => Trouble::new(Kind::Unreachable, dial.to_string()),
        Some(DialError::Handshake(address, cause)) => {
            let (kind, what) = handshake(address, cause);
            Trouble::new(kind, what).caused_by(Arc::clone(cause))
        }
        Some(DialError::Connect(address, cause)) => match lookup(cause) {
            Some(lookup) => {
                // Its own text is in ours already: the cause is what lies below.
                let cause = io::Error::new(lookup.source.kind(), lookup.source.to_string());
                Trouble::new(Kind::Dns, lookup.to_string()).caused_by(cause)
            }
            None => {
                let (kind, what) = connect(address, cause);
                Trouble::new(kind, what).caused_by(Arc::clone(cause))
            }
        },
    }
}

/// Says what a failure while reading a body was.
pub(super) fn broken(error: impl Error + Send + Sync + 'static, at: &str) -> Trouble {
    if let Some(trouble) = routed(&error) {
        return trouble;
    }
    let what = match find::<hyper::Error>(&error) {
        Some(cause) if cause.is_incomplete_message() => {
            format!("{at} closed the connection before its answer ended")
        }
        _ => format!("the connection to {at} broke"),
    };
    Trouble::new(Kind::Disconnected, what).caused_by(error)
}

/// What a tunnel says of itself comes before what was seen at its end.
fn routed(error: &(dyn Error + 'static)) -> Option<Trouble> {
    let route: &RouteError = find(error)?;
    let kind = match route.fault {
        Fault::NoWay => Kind::NoRoute,
        Fault::Broken => Kind::Disconnected,
        Fault::NoBuilderYet => Kind::NoBuilderYet,
    };
    let mut trouble = Trouble::new(kind, route.what.clone()).caused_by(route.clone());
    trouble.hint.clone_from(&route.hint);
    Some(trouble)
}

fn lookup(error: &io::Error) -> Option<&LookupError> {
    error.get_ref()?.downcast_ref()
}

fn connect(address: &str, error: &io::Error) -> (Kind, String) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => (Kind::Refused, format!("nobody listens on {address}")),
        io::ErrorKind::TimedOut => (Kind::Unreachable, format!("{address} does not answer")),
        _ => (Kind::Unreachable, format!("cannot connect to {address}")),
    }
}

fn handshake(address: &str, error: &io::Error) -> (Kind, String) {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match fault {
        // The first bytes of `HTTP/1.` are no TLS record.
        Some(rustls::Error::InvalidMessage(_)) => {
            (Kind::PlainHttp, format!("{address} speaks plain HTTP, not TLS"))
        }
        Some(rustls::Error::InvalidCertificate(fault)) if tls::is_chain_fault(fault) => (
            Kind::UntrustedCertificate,
            format!("the certificate of {address} is signed by an unknown authority"),
        ),
        Some(rustls::Error::InvalidCertificate(_)) => {
            (Kind::UntrustedCertificate, format!("the certificate of {address} is not valid"))
        }
        _ => (Kind::Tls, format!("no TLS connection with {address}")),
    }
}

/// Looks for an error of a type among an error and its causes, those that an I/O error wraps too.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error's source is its content's source.
        let shared = || error.downcast_ref::<Arc<io::Error>>().map(|error| &**error);
        let inner = error.downcast_ref::<io::Error>().or_else(shared).and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
