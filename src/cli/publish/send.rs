//! Sends what was checked: in the order of the lines, many at a time, until each is confirmed or
//! the first is not.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use jiff::Timestamp;

use super::input::Input;
use super::prepare::{Defaults, Prepared, prepare};
use crate::broker::{Publication, Request, RequestPublisher};

/// Requests on their way at once: enough to hide the time that a confirm takes.
const WINDOW: usize = 256;

/// After an interrupt, how long confirms are still waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What came of sending.
#[derive(Debug, Default)]
pub struct Sent {
    pub confirmed: u64,
    /// The first line that was not confirmed; it and lines after it may have been published.
    pub stopped_at: Option<u64>,
    pub stop: Option<Stop>,
}

/// Why not everything was sent.
#[derive(Debug)]
pub enum Stop {
    /// No queue took it.
    Returned,
    /// The broker would not take it.
    Refused,
    /// The connection ended; the publisher knows why.
    Lost,
    Interrupted,
    /// A line that was valid no longer is: the file was written to.
    Changed,
    Unreadable(io::Error),
}

/// Sends the valid lines from this number on. `skip` passes over those that are not valid.
pub async fn send(
    publisher: &RequestPublisher,
    input: &mut Input,
    from: u64,
    defaults: &Defaults,
    skip: bool,
    bar: &ProgressBar,
) -> Sent {
    let mut sent = Sent::default();
    let mut lines = match input.lines() {
        Ok(lines) => lines,
        Err(error) => {
            sent.stop(from, Stop::Unreadable(error));
            return sent;
        }
    };
    let mut last_read = from.saturating_sub(1);
    let mut under_way = FuturesUnordered::new();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        while sent.stop.is_none() && under_way.len() < WINDOW {
            let line = match lines.next() {
                None => break,
                Some(Ok(line)) if line.number < from => continue,
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    sent.stop(last_read + 1, Stop::Unreadable(error));
                    break;
                }
            };
            last_read = line.number;
            match prepare(&line.text, defaults, Timestamp::now()) {
                Ok(prepared) => under_way
                    .push(async move { (line.number, publisher.publish(message(prepared)).await) }),
                Err(_) if skip => {}
                Err(_) => sent.stop(line.number, Stop::Changed),
            }
        }
        tokio::select! {
            told = under_way.next() => match told {
                None => return sent,
                Some((line, publication)) => {
                    sent.told(line, &publication);
                    bar.inc(1);
                }
            },
            _ = &mut interrupt, if sent.stop.is_none() => {
                sent.stop(last_read + 1, Stop::Interrupted);
                let rest = async {
                    while let Some((line, publication)) = under_way.next().await {
                        sent.told(line, &publication);
                    }
                };
                if tokio::time::timeout(LAST_WAIT, rest).await.is_err() {
                    // Which of them are still out is not known any more: all may be.
                    let out = under_way.len() as u64;
                    sent.stopped_at = Some((last_read + 1).saturating_sub(out));
                }
                return sent;
            }
        }
    }
}

impl Sent {
    fn told(&mut self, line: u64, publication: &Publication) {
        match publication {
            Publication::Confirmed(_) => self.confirmed += 1,
            Publication::Returned => self.stop(line, Stop::Returned),
            Publication::Refused => self.stop(line, Stop::Refused),
            Publication::Lost => self.stop(line, Stop::Lost),
        }
    }

    /// The first reason is kept, and the first line.
    fn stop(&mut self, line: u64, stop: Stop) {
        self.stopped_at = Some(self.stopped_at.map_or(line, |first| first.min(line)));
        self.stop.get_or_insert(stop);
    }
}

fn message(prepared: Prepared) -> Request {
    let Prepared { request, body } = prepared;
    Request {
        exchange: None,
        routing_key: format!("rename.{}", request.account_id),
        body,
        content_type: Some("application/json".to_owned()),
        message_id: Some(request.request_id.to_string()),
        correlation_id: None,
        timestamp: u64::try_from(Timestamp::now().as_second()).ok(),
        headers: Vec::new(),
    }
}
