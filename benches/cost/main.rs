//! What a message costs: rename-worker beside the least correct loop that does the same job.
//!
//! Both take the same requests from the same queue, call the same sandbox and publish to the same
//! exchange, in turns, each as a process of its own, so that the CPU time is that process's alone.
//! `cargo bench --bench cost`, or `make bench`. The broker is found as the demo finds it; set
//! `RENAME_WORKER_TEST_AMQP_URL` to use a given one. `COST_REQUESTS` and `COST_ROUNDS` change the
//! size.

mod bare_loop;
mod process;
mod stage;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use stage::{Run, Side, Stage};

/// Calls in flight, on both sides.
const CONCURRENCY: u16 = 64;
const REQUESTS: usize = 20_000;
/// Runs of each side.
const ROUNDS: usize = 4;
/// Starts whose median is told.
const STARTS: usize = 7;

/// What issue and README promise.
const MOST_RATIO: f64 = 1.5;
const MOST_READY: Duration = Duration::from_millis(150);
const MOST_RESIDENT_MB: f64 = 25.0;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some(bare_loop::ARGUMENT) => bare_loop::run().await.map(|()| true),
        Some("--bench") => bench().await,
        _ => {
            eprintln!("this takes minutes and a release build: run it with `cargo bench`");
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all promises are kept.
async fn bench() -> Result<bool> {
    let requests = number("COST_REQUESTS")?.unwrap_or(REQUESTS);
    let rounds = number("COST_ROUNDS")?.unwrap_or(ROUNDS).max(1);
    let mut stage = Stage::set(requests).await?;
    println!(
        "{requests} requests a run, concurrency {CONCURRENCY}, {}, {} CPUs",
        stage.broker(),
        std::thread::available_parallelism().map_or(0, usize::from),
    );

    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = stage.start_idle().await?;
        ready.push(start.ready.as_secs_f64() * 1e3);
        resident.push(start.resident_mb);
    }

    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Neither side always has the machine as the other left it.
        let turns = match round % 2 {
            0 => [Side::BareLoop, Side::Worker],
            _ => [Side::Worker, Side::BareLoop],
        };
        for side in turns {
            let run = stage.run(side).await?;
            eprintln!("round {} of {rounds}, {side}: {run}", round + 1);
            match side {
                Side::BareLoop => bare.push(run),
                Side::Worker => ours.push(run),
            }
        }
    }
    stage.strike().await?;
    Ok(report(&bare, &ours, median(ready), median(resident)))
}

fn report(bare: &[Run], ours: &[Run], ready_ms: f64, resident_mb: f64) -> bool {
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    println!(
        "\n{:32}{:>14}{:>16}",
        "median", "bare loop", "rename-worker"
    );
    let row = |name: &str, value: fn(&Run) -> f64| {
        let (bare, ours) = (of(bare, value), of(ours, value));
        println!("{name:32}{bare:>14.1}{ours:>16.1}");
        ours / bare
    };
    row("throughput, messages/s", |run| run.throughput);
    row("peak of resident memory, MB", |run| run.peak_mb);
    let ratio = row("CPU time a message, µs", |run| run.cpu_micros);
    println!();
    [
        kept("CPU time, times the bare loop's", ratio, MOST_RATIO),
        kept("ready after, ms", ready_ms, MOST_READY.as_secs_f64() * 1e3),
        kept("resident at rest, MB", resident_mb, MOST_RESIDENT_MB),
    ]
    .into_iter()
    .all(|kept| kept)
}

fn kept(what: impl Display, value: f64, most: f64) -> bool {
    let kept = value <= most;
    let verdict = if kept { "kept" } else { "BROKEN" };
    println!(
        "{what:32}{value:>14.2}{:>16}  {verdict}",
        format!("<= {most}")
    );
    kept
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn number(variable: &str) -> Result<Option<usize>> {
    std::env::var(variable)
        .ok()
        .map(|text| {
            text.parse()
                .with_context(|| format!("{variable} is no number"))
        })
        .transpose()
}
