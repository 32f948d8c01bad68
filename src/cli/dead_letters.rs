//! `dead-letters …`: requests that failed, looked at, sent again, discarded, carried elsewhere.
//!
//! Each command is a thin face of the room of that name.

mod bulk_action;
mod args;
mod export_import;
mod discard;
mod edit;
mod list;
mod replay;
mod show;
mod render;

use std::path::Path;

use clap::{Args, Subcommand};

use self::args::CommonArgs;
use super::{CliError, ExitStatus, config, with_broker};
use crate::broker::{BrokerError, DeliveryLimitCheck, ReviewError};
use crate::config::AmqpSection;
use crate::dead_letters::{Export, Import, LetterEdits, Operator, ReviewSession};

#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    verb: DeadLettersCommand,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List dead letters, grouped by reason and detail, or each on a line
    List(list::ListArgs),
    /// Show a dead letter: why it failed, what it requests, its headers and history
    Show(show::ShowArgs),
    /// Send dead letters again as new requests, unchanged or edited
    Replay(replay::ReplayArgs),
    /// Discard dead letters; each is recorded before it is removed
    Discard(discard::DiscardArgs),
    /// Copy dead letters to a file of JSON lines; the queue keeps them
    Export(export_import::ExportArgs),
    /// Import dead letters from a file, skipping those already in the queue
    Import(export_import::ImportArgs),
}

/// A command whose own files are open: what is wrong with those is told before the broker is asked.
enum PreparedCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Replay(replay::ReplayArgs, LetterEdits),
    Discard(discard::DiscardArgs),
    Export(export_import::ExportArgs, Option<Export>),
    Import(export_import::ImportArgs, Import),
}

impl DeadLettersCommand {
    fn ready(self, who: &Operator) -> Result<PreparedCommand, CliError> {
        Ok(match self {
            Self::List(args) => PreparedCommand::List(args),
            Self::Show(args) => PreparedCommand::Show(args),
            Self::Replay(mut args) => {
                let amendments = replay::open(&mut args)?;
                PreparedCommand::Replay(args, amendments)
            }
            Self::Discard(args) => {
                discard::open(&args, who)?;
                PreparedCommand::Discard(args)
            }
            Self::Export(args) => {
                let export = export_import::open_export(&args)?;
                PreparedCommand::Export(args, export)
            }
            Self::Import(args) => {
                let import = export_import::open_import(&args)?;
                PreparedCommand::Import(args, import)
            }
        })
    }
}

/// Runs `dead-letters …`.
pub async fn run(args: DeadLettersArgs, config_file: Option<&Path>) -> ExitStatus {
    let DeadLettersArgs { verb, common } = args;
    // Where letters go to standard output, nothing else may.
    let as_json = common.json
        && !matches!(&verb, DeadLettersCommand::Export(args) if args.goes_to_standard_output());
    match try_run(verb, &common, config_file).await {
        Ok(exit) => exit,
        Err(refusal) => refusal.print(as_json),
    }
}

async fn try_run(
    verb: DeadLettersCommand,
    common: &CommonArgs,
    config_file: Option<&Path>,
) -> Result<ExitStatus, CliError> {
    let amqp = config::settings(config_file)?.amqp;
    let who = Operator::from_environment(common.by.clone());
    let ready = verb.ready(&who)?;
    let trust = if common.trust_queue {
        DeliveryLimitCheck::Given
    } else {
        DeliveryLimitCheck::Checked
    };
    let desk = ReviewSession::open(&amqp, &who, trust).await;
    let desk = desk.map_err(|trouble| no_review(&trouble, &amqp))?;
    let outcome = match ready {
        PreparedCommand::List(args) => list::run(&args, common, &desk).await,
        PreparedCommand::Show(args) => show::run(&args, common, &desk).await,
        PreparedCommand::Replay(args, amendments) => {
            replay::run(args, amendments, common, &desk).await
        }
        PreparedCommand::Discard(args) => discard::run(args, common, who, &desk).await,
        PreparedCommand::Export(args, export) => {
            export_import::export(args, export, common, &desk).await
        }
        PreparedCommand::Import(args, import) => {
            export_import::import(&args, import, common, &desk).await
        }
    };
    desk.close().await;
    outcome
}

/// Why there is no review, and where to look.
fn no_review(trouble: &ReviewError, amqp: &AmqpSection) -> CliError {
    let ReviewError::Broker(trouble) = trouble else {
        return CliError::new(ExitStatus::Failed, trouble.to_string());
    };
    let message = match trouble {
        BrokerError::Topology(_) => format!(
            "{trouble}; amqp.prefix is {}; `rename-worker topology declare` makes what is missing",
            amqp.prefix
        ),
        BrokerError::Reviewed => format!(
            "{trouble}; who it is tells the name of their connection at the broker: \
             rename-worker review by …"
        ),
        _ => with_broker(trouble, amqp),
    };
    CliError::new(ExitStatus::of(trouble), message)
}
