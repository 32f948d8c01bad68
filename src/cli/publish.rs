//! `publish`: requests from flags, a file or standard input, checked before the first is sent.

mod summary;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use uuid::Uuid;

use self::summary::BatchSummary;
use super::stalled::StallWatch;
use super::{CliError, ExitStatus, config, interrupted, with_broker};
use crate::broker::RequestPublisher;
use crate::broker::topology::model::QueueNames;
use crate::config::AmqpSection;
use crate::publish::{PublishOptions, RequestDefaults, RequestInput, SendEvent, check, send};

const SINGLE_REQUEST_FLAGS: [&str; 5] = [
    "account",
    "username",
    "new_username",
    "user_id",
    "request_id",
];

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Requests, one JSON object a line; `-`, or nothing when it is no terminal, is standard input
    #[arg(value_name = "FILE", conflicts_with_all = SINGLE_REQUEST_FLAGS)]
    file: Option<PathBuf>,
    /// One request: whose user it is
    #[arg(long, value_name = "ACCOUNT", requires_all = ["username", "new_username"])]
    account: Option<String>,
    /// One request: the current username
    #[arg(long, value_name = "NAME", requires = "account")]
    username: Option<String>,
    /// One request: the username to be
    #[arg(long, value_name = "NAME", requires = "account")]
    new_username: Option<String>,
    /// One request: only the user with this id may be renamed
    #[arg(long, value_name = "UUID", requires = "account")]
    user_id: Option<String>,
    /// One request: its id, drawn when not given
    #[arg(long, value_name = "UUID", requires = "account")]
    request_id: Option<String>,
    /// Who asks, for requests that do not say
    #[arg(long, value_name = "TEXT")]
    requested_by: Option<String>,
    /// Past this time a request fails instead of being tried, for requests that do not say
    #[arg(long, value_name = "TIME")]
    not_after: Option<String>,
    /// Send what is valid and leave out the rest, rather than nothing at all
    #[arg(long)]
    skip_invalid: bool,
    /// Begin with this line, to go on where an earlier run stopped
    #[arg(long, value_name = "N", default_value_t = 1)]
    from_line: u64,
    /// Check everything and send nothing; needs no broker
    #[arg(long)]
    dry_run: bool,
    /// Tell what was done as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(mut args: PublishArgs, config_file: Option<&Path>) -> ExitStatus {
    if args.account.is_some() && args.request_id.is_none() {
        // Here rather than at each look at the request, so that it can be told.
        args.request_id = Some(Uuid::now_v7().to_string());
    }
    let mut input = match input(&args) {
        Ok(input) => input,
        Err(wrong) => return CliError::new(ExitStatus::Usage, wrong.to_string()).print(args.json),
    };
    let amqp = match settings(config_file, args.dry_run) {
        Ok(amqp) => amqp,
        Err(refusal) => return refusal.print(args.json),
    };
    let rules = PublishOptions {
        defaults: RequestDefaults {
            requested_by: args.requested_by,
            not_after: args.not_after,
        },
        from_line: args.from_line,
        skip_invalid: args.skip_invalid,
    };
    let mut summary = BatchSummary {
        dry_run: args.dry_run,
        request_id: args.request_id,
        ..BatchSummary::default()
    };
    let exit = match validate(&mut input, &rules, &mut summary) {
        Err(error) => summary.fail(format!("the requests cannot be read: {error}")),
        Ok(()) if summary.is_to_be_refused(rules.skip_invalid) => summary.refuse_all(),
        Ok(()) => match amqp {
            Some(amqp) if summary.valid > 0 => {
                publish(&amqp, &mut input, &rules, &mut summary).await
            }
            _ => ExitStatus::Done,
        },
    };
    let written = if args.json {
        super::print(&format!("{}\n", json!(summary)))
    } else if summary.error.is_none() {
        super::print(&format!("{summary}\n"))
    } else {
        // Told on standard error already.
        ExitStatus::Done
    };
    if exit == ExitStatus::Done {
        written
    } else {
        exit
    }
}

/// The broker's settings; none when they are not needed.
fn settings(config_file: Option<&Path>, dry_run: bool) -> Result<Option<AmqpSection>, CliError> {
    if dry_run {
        return Ok(None);
    }
    config::settings(config_file).map(|settings| Some(settings.amqp))
}

fn input(args: &PublishArgs) -> anyhow::Result<RequestInput> {
    if let Some(file) = &args.file {
        return Ok(RequestInput::open(file)?);
    }
    if args.account.is_none() {
        anyhow::ensure!(
            !std::io::stdin().is_terminal(),
            "name a file of requests, - for standard input, or --account, --username and --new-username"
        );
        return Ok(RequestInput::open(Path::new("-"))?);
    }
    let mut request = json!({
        "request_id": args.request_id,
        "account_id": args.account,
        "username": args.username,
        "new_username": args.new_username,
    });
    if let Some(user) = &args.user_id {
        request["user_id"] = json!(user);
    }
    Ok(RequestInput::Kept(request.to_string().into_bytes()))
}

/// Looks at every line, and tells at once what is wrong with which.
fn validate(
    input: &mut RequestInput,
    rules: &PublishOptions,
    summary: &mut BatchSummary,
) -> std::io::Result<()> {
    for checked in check(input, rules)? {
        match checked? {
            (_, Ok(_)) => summary.valid += 1,
            (line, Err(detail)) => summary.refuse(line, detail),
        }
    }
    Ok(())
}

async fn publish(
    amqp: &AmqpSection,
    input: &mut RequestInput,
    rules: &PublishOptions,
    summary: &mut BatchSummary,
) -> ExitStatus {
    let publisher = match RequestPublisher::connect(amqp).await {
        Ok(publisher) => publisher,
        Err(trouble) => {
            let trouble_told = with_broker(&trouble, amqp);
            summary.fail(format!("nothing was sent: {trouble_told}"));
            return ExitStatus::of(&trouble);
        }
    };
    let bar = progress_bar(summary.valid);
    let stalled = StallWatch::default();
    let progress = |step| match step {
        SendEvent::Confirmed(confirmed) => {
            stalled.goes_on();
            bar.set_position(confirmed);
        }
        SendEvent::Waiting(waiting) => stalled.show(&bar, waiting),
    };
    let sent = send(&publisher, input, rules, progress, interrupted()).await;
    let trouble = publisher.close().await;
    bar.finish_and_clear();
    summary.conclude(sent, trouble, &QueueNames::new(&amqp.prefix).requests)
}

/// On a terminal; elsewhere it draws nothing.
fn progress_bar(requests: u64) -> ProgressBar {
    let style = "{bar:40} {human_pos} of {human_len} requests, {eta} to go";
    let bar = ProgressBar::new(requests);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct PublishCommandLine {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn parsed(flags: &[&str]) -> Result<PublishArgs, clap::Error> {
        let flags = ["publish"].iter().chain(flags);
        PublishCommandLine::try_parse_from(flags).map(|command| command.args)
    }

    #[test]
    fn flags_make_one_request_as_a_line_would() {
        let flags = [
            "--account",
            "T12345678",
            "--username",
            "a\nb",
            "--new-username",
        ];
        let id = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
        let more = ["--request-id", id, "--user-id", id];
        let args = parsed(&[&flags[..], &["b"], &more].concat()).unwrap();
        let mut input = input(&args).unwrap();
        let rules = PublishOptions {
            defaults: RequestDefaults::default(),
            from_line: 1,
            skip_invalid: false,
        };
        let checked: Vec<_> = check(&mut input, &rules).unwrap().collect();
        let [Ok((1, Ok(prepared)))] = &*checked else {
            panic!("{checked:?}")
        };
        assert_eq!(prepared.request.username.reveal(), "a\nb");
        assert_eq!(prepared.request.user_id, Some(id.parse().unwrap()));
        assert_eq!(prepared.request.request_id, id.parse::<Uuid>().unwrap());
    }

    #[test]
    fn a_request_is_given_whole_or_by_a_file_and_not_both() {
        for flags in [
            &["--account", "T12345678"][..],
            &["--username", "a", "--new-username", "b"],
            &["--user-id", "x"],
            &[
                "file",
                "--account",
                "T12345678",
                "--username",
                "a",
                "--new-username",
                "b",
            ],
        ] {
            parsed(flags).unwrap_err();
        }
    }
}
