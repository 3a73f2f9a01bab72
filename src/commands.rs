//! One file a verb: settings in, core called, outcome shown. The only place that knows both core and `ui`.

mod build;
mod builders;
mod display;
mod failure;
mod files;
mod identity;
mod interrupt;
mod key;
mod keys;
mod logging;
mod registries;
mod report;
mod sign;
mod verifiers;
mod verify;

use crate::cli::buildkit::Verb;
use crate::cli::{self, Invocation};
use crate::config::env::Environment;
use crate::task::Cancel;
use crate::ui::printer::Printer;
use failure::Failure;
use std::future::Future;
use tokio::runtime::Builder;

/// Runs what the command line asks for and returns the exit code.
pub fn run(invocation: Invocation, env: &dyn Environment) -> u8 {
    match invocation {
        Invocation::Build(args) => {
            let cli::build::BuildArgs { paths, options, output, builder, signing, registry, cluster, log } =
                *args;
            let verbose = log.verbose;
            let place = crate::config::cluster::place(&cluster);
            let parts = crate::config::build::Parts {
                paths,
                options,
                output,
                builder,
                signing,
                registry,
                cluster,
                verbose,
            };
            on(several_threads(), verbose, &place, env, |cancel| build::run(parts, env, cancel))
        }
        Invocation::Buildkit(args) => {
            let cli::buildkit::BuildkitArgs { verb, cluster, log } = *args;
            let verbose = log.verbose;
            let place = crate::config::cluster::place(&cluster);
            match verb {
                Verb::Build(args) => {
                    let cli::buildkit::VerbBuildArgs { paths, options, output, builder, signing, registry } =
                        *args;
                    let parts = crate::config::build::Parts {
                        paths,
                        options,
                        output,
                        builder,
                        signing,
                        registry,
                        cluster,
                        verbose,
                    };
                    on(several_threads(), verbose, &place, env, |cancel| build::run(parts, env, cancel))
                }
                Verb::Create(args) => drive(verbose, &place, env, |cancel| {
                    builders::create(*args, cluster, verbose, env, cancel)
                }),
                Verb::Ls(_) => drive(verbose, &place, env, |cancel| builders::list(cluster, env, cancel)),
                Verb::Rm(args) => {
                    drive(verbose, &place, env, |cancel| builders::remove(args, cluster, env, cancel))
                }
                Verb::Sign(args) => {
                    drive(verbose, &place, env, |cancel| sign::run(*args, cluster, verbose, env, cancel))
                }
                Verb::Verify(args) => {
                    drive(verbose, &place, env, |cancel| verify::run(*args, cluster, env, cancel))
                }
                Verb::Key(args) => {
                    drive(verbose, &place, env, |cancel| key::run(args.verb, cluster, env, cancel))
                }
                Verb::Version => drive(verbose, &place, env, async |_| {
                    print_lines([concat!("kubectl-build ", env!("CARGO_PKG_VERSION"))])
                }),
            }
        }
    }
}

/// Prints a command line's error, or the help that was asked for, and returns the exit code.
pub fn refuse(error: &clap::Error) -> u8 {
    // clap decides between the streams and colours; a closed one is nobody's loss.
    let _closed = error.print();
    if error.use_stderr() { failure::USAGE } else { 0 }
}

/// The runtime of a build: a context is moved faster by several threads.
fn several_threads() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    builder
}

/// Runs a verb that waits for answers most of the time on one thread, since handing work over costs more than the work.
fn drive<'a, F>(verbose: u8, place: &[String], env: &'a dyn Environment, verb: impl FnOnce(Cancel) -> F) -> u8
where
    F: Future<Output = Result<(), Failure>> + 'a,
{
    on(Builder::new_current_thread(), verbose, place, env, verb)
}

/// Runs a verb with signals watched, and prints its failure. `place` are the flags that say which cluster is meant.
fn on<'a, F>(
    mut runtime: Builder,
    verbose: u8,
    place: &[String],
    env: &'a dyn Environment,
    verb: impl FnOnce(Cancel) -> F,
) -> u8
where
    F: Future<Output = Result<(), Failure>> + 'a,
{
    failure::catch_bugs();
    logging::start(verbose, env);
    // The first provider that is installed stays; there is only this one.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::no_runtime(&error),
    };
    let cancel = Cancel::new();
    let within = runtime.enter();
    let _signals = match interrupt::watch(&cancel) {
        Ok(signals) => signals,
        Err(error) => return failure::no_runtime(&error),
    };
    drop(within);
    let code = runtime.block_on(async {
        match verb(cancel).await {
            Ok(()) => 0,
            Err(failure) => failure.within(place).print(&display::palette(env)).await,
        }
    });
    // A read of a terminal or a hung disk must not hold up the end.
    runtime.shutdown_background();
    code
}

/// Writes lines to standard output; one that nobody reads any more ends them silently.
///
/// # Errors
/// What a redirection meets, such as a full disk.
fn print_lines<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    let mut out = Printer::stdout();
    lines.into_iter().try_for_each(|line| out.line(line)).map_err(|error| Failure::stdout(&error))
}

/// Writes lines to standard error, where there is no runtime: [`printer::remark`](crate::ui::printer::remark) waits no
/// longer than it should.
fn say_lines<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) {
    let mut out = Printer::stderr();
    for line in lines {
        if out.line(line).is_err() {
            return;
        }
    }
}
