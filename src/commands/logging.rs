//! The log: off unless asked for, to standard error, and never while a live view owns the terminal (`-v` chooses
//! plain progress).

use crate::config::env::{Environment, names};
use tracing_subscriber::EnvFilter;

/// Starts the log: `-v` shows what we do, `-vv` each request; KUBECTL_BUILD_LOG is a filter in tracing's syntax.
pub(super) fn start(verbose: u8, env: &dyn Environment) {
    let filter = match (env.get_filled(names::LOG), verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return,
        (None, 1) => "kubectl_build=debug".to_owned(),
        // Lower layers log whole requests with their headers at `trace`; secrets must not get there.
        (None, _) => "kubectl_build=trace,kube=debug,hyper_util=debug,tower=info,h2=info".to_owned(),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .finish();
    // Only a second start in one process can fail, and it would change nothing.
    let _already = tracing::subscriber::set_global_default(subscriber);
}
