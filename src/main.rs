//! Parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use rename_worker::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Cli::parse()).await.into()
}
