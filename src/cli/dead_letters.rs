//! `dead-letters …`: requests that failed, looked at, sent again, discarded, carried elsewhere.
//!
//! Each command is a thin face of the room of that name.

mod acting;
mod args;
mod carry;
mod discard;
mod edit;
mod list;
mod replay;
mod show;
mod text;

use std::path::Path;

use clap::{Args, Subcommand};

use self::args::Common;
use super::{Exit, Refusal, config, with_broker};
use crate::broker::{QueueTrust, ReviewTrouble, Trouble};
use crate::config::Amqp;
use crate::dead_letters::{Amendments, Desk, Export, Import, Who};

#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What is there, grouped by reason and detail, or each letter on a line
    List(list::ListArgs),
    /// All of a letter: what was wrong with it, what it asks for, its headers and history
    Show(show::ShowArgs),
    /// Send letters again as new requests, as they are or put right
    Replay(replay::ReplayArgs),
    /// Throw letters away, each recorded before it goes
    Discard(discard::DiscardArgs),
    /// Copy letters to a file of JSON lines; the queue keeps them
    Export(carry::ExportArgs),
    /// Put letters from a file into the queue, but for those that are there
    Import(carry::ImportArgs),
}

/// A command whose own files are open: what is wrong with those is told before the broker is asked.
enum Ready {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Replay(replay::ReplayArgs, Amendments),
    Discard(discard::DiscardArgs),
    Export(carry::ExportArgs, Option<Export>),
    Import(carry::ImportArgs, Import),
}

impl Verb {
    fn ready(self, who: &Who) -> Result<Ready, Refusal> {
        Ok(match self {
            Self::List(args) => Ready::List(args),
            Self::Show(args) => Ready::Show(args),
            Self::Replay(mut args) => {
                let amendments = replay::open(&mut args)?;
                Ready::Replay(args, amendments)
            }
            Self::Discard(args) => {
                discard::open(&args, who)?;
                Ready::Discard(args)
            }
            Self::Export(args) => {
                let export = carry::open_export(&args)?;
                Ready::Export(args, export)
            }
            Self::Import(args) => {
                let import = carry::open_import(&args)?;
                Ready::Import(args, import)
            }
        })
    }
}

/// Runs `dead-letters …`.
pub async fn run(args: DeadLettersArgs, config_file: Option<&Path>) -> Exit {
    let DeadLettersArgs { verb, common } = args;
    // Where letters go to standard output, nothing else may.
    let as_json =
        common.json && !matches!(&verb, Verb::Export(args) if args.goes_to_standard_output());
    match try_run(verb, &common, config_file).await {
        Ok(exit) => exit,
        Err(refusal) => refusal.tell(as_json),
    }
}

async fn try_run(verb: Verb, common: &Common, config_file: Option<&Path>) -> Result<Exit, Refusal> {
    let amqp = config::settings(config_file)?.amqp;
    let who = Who::from_environment(common.by.clone());
    let ready = verb.ready(&who)?;
    let trust = if common.trust_queue {
        QueueTrust::Given
    } else {
        QueueTrust::Checked
    };
    let desk = Desk::open(&amqp, &who, trust).await;
    let desk = desk.map_err(|trouble| no_review(&trouble, &amqp))?;
    let outcome = match ready {
        Ready::List(args) => list::run(&args, common, &desk).await,
        Ready::Show(args) => show::run(&args, common, &desk).await,
        Ready::Replay(args, amendments) => replay::run(args, amendments, common, &desk).await,
        Ready::Discard(args) => discard::run(args, common, who, &desk).await,
        Ready::Export(args, export) => carry::export(args, export, common, &desk).await,
        Ready::Import(args, import) => carry::import(&args, import, common, &desk).await,
    };
    desk.close().await;
    outcome
}

/// Why there is no review, and where to look.
fn no_review(trouble: &ReviewTrouble, amqp: &Amqp) -> Refusal {
    let ReviewTrouble::Broker(trouble) = trouble else {
        return Refusal::new(Exit::Failed, trouble.to_string());
    };
    let told = match trouble {
        Trouble::Topology(_) => format!(
            "{trouble}; amqp.prefix is {}; `rename-worker topology declare` makes what is missing",
            amqp.prefix
        ),
        Trouble::Reviewed => format!(
            "{trouble}; who it is tells the name of their connection at the broker: \
             rename-worker review by …"
        ),
        _ => with_broker(trouble, amqp),
    };
    Refusal::new(Exit::of(trouble), told)
}
