//! The thin entry: parse, run, turn the outcome into an exit code.

use kubectl_build::{cli, commands, config};
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    let code = match cli::parse(&argv, std::path::Path::exists) {
        Ok(invocation) => commands::run(invocation, &config::env::Process),
        Err(error) => commands::refuse(&error),
    };
    ExitCode::from(code)
}
