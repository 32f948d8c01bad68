//! `topology show|declare|check`: the exchanges and queues that are to be there.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Exit, config, print, with_broker};
use crate::broker::topology::{Difference, Names, Object, Topology, TopologySettings};
use crate::broker::{Trouble, compare_topology, declare_topology, remedy};
use crate::config::Amqp;

#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(subcommand)]
    pub verb: Verb,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Print what is to be there; asks no broker
    Show,
    /// Create what is missing
    Declare,
    /// Compare the broker with what is to be there; changes nothing. Bindings cannot be compared
    Check,
}

/// What `check` and `declare` found, for programs.
#[derive(Serialize)]
struct Report<'a> {
    differences: &'a [Difference],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs `topology …`.
pub async fn run(args: TopologyArgs, config_file: Option<&Path>) -> Exit {
    let settings = match config::settings(config_file) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.tell(args.json),
    };
    let (amqp, chosen) = (&settings.amqp, TopologySettings::from(&settings));
    match args.verb {
        Verb::Show => print(&show(&amqp.prefix, &chosen, args.json)),
        Verb::Declare => match declare_topology(amqp, &chosen).await {
            Ok(()) => report(&[], args.json, "everything is in place"),
            Err(trouble) => refuse(&trouble, amqp, args.json),
        },
        Verb::Check => match compare_topology(amqp, &chosen).await {
            Ok(differences) => report(
                &differences,
                args.json,
                "everything is as it is to be (bindings cannot be compared)",
            ),
            Err(trouble) => refuse(&trouble, amqp, args.json),
        },
    }
}

fn refuse(trouble: &Trouble, amqp: &Amqp, json: bool) -> Exit {
    if let Trouble::Topology(differences) = trouble {
        return report(differences, json, "");
    }
    let error = with_broker(trouble, amqp);
    say!("{error}");
    if json {
        print(&to_json(&Report {
            differences: &[],
            error: Some(error),
        }));
    }
    Exit::of(trouble)
}

fn report(differences: &[Difference], json: bool, fine: &str) -> Exit {
    let text = if json {
        to_json(&Report {
            differences,
            error: None,
        })
    } else if differences.is_empty() {
        format!("{fine}\n")
    } else {
        let lines = differences
            .iter()
            .map(|difference| format!("{difference}\n"));
        lines.collect()
    };
    let remedy = remedy(differences).trim_start_matches("; ");
    if !remedy.is_empty() {
        say!("{remedy}");
    }
    match print(&text) {
        Exit::Done if !differences.is_empty() => Exit::Failed,
        printed => printed,
    }
}

fn show(prefix: &str, settings: &TopologySettings, json: bool) -> String {
    let topology = Topology::new(&Names::new(prefix), settings);
    if json {
        return to_json(&topology);
    }
    topology.objects.iter().map(paragraph).collect()
}

fn paragraph(object: &Object) -> String {
    match object {
        Object::Exchange { kind, .. } => format!("{object} ({kind}, durable)\n"),
        Object::Queue { arguments, .. } => {
            let lines = arguments
                .iter()
                .map(|argument| format!("  {} = {}\n", argument.name, argument.value));
            format!("{object} (durable)\n{}", lines.collect::<String>())
        }
        Object::Binding { .. } => format!("{object}\n"),
    }
}

fn to_json(value: &impl Serialize) -> String {
    let mut json = serde_json::to_string_pretty(value).expect("plain data is JSON");
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_prints_every_object_with_its_arguments() {
        let delays = [5, 3_600].map(std::time::Duration::from_secs);
        let settings = TopologySettings::with_delays(&delays);
        insta::assert_snapshot!(show("rename", &settings, false));
    }
}
