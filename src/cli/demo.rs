//! `demo`: the whole story in a few seconds, on a throw-away RabbitMQ.

use std::cell::RefCell;
use std::io::IsTerminal as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Refusal, interrupted};
use crate::config::Settings;
use crate::demo::broker::{FindError, Finder, Release};
use crate::demo::{DemoError, Moment, Options, Stage};
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

pub async fn run(args: DemoArgs) -> Exit {
    let mut _log = None;
    if args.logs {
        match log::init(&Settings::default().log) {
            Ok(guard) => _log = Some(guard),
            Err(error) => {
                say!("{error}");
                return Exit::Usage;
            }
        }
    }
    match show(&args).await {
        Ok(exit) => exit,
        Err(error) => Refusal::new(exit_of(&error), error.to_string()).tell(args.json),
    }
}

async fn show(args: &DemoArgs) -> Result<Exit, DemoError> {
    let mut finder = Finder::from_env()?.with_url(args.amqp_url.clone());
    if let Some(release) = &args.rabbitmq {
        finder = finder.without_url().with_release(Release::parse(release)?);
    }
    say!("setting the stage: a RabbitMQ, a stand-in for Dintero, the worker");
    let mut interrupt = std::pin::pin!(interrupted());
    let mut stage = tokio::select! {
        stage = Stage::set(Options { finder }) => stage?,
        () = &mut interrupt => return Ok(Exit::Failed),
    };
    let progress = Progress::new(args.logs);
    let played = tokio::select! {
        played = stage.play(|moment| progress.show(moment)) => played.map(Some),
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
                Exit::Failed
            }
        }
        _ => Exit::Failed,
    };
    if args.keep && matches!(played, Ok(Some(_))) {
        say!("\n{}\nstanding until Ctrl-C", stage.places());
        interrupt.await;
    } else if stage.broker_is_ours() && exit == Exit::Done && !args.json {
        say!("all of it is gone now; `rename-worker demo --keep` leaves it up to look around");
    }
    let struck = stage.strike().await;
    played?;
    struck?;
    Ok(exit)
}

fn exit_of(error: &DemoError) -> Exit {
    match error {
        DemoError::Find(FindError::UnknownRelease(_) | FindError::BadUrl) => Exit::Usage,
        DemoError::Find(_) => Exit::Unreachable,
        DemoError::Broker(trouble) => Exit::of(trouble),
        DemoError::Sandbox(_) | DemoError::Worker(_) | DemoError::NotPublished => Exit::Failed,
    }
}

/// A bar on a terminal, else a line for each tenth.
struct Progress {
    bar: Option<ProgressBar>,
    lines: RefCell<Lines>,
}

#[derive(Default)]
struct Lines {
    of: usize,
    tenths: usize,
}

impl Progress {
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

    fn show(&self, moment: Moment) {
        match (&self.bar, moment) {
            (Some(bar), Moment::Begins(of)) => bar.set_length(of as u64),
            (Some(bar), Moment::Heard(outcomes)) => bar.set_position(outcomes as u64),
            (None, Moment::Begins(of)) => {
                say!("publishing {of} requests while the API has its troubles");
                self.lines.borrow_mut().of = of;
            }
            (None, Moment::Heard(outcomes)) => {
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

impl Lines {
    /// The tenth that was just completed, if one was.
    fn next(&mut self, outcomes: usize) -> Option<usize> {
        let tenths = outcomes * 10 / self.of.max(1);
        (tenths > self.tenths).then(|| {
            self.tenths = tenths;
            tenths
        })
    }
}
