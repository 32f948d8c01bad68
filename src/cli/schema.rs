//! `schema`: prints the JSON Schema of a message.

use clap::Args;

use super::{Exit, print};
use crate::wire::schema::Schema;

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
    Schema::ALL.map(Schema::name).into()
}

pub fn run(args: &SchemaArgs) -> Exit {
    match args.name.as_deref().and_then(Schema::named) {
        Some(schema) => print(&schema.text()),
        None => print(&(Schema::ALL.map(Schema::name).join("\n") + "\n")),
    }
}
