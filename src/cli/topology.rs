//! `topology show|declare|check`: the exchanges and queues of this installation.

use std::convert::Infallible;
use std::path::Path;

use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde::Serialize;

use super::{ExitStatus, config, print, with_broker};
use crate::broker::topology::model::{
    QueueNames, Topology, TopologyDifference, TopologyObject, TopologySettings,
};
use crate::broker::{
    BrokerError, ManagementTrouble, advice, compare_topology, declare_topology, policy_differences,
    remedy,
};
use crate::config::AmqpSection;

#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(subcommand)]
    pub verb: TopologyCommand,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum TopologyCommand {
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
struct TopologyReport<'a> {
    differences: &'a [TopologyDifference],
    /// Of `check`: whether policies were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<PolicyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PolicyReport {
    Checked,
    NotChecked,
}

/// Said where nobody asked RabbitMQ for its policies.
const NOT_CHECKED: &str = "policies were not checked: give --management-url";

/// Runs `topology …`.
pub async fn run(args: TopologyArgs, config_file: Option<&Path>) -> ExitStatus {
    let settings = match config::settings(config_file) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.print(args.json),
    };
    let (amqp, chosen) = (&settings.amqp, TopologySettings::from(&settings));
    match args.verb {
        TopologyCommand::Show => print(&show(&amqp.prefix, &chosen, args.json)),
        TopologyCommand::Declare => match declare_topology(amqp, &chosen).await {
            Ok(()) => report(&[], None, args.json, "everything is in place"),
            Err(trouble) => refuse(&trouble, amqp, args.json),
        },
        TopologyCommand::Check(check) => run_check(amqp, &chosen, &check, args.json).await,
    }
}

async fn run_check(
    amqp: &AmqpSection,
    chosen: &TopologySettings,
    args: &CheckArgs,
    json: bool,
) -> ExitStatus {
    let mut differences = match compare_topology(amqp, chosen).await {
        Ok(differences) => differences,
        Err(trouble) => return refuse(&trouble, amqp, json),
    };
    let mut policies = PolicyReport::NotChecked;
    if let Some(url) = &args.management_url {
        match policy_differences(amqp, chosen, url).await {
            Ok(found) => differences.extend(found),
            Err(trouble) => return refuse_policies(&trouble, &differences, json),
        }
        policies = PolicyReport::Checked;
    }
    report(
        &differences,
        Some(policies),
        json,
        "everything is as it is to be (bindings cannot be compared)",
    )
}

fn refuse(trouble: &BrokerError, amqp: &AmqpSection, json: bool) -> ExitStatus {
    if let BrokerError::Topology(differences) = trouble {
        return report(differences, None, json, "");
    }
    let error = with_broker(trouble, amqp);
    say!("{error}");
    if json {
        print(&to_json(&TopologyReport {
            differences: &[],
            policies: None,
            error: Some(error),
        }));
    }
    ExitStatus::of(trouble)
}

/// What was found otherwise, and why nothing is known of policies.
fn refuse_policies(
    trouble: &ManagementTrouble,
    differences: &[TopologyDifference],
    json: bool,
) -> ExitStatus {
    let error = format!("policies were not checked: {trouble}");
    say!("{error}");
    print(&if json {
        to_json(&TopologyReport {
            differences,
            policies: Some(PolicyReport::NotChecked),
            error: Some(error),
        })
    } else {
        lines(differences)
    });
    match trouble {
        ManagementTrouble::Url => ExitStatus::Usage,
        ManagementTrouble::Unreachable { .. } => ExitStatus::Unreachable,
        ManagementTrouble::Broker(trouble) => ExitStatus::of(trouble),
        _ => ExitStatus::Failed,
    }
}

fn report(
    differences: &[TopologyDifference],
    policies: Option<PolicyReport>,
    json: bool,
    fine: &str,
) -> ExitStatus {
    let advice = advice(differences);
    if let Some(advice) = &advice {
        say!("{advice}");
    }
    let text = if json {
        to_json(&TopologyReport {
            differences,
            policies,
            error: advice,
        })
    } else {
        let mut text = lines(differences);
        if differences.is_empty() {
            text = format!("{fine}\n");
        }
        if policies == Some(PolicyReport::NotChecked) {
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
        ExitStatus::Done if !differences.is_empty() => ExitStatus::Failed,
        printed => printed,
    }
}

fn lines(differences: &[TopologyDifference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("{difference}\n"));
    lines.collect()
}

fn show(prefix: &str, settings: &TopologySettings, json: bool) -> String {
    let topology = Topology::new(&QueueNames::new(prefix), settings);
    if json {
        return to_json(&topology);
    }
    topology.objects.iter().map(paragraph).collect()
}

fn paragraph(object: &TopologyObject) -> String {
    match object {
        TopologyObject::Exchange { kind, .. } => format!("{object} ({kind}, durable)\n"),
        TopologyObject::Queue { arguments, .. } => {
            let lines = arguments
                .iter()
                .map(|argument| format!("  {} = {}\n", argument.name, argument.value));
            format!("{object} (durable)\n{}", lines.collect::<String>())
        }
        TopologyObject::Binding { .. } => format!("{object}\n"),
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
