//! How signing services are reached: the proxies of the environment.

use super::env::{Environment, names};
use crate::sign::http::{HttpOptions, Proxies};

/// Returns what the environment says of reaching services.
pub fn http(env: &dyn Environment) -> HttpOptions {
    let either = |[upper, lower]: [&str; 2]| env.get_filled(upper).or_else(|| env.get_filled(lower));
    let proxies = Proxies {
        https: either(names::HTTPS_PROXY),
        // Only in lower case, as everywhere since HTTPOXY.
        http: env.get_filled(names::HTTP_PROXY),
        none_for: either(names::NO_PROXY),
    };
    HttpOptions { proxies, ..HttpOptions::default() }
}
