//! The command line: what can be asked, and the exit code that answers.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod terminal;

mod completions;
pub mod config;
mod demo;
mod dead_letters;
mod interrupt;
mod publish;
mod run;
mod sandbox;
mod schema;
mod stalled;
mod status;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use serde_json::json;

use self::interrupt::interrupted;
use self::terminal::print;
use crate::broker::{self, BrokerError};
use crate::config::AmqpSection;

/// The command line; what the program is for is the description of the package.
#[derive(Debug, Parser)]
#[command(name = "rename-worker", version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    /// Settings, as TOML; environment variables override it key by key
    #[arg(long, global = true, value_name = "FILE", env = "RENAME_WORKER_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the worker until SIGTERM, SIGINT or SIGHUP
    Run,
    /// Show the main job in a few seconds, on a throw-away RabbitMQ
    Demo(demo::DemoArgs),
    /// Publish rename requests, from flags, a file or standard input
    Publish(publish::PublishArgs),
    /// Serve a stand-in for Dintero on loopback, with users, a ledger and faults on request
    Sandbox(sandbox::SandboxArgs),
    /// Review failed requests: list, show, replay, discard, export, import
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Show, declare or verify the exchanges and queues
    Topology(topology::TopologyArgs),
    /// Show the status of a running worker
    Status(status::StatusArgs),
    /// Check or show the settings
    Config(config::ConfigArgs),
    /// Print the JSON Schema of a message
    Schema(schema::SchemaArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

/// How a command ended; its number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Done = 0,
    Failed = 1,
    /// Wrong usage or settings.
    Usage = 2,
    /// The broker or the API cannot be reached.
    Unreachable = 3,
}

impl ExitStatus {
    /// How a command ends that the broker's trouble ends.
    fn of(trouble: &BrokerError) -> Self {
        match trouble {
            BrokerError::Settings(_) => Self::Usage,
            BrokerError::ConnectionEnded(_) => Self::Unreachable,
            trouble if trouble.is_unreachable() => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(exit: ExitStatus) -> Self {
        Self::from(exit as u8)
    }
}

/// What the command line asks for; ends the process where it asks for nothing that can be done.
#[must_use]
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|refused| {
        if refused.use_stderr() {
            // It quotes what was given, such as a file name that a shell has found.
            terminal::say_text(&refused.render().to_string());
            std::process::exit(refused.exit_code());
        }
        refused.exit()
    })
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitStatus {
    let config_file = cli.config.as_deref();
    match cli.command {
        Command::Run => run::run(config_file).await,
        Command::Status(args) => status::run(args, config_file).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Publish(args) => publish::run(args, config_file).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::DeadLetters(args) => dead_letters::run(args, config_file).await,
        Command::Topology(args) => topology::run(args, config_file).await,
        Command::Config(args) => config::run(&args, config_file),
        Command::Schema(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Why there is no result, and how the command ends.
#[derive(Debug)]
pub struct CliError {
    why: String,
    exit: ExitStatus,
}

impl CliError {
    fn new(exit: ExitStatus, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { why, exit }
    }

    /// On standard error; for a program as a line of JSON on standard output as well.
    fn print(&self, as_json: bool) -> ExitStatus {
        say!("{}", self.why);
        if as_json {
            print(&format!("{}\n", json!({"error": self.why})));
        }
        self.exit
    }
}

/// The trouble, and which broker it is with; never with user or password.
fn with_broker(trouble: &BrokerError, amqp: &AmqpSection) -> String {
    match broker::address(amqp) {
        Some(address) => {
            format!("{trouble}; the broker of amqp.url (RENAME_WORKER_AMQP__URL) is {address}")
        }
        None => trouble.to_string(),
    }
}
