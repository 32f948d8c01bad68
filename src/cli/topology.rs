//! `topology show|declare|check`: the exchanges and queues that are to be there.

use std::convert::Infallible;
use std::path::Path;

use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde::Serialize;

use super::{Exit, config, print, with_broker};
use crate::broker::topology::{Difference, Names, Object, Topology, TopologySettings};
use crate::broker::{
    ManagementTrouble, Trouble, advice, compare_topology, declare_topology, policy_differences,
    remedy,
};
use crate::config::Amqp;

#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(subcommand)]
    pub verb: Verb,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print what is to be there; asks no broker
    Show,
    /// Create what is missing
    Declare,
    /// Compare the broker with what is to be there; changes nothing. Bindings cannot be compared
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// `RabbitMQ`'s management API, such as <http://127.0.0.1:15672>: look for policies that change a
    /// promise as well. User and password are those of amqp.url, unless the URL has others; the user
    /// needs the tag `management`
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub management_url: Option<SecretString>,
}

/// Never refused here, since clap's refusal would quote it.
#[expect(clippy::unnecessary_wraps, reason = "clap asks for a result")]
fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

/// What `check` and `declare` found, for programs.
#[derive(Serialize)]
struct Report<'a> {
    differences: &'a [Difference],
    /// Of `check`: whether policies were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Policies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Policies {
    Checked,
    NotChecked,
}

/// Said where nobody asked RabbitMQ for its policies.
const NOT_CHECKED: &str = "policies were not checked: give --management-url";

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
            Ok(()) => report(&[], None, args.json, "everything is in place"),
            Err(trouble) => refuse(&trouble, amqp, args.json),
        },
        Verb::Check(check) => run_check(amqp, &chosen, &check, args.json).await,
    }
}

async fn run_check(amqp: &Amqp, chosen: &TopologySettings, args: &CheckArgs, json: bool) -> Exit {
    let mut differences = match compare_topology(amqp, chosen).await {
        Ok(differences) => differences,
        Err(trouble) => return refuse(&trouble, amqp, json),
    };
    let mut policies = Policies::NotChecked;
    if let Some(url) = &args.management_url {
        match policy_differences(amqp, chosen, url).await {
            Ok(found) => differences.extend(found),
            Err(trouble) => return refuse_policies(&trouble, &differences, json),
        }
        policies = Policies::Checked;
    }
    report(
        &differences,
        Some(policies),
        json,
        "everything is as it is to be (bindings cannot be compared)",
    )
}

fn refuse(trouble: &Trouble, amqp: &Amqp, json: bool) -> Exit {
    if let Trouble::Topology(differences) = trouble {
        return report(differences, None, json, "");
    }
    let error = with_broker(trouble, amqp);
    say!("{error}");
    if json {
        print(&to_json(&Report {
            differences: &[],
            policies: None,
            error: Some(error),
        }));
    }
    Exit::of(trouble)
}

/// What was found otherwise, and why nothing is known of policies.
fn refuse_policies(trouble: &ManagementTrouble, differences: &[Difference], json: bool) -> Exit {
    let error = format!("policies were not checked: {trouble}");
    say!("{error}");
    print(&if json {
        to_json(&Report {
            differences,
            policies: Some(Policies::NotChecked),
            error: Some(error),
        })
    } else {
        lines(differences)
    });
    match trouble {
        ManagementTrouble::Url => Exit::Usage,
        ManagementTrouble::Unreachable { .. } => Exit::Unreachable,
        ManagementTrouble::Broker(trouble) => Exit::of(trouble),
        _ => Exit::Failed,
    }
}

fn report(differences: &[Difference], policies: Option<Policies>, json: bool, fine: &str) -> Exit {
    let advice = advice(differences);
    if let Some(advice) = &advice {
        say!("{advice}");
    }
    let text = if json {
        to_json(&Report {
            differences,
            policies,
            error: advice,
        })
    } else {
        let mut text = lines(differences);
        if differences.is_empty() {
            text = format!("{fine}\n");
        }
        if policies == Some(Policies::NotChecked) {
            text.push_str(NOT_CHECKED);
            text.push('\n');
        }
        text
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

fn lines(differences: &[Difference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("{difference}\n"));
    lines.collect()
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
