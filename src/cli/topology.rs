//! `topology show|declare|check`: the exchanges and queues that are to be there.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Exit;
use crate::broker::topology::{Difference, Names, Object, Topology};
use crate::broker::{Trouble, compare_topology, declare_topology};
use crate::config::{Settings, environment};

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
pub async fn run(args: TopologyArgs, config: Option<&Path>) -> Exit {
    let settings = match Settings::load(config, environment()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let (amqp, ladder) = (&settings.amqp, settings.retry.ladder.steps());
    match args.verb {
        Verb::Show => {
            print!("{}", show(&amqp.prefix, ladder, args.json));
            Exit::Done
        }
        Verb::Declare => match declare_topology(amqp, ladder).await {
            Ok(()) => report(&[], args.json, "everything is in place"),
            Err(trouble) => refuse(&trouble, args.json),
        },
        Verb::Check => match compare_topology(amqp, ladder).await {
            Ok(differences) => report(
                &differences,
                args.json,
                "everything is as it is to be (bindings cannot be compared)",
            ),
            Err(trouble) => refuse(&trouble, args.json),
        },
    }
}

fn refuse(trouble: &Trouble, json: bool) -> Exit {
    let exit = match trouble {
        Trouble::Topology(differences) => return report(differences, json, ""),
        other => Exit::of(other),
    };
    if json {
        print_json(&Report {
            differences: &[],
            error: Some(trouble.to_string()),
        });
    }
    eprintln!("{trouble}");
    exit
}

fn report(differences: &[Difference], json: bool, fine: &str) -> Exit {
    if json {
        print_json(&Report {
            differences,
            error: None,
        });
    } else if differences.is_empty() {
        println!("{fine}");
    }
    if differences.is_empty() {
        return Exit::Done;
    }
    if !json {
        for difference in differences {
            println!("{difference}");
        }
    }
    Exit::Failed
}

fn show(prefix: &str, ladder: &[Duration], json: bool) -> String {
    let topology = Topology::new(&Names::new(prefix), ladder);
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

fn print_json(value: &impl Serialize) {
    print!("{}", to_json(value));
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
        let ladder = [Duration::from_secs(5), Duration::from_secs(3600)];
        insta::assert_snapshot!(show("rename", &ladder, false));
    }
}
