//! Parse, dispatch, exit code.

use std::process::ExitCode;

use rename_worker::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::parse()).await.into()
}
