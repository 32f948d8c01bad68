//! `demo`: the whole story in a few seconds, on a throw-away RabbitMQ.

use std::cell::RefCell;
use std::io::IsTerminal as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, ExitStatus, interrupted};
use crate::config::Settings;
use crate::demo::broker::{BrokerProvisioner, BrokerRelease, FindError};
use crate::demo::{DemoEnvironment, DemoError, DemoOptions, ProgressEvent};
use crate::telemetry::log;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Use this RabbitMQ instead of starting one; what the demo makes there it removes again
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
    /// The RabbitMQ release to start: 3.10, 4.0 or 4.3
    #[arg(long, value_name = "RELEASE", conflicts_with = "amqp_url")]
    rabbitmq: Option<String>,
    /// Leave everything up afterwards, to look around, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Show the worker's log as well
    #[arg(long)]
    logs: bool,
    /// Tell what came of it as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: DemoArgs) -> ExitStatus {
    let mut _log = None;
    if args.logs {
        match log::init(&Settings::default().log) {
            Ok(guard) => _log = Some(guard),
            Err(error) => {
                say!("{error}");
                return ExitStatus::Usage;
            }
        }
    }
    match show(&args).await {
        Ok(exit) => exit,
        Err(error) => CliError::new(exit_of(&error), error.to_string()).print(args.json),
    }
}

async fn show(args: &DemoArgs) -> Result<ExitStatus, DemoError> {
    let mut finder = BrokerProvisioner::from_env()?.with_url(args.amqp_url.clone());
    if let Some(release) = &args.rabbitmq {
        finder = finder
            .without_url()
            .with_release(BrokerRelease::parse(release)?);
    }
    say!("setting the stage: a RabbitMQ, a stand-in for Dintero, the worker");
    let mut interrupt = std::pin::pin!(interrupted());
    let mut stage = tokio::select! {
        stage = DemoEnvironment::start(DemoOptions { finder }) => stage?,
        () = &mut interrupt => return Ok(ExitStatus::Failed),
    };
    let progress = DemoProgress::new(args.logs);
    let played = tokio::select! {
        played = stage.run(|moment| progress.show(moment)) => played.map(Some),
        () = &mut interrupt => Ok(None),
    };
    progress.end();
    let exit = match &played {
        Ok(Some(report)) => {
            let text = if args.json {
                format!("{}\n", serde_json::json!(report))
            } else {
                format!("\n{report}\n")
            };
            let written = super::print(&text);
            if report.is_fine() {
                written
            } else {
                ExitStatus::Failed
            }
        }
        _ => ExitStatus::Failed,
    };
    if args.keep && matches!(played, Ok(Some(_))) {
        say!("\n{}\nstanding until Ctrl-C", stage.places());
        interrupt.await;
    } else if stage.broker_is_ours() && exit == ExitStatus::Done && !args.json {
        say!("all of it is gone now; `rename-worker demo --keep` leaves it up to look around");
    }
    let struck = stage.teardown().await;
    played?;
    struck?;
    Ok(exit)
}

fn exit_of(error: &DemoError) -> ExitStatus {
    match error {
        DemoError::Find(FindError::UnknownRelease(_) | FindError::BadUrl) => ExitStatus::Usage,
        DemoError::Find(_) => ExitStatus::Unreachable,
        DemoError::Broker(trouble) => ExitStatus::of(trouble),
        DemoError::Sandbox(_) | DemoError::Worker(_) | DemoError::NotPublished => {
            ExitStatus::Failed
        }
    }
}

/// A bar on a terminal, else a line for each tenth.
struct DemoProgress {
    bar: Option<ProgressBar>,
    lines: RefCell<DemoOutput>,
}

#[derive(Default)]
struct DemoOutput {
    of: usize,
    tenths: usize,
}

impl DemoProgress {
    /// Log lines would tear a bar.
    fn new(logs: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !logs).then(|| {
            let style =
                ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} outcomes");
            let bar = ProgressBar::new(0);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            lines: RefCell::default(),
        }
    }

    fn show(&self, moment: ProgressEvent) {
        match (&self.bar, moment) {
            (Some(bar), ProgressEvent::Begins(of)) => bar.set_length(of as u64),
            (Some(bar), ProgressEvent::Heard(outcomes)) => bar.set_position(outcomes as u64),
            (None, ProgressEvent::Begins(of)) => {
                say!("publishing {of} requests while the API has its troubles");
                self.lines.borrow_mut().of = of;
            }
            (None, ProgressEvent::Heard(outcomes)) => {
                if let Some(tenths) = self.lines.borrow_mut().next(outcomes) {
                    say!("{tenths}0 %: {outcomes} outcomes");
                }
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl DemoOutput {
    /// The tenth that was just completed, if one was.
    fn next(&mut self, outcomes: usize) -> Option<usize> {
        let tenths = outcomes * 10 / self.of.max(1);
        (tenths > self.tenths).then(|| {
            self.tenths = tenths;
            tenths
        })
    }
}
