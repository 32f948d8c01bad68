//! What a message costs, and what that buys: rename-worker beside the least correct loop that does
//! the same job, without its log, and with 5 % more requests that are in backoff all the time.
//!
//! All take the same requests from the same queue, call the same sandbox and publish to the same
//! exchange, in turns, each as a process of its own, so that the CPU time is that process's alone.
//! `cargo bench --bench cost`, or `make bench`. The broker is found as the demo finds it; set
//! `RENAME_WORKER_TEST_AMQP_URL` to use a given one. `COST_REQUESTS` and `COST_ROUNDS` change the
//! size.

mod api;
mod bare_loop;
mod load;
mod process;
mod report;
mod side;
mod stage;
mod telling;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use report::{Measured, median};
use side::Side;
use stage::Stage;

/// Calls in flight, on all sides.
const CONCURRENCY: u16 = 64;
const REQUESTS: usize = 20_000;
/// Runs of each side.
const ROUNDS: usize = 4;
/// Starts whose median is told.
const STARTS: usize = 7;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some(bare_loop::ARGUMENT) => bare_loop::run().await.map(|()| true),
        Some(telling::ARGUMENT) => {
            telling::run(&arguments.next().unwrap_or_default()).map(|()| true)
        }
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
    // Whatever comes of it, nothing is left at a broker that was given to us.
    let measured = measure(&mut stage, rounds).await;
    stage.strike().await?;
    Ok(measured?.report())
}

async fn measure(stage: &mut Stage, rounds: usize) -> Result<Measured> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = stage.start_idle().await?;
        ready.push(start.ready.as_secs_f64() * 1e3);
        resident.push(start.resident_mb);
    }
    let mut runs = Side::ALL.map(|side| (side, Vec::new()));
    for round in 0..rounds {
        // No side always has the machine as the same other left it.
        if round % 2 == 0 {
            runs.sort_by_key(|(side, _)| *side);
        } else {
            runs.sort_by_key(|(side, _)| std::cmp::Reverse(*side));
        }
        for (side, runs) in &mut runs {
            let run = stage.run(*side).await?;
            eprintln!("round {} of {rounds}, {side}: {run}", round + 1);
            runs.push(run);
        }
    }
    Ok(Measured {
        runs: runs.into(),
        ready_ms: median(ready),
        resident_mb: median(resident),
        metrics_micros: telling::cost("off").await?,
        telling_micros: telling::cost("info").await?,
    })
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
