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
use super::{Exit, config};
use crate::broker::{self, QueueTrust, ReviewTrouble, Trouble};
use crate::config::Amqp;
use crate::dead_letters::{Desk, Who};

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

/// Runs `dead-letters …`.
pub async fn run(args: DeadLettersArgs, config_file: Option<&Path>) -> Exit {
    let DeadLettersArgs { verb, common } = args;
    let amqp = match config::settings(config_file) {
        Ok(settings) => settings.amqp,
        Err(exit) => return exit,
    };
    let who = Who::from_environment(common.by.clone());
    let refused = match &verb {
        Verb::Replay(args) => args.mistake(),
        Verb::Discard(args) => args.mistake(&who),
        _ => None,
    };
    if let Some(mistake) = refused {
        eprintln!("{mistake}");
        return Exit::Usage;
    }
    let trust = if common.trust_queue {
        QueueTrust::Given
    } else {
        QueueTrust::Checked
    };
    let desk = match Desk::open(&amqp, &who, trust).await {
        Ok(desk) => desk,
        Err(trouble) => return tell(&trouble, &amqp),
    };
    let exit = match verb {
        Verb::List(args) => list::run(&args, &common, &desk).await,
        Verb::Show(args) => show::run(&args, &common, &desk).await,
        Verb::Replay(args) => replay::run(args, &common, &desk).await,
        Verb::Discard(args) => discard::run(args, &common, who, &desk).await,
        Verb::Export(args) => carry::export(args, &common, &desk).await,
        Verb::Import(args) => carry::import(&args, &common, &desk).await,
    };
    desk.close().await;
    exit
}

/// Why there is no review, and where to look.
fn tell(trouble: &ReviewTrouble, amqp: &Amqp) -> Exit {
    eprintln!("{trouble}");
    let ReviewTrouble::Broker(trouble) = trouble else {
        return Exit::Failed;
    };
    match trouble {
        Trouble::Topology(_) => eprintln!(
            "amqp.prefix is {}; `rename-worker topology declare` makes what is missing",
            amqp.prefix
        ),
        Trouble::Reviewed => eprintln!(
            "who it is tells the name of their connection at the broker: rename-worker review by …"
        ),
        _ => {
            if let Some(address) = broker::address(amqp) {
                eprintln!("the broker of amqp.url (RENAME_WORKER_AMQP__URL) is {address}");
            }
        }
    }
    Exit::of(trouble)
}
