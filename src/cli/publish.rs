//! `publish`: requests from flags, a file or standard input, checked before the first is sent.

mod input;
mod prepare;
mod send;
mod summary;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use self::input::Input;
use self::prepare::{Defaults, prepare};
use self::send::send;
use self::summary::Summary;
use super::Exit;
use crate::broker::RequestPublisher;
use crate::broker::topology::Names;
use crate::config::{self, Amqp, Settings};

const ONE: [&str; 5] = [
    "account",
    "username",
    "new_username",
    "user_id",
    "request_id",
];

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Requests, one JSON object a line; `-`, or nothing when it is no terminal, is standard input
    #[arg(value_name = "FILE", conflicts_with_all = ONE)]
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

pub async fn run(mut args: PublishArgs, config: Option<&Path>) -> Exit {
    if args.account.is_some() && args.request_id.is_none() {
        // Here rather than at each look at the request, so that it can be told.
        args.request_id = Some(Uuid::now_v7().to_string());
    }
    let mut input = match input(&args) {
        Ok(input) => input,
        Err(wrong) => {
            eprintln!("{wrong}");
            return Exit::Usage;
        }
    };
    let defaults = Defaults {
        requested_by: args.requested_by,
        not_after: args.not_after,
    };
    let mut summary = Summary {
        dry_run: args.dry_run,
        request_id: args.request_id,
        ..Summary::default()
    };
    let amqp = match settings(config, args.dry_run) {
        Ok(amqp) => amqp,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let checked = check(&mut input, args.from_line, &defaults, &mut summary);
    let exit = match (checked, amqp) {
        (Err(exit), _) => exit,
        (Ok(()), _) if summary.invalid > 0 && !args.skip_invalid => {
            let Summary { valid, invalid, .. } = summary;
            let all = valid + invalid;
            summary.fail(format!(
                "nothing was sent: {invalid} of {all} requests are not valid; --skip-invalid sends the rest"
            ))
        }
        (Ok(()), None) => Exit::Done,
        (Ok(()), Some(_)) if summary.valid == 0 => Exit::Done,
        (Ok(()), Some(amqp)) => {
            let skip = args.skip_invalid;
            publish(
                &amqp,
                &mut input,
                args.from_line,
                &defaults,
                skip,
                &mut summary,
            )
            .await
        }
    };
    let written = if args.json {
        super::print(&format!("{}\n", json!(summary)))
    } else if summary.error.is_none() {
        super::print(&format!("{summary}\n"))
    } else {
        // Told on standard error already.
        Exit::Done
    };
    if exit == Exit::Done { written } else { exit }
}

/// The broker's settings; none when they are not needed.
fn settings(config: Option<&Path>, dry_run: bool) -> Result<Option<Amqp>, config::Mistakes> {
    if dry_run {
        return Ok(None);
    }
    Settings::load(config, config::environment()).map(|settings| Some(settings.amqp))
}

fn input(args: &PublishArgs) -> anyhow::Result<Input> {
    if let Some(file) = &args.file {
        return Ok(Input::open(file)?);
    }
    if args.account.is_none() {
        anyhow::ensure!(
            !std::io::stdin().is_terminal(),
            "name a file of requests, - for standard input, or --account, --username and --new-username"
        );
        return Ok(Input::open(Path::new("-"))?);
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
    Ok(Input::Kept(request.to_string().into_bytes()))
}

/// Looks at every line, and tells at once what is wrong with which.
fn check(
    input: &mut Input,
    from: u64,
    defaults: &Defaults,
    summary: &mut Summary,
) -> Result<(), Exit> {
    let unreadable = |error: std::io::Error, summary: &mut Summary| {
        summary.fail(format!("the requests cannot be read: {error}"))
    };
    let lines = match input.lines() {
        Ok(lines) => lines,
        Err(error) => return Err(unreadable(error, summary)),
    };
    for line in lines {
        let line = line.map_err(|error| unreadable(error, summary))?;
        if line.number < from {
            continue;
        }
        match prepare(&line.text, defaults, Timestamp::now()) {
            Ok(_) => summary.valid += 1,
            Err(detail) => summary.refuse(line.number, detail),
        }
    }
    Ok(())
}

async fn publish(
    amqp: &Amqp,
    input: &mut Input,
    from: u64,
    defaults: &Defaults,
    skip: bool,
    summary: &mut Summary,
) -> Exit {
    let publisher = match RequestPublisher::connect(amqp).await {
        Ok(publisher) => publisher,
        Err(trouble) => {
            let exit = Exit::of(&trouble);
            summary.fail(format!("nothing was sent: {trouble}"));
            return exit;
        }
    };
    let bar = progress_bar(summary.valid);
    let sent = send(&publisher, input, from, defaults, skip, &bar).await;
    let trouble = publisher.close().await;
    bar.finish_and_clear();
    summary.published = sent.confirmed;
    summary.conclude(sent, trouble, &Names::new(&amqp.prefix).requests)
}

/// On a terminal; elsewhere it draws nothing.
fn progress_bar(requests: u64) -> ProgressBar {
    let style = "{bar:40} {human_pos} of {human_len} requests, {per_sec}, {eta} to go";
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
    struct Command {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn parsed(flags: &[&str]) -> Result<PublishArgs, clap::Error> {
        let flags = ["publish"].iter().chain(flags);
        Command::try_parse_from(flags).map(|command| command.args)
    }

    #[test]
    fn every_invalid_line_is_counted_and_told_by_its_number() {
        let lines =
            "\n{}\n{\"account_id\":\"T12345678\",\"username\":\"a\",\"new_username\":\"b\"}\n7\n";
        for (from, valid, invalid) in [(1, 1, vec![2, 4]), (3, 1, vec![4]), (4, 0, vec![4])] {
            let mut input = Input::Kept(lines.into());
            let mut summary = Summary::default();
            check(&mut input, from, &Defaults::default(), &mut summary).unwrap();
            let told: Vec<u64> = summary
                .mistakes
                .iter()
                .map(|mistake| mistake.line)
                .collect();
            assert_eq!((summary.valid, told), (valid, invalid), "from line {from}");
        }
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
        let [line] = &*input.lines().unwrap().collect::<Vec<_>>() else {
            panic!("one line")
        };
        let line = line.as_ref().unwrap();
        let prepared = prepare(&line.text, &Defaults::default(), Timestamp::now()).unwrap();
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
