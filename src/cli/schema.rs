//! `schema`: prints the JSON Schema of a message.

use clap::Args;

use super::{ExitStatus, print};
use crate::messages::schema::MessageSchema;

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The message
    #[arg(required_unless_present = "list", value_parser = names())]
    name: Option<String>,
    /// List the names
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

fn names() -> clap::builder::PossibleValuesParser {
    MessageSchema::ALL.map(MessageSchema::name).into()
}

pub fn run(args: &SchemaArgs) -> ExitStatus {
    match args.name.as_deref().and_then(MessageSchema::named) {
        Some(schema) => print(&schema.text()),
        None => print(&(MessageSchema::ALL.map(MessageSchema::name).join("\n") + "\n")),
    }
}
