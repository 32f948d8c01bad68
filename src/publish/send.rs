//! Sends what was checked: in the order of the lines, many at a time, until each is confirmed or
//! the first is not.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::input::RequestInput;
use super::prepare::{PreparedRequest, RequestDefaults, prepare};
use crate::broker::{PublishResult, PublishWait, RequestMessage, RequestPublisher};
use crate::clock;

/// Requests on their way at once: enough to hide the time that a confirm takes.
const WINDOW: usize = 256;

/// After an interrupt, how long confirms are still waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often it is asked whether the broker confirms nothing.
const WATCH: Duration = Duration::from_millis(500);

/// Which lines are sent, and how they are filled in.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    pub defaults: RequestDefaults,
    /// Lines before it are passed over.
    pub from_line: u64,
    /// Lines that are not valid are passed over.
    pub skip_invalid: bool,
}

/// A line's number, and the request in it or all that is wrong with it.
pub type CheckedRequest = (u64, Result<PreparedRequest, Box<str>>);

/// What came of sending.
#[derive(Debug)]
pub struct PublishSummary {
    pub confirmed: u64,
    /// Sent and not confirmed when it stopped: the broker may have them or not.
    pub unconfirmed: u64,
    pub stop: Option<PublishStop>,
}

/// Not everything was sent.
#[derive(Debug)]
pub struct PublishStop {
    pub why: StopReason,
    /// The first line that was not confirmed; it and later ones may have been published.
    pub at: u64,
}

#[derive(Debug)]
pub enum StopReason {
    /// No queue took it.
    Returned,
    /// The broker would not take it.
    Refused,
    /// The connection ended; the publisher knows why.
    Lost,
    /// Somebody asked for the end, perhaps while nothing was confirmed.
    Interrupted(Option<PublishWait>),
    /// A line that was valid no longer is: the file was written to.
    Changed,
    Unreadable(io::Error),
}

/// How far sending is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendEvent {
    /// So many are confirmed.
    Confirmed(u64),
    /// Nothing is confirmed for now, for this reason.
    Waiting(PublishWait),
}

/// Every line that the rules want, looked at.
pub fn check(
    input: &mut RequestInput,
    rules: &PublishOptions,
) -> io::Result<impl Iterator<Item = io::Result<CheckedRequest>>> {
    let wanted = input.lines()?.filter(|line| {
        let number = line.as_ref().map(|line| line.number);
        number.map_or(true, |number| number >= rules.from_line)
    });
    let checked = |line: super::InputLine| {
        let request = prepare(&line.text, &rules.defaults, clock::now());
        (line.number, request)
    };
    Ok(wanted.map(move |line| line.map(checked)))
}

/// Sends what the rules want and the check found valid. `progress` hears how far it is, and
/// when `interrupt` comes nothing more is begun.
pub async fn send(
    publisher: &RequestPublisher,
    input: &mut RequestInput,
    rules: &PublishOptions,
    progress: impl Fn(SendEvent),
    interrupt: impl Future<Output = ()>,
) -> PublishSummary {
    let mut sending = PublishRun::new(rules);
    let mut lines = match check(input, rules) {
        Ok(lines) => lines,
        Err(error) => {
            sending.stop(StopReason::Unreadable(error));
            return sending.end();
        }
    };
    let mut under_way = FuturesUnordered::new();
    let mut interrupt = std::pin::pin!(interrupt);
    let mut watch = tokio::time::interval(WATCH);
    loop {
        while sending.goes_on() && under_way.len() < WINDOW {
            if let Some((line, prepared)) = sending.next(lines.next()) {
                let fate = publisher.hand_over(message(prepared)).await;
                under_way.push(async move { (line, fate.await) });
            }
        }
        tokio::select! {
            told = under_way.next() => match told {
                None => return sending.end(),
                Some((line, publication)) => {
                    sending.on_result(line, &publication);
                    progress(SendEvent::Confirmed(sending.confirmed));
                }
            },
            () = &mut interrupt => break,
            _ = watch.tick() => {
                if let Some(waiting) = publisher.waiting() {
                    progress(SendEvent::Waiting(waiting));
                }
            }
        }
    }
    let waiting = publisher.waiting();
    sending.stop(StopReason::Interrupted(waiting));
    if waiting.is_some() {
        // Nothing will come, and who asked for the end does not want to wait for it.
        return sending.end();
    }
    let rest = async {
        while let Some((line, publication)) = under_way.next().await {
            sending.on_result(line, &publication);
        }
    };
    // What is not confirmed by then is told by its line.
    let _ = tokio::time::timeout(LAST_WAIT, rest).await;
    sending.end()
}

/// How far sending has come.
struct PublishRun {
    skip_invalid: bool,
    /// The line after the last that was read.
    next_line: u64,
    /// Everything has been read.
    read: bool,
    /// Lines that were sent and are not confirmed, failed ones as well.
    unconfirmed: BTreeSet<u64>,
    confirmed: u64,
    why: Option<StopReason>,
}

impl PublishRun {
    fn new(rules: &PublishOptions) -> Self {
        Self {
            skip_invalid: rules.skip_invalid,
            next_line: rules.from_line,
            read: false,
            unconfirmed: BTreeSet::new(),
            confirmed: 0,
            why: None,
        }
    }

    /// Whether there is more to read, and no reason not to.
    fn goes_on(&self) -> bool {
        !self.read && self.why.is_none()
    }

    /// Takes what was read next; a request in it is to be sent.
    fn next(&mut self, line: Option<io::Result<CheckedRequest>>) -> Option<(u64, PreparedRequest)> {
        match line {
            None => self.read = true,
            Some(Err(error)) => self.stop(StopReason::Unreadable(error)),
            Some(Ok((line, Err(_)))) if self.skip_invalid => self.next_line = line + 1,
            Some(Ok((line, Err(_)))) => {
                self.next_line = line;
                self.stop(StopReason::Changed);
            }
            Some(Ok((line, Ok(prepared)))) => {
                self.next_line = line + 1;
                self.unconfirmed.insert(line);
                return Some((line, prepared));
            }
        }
        None
    }

    fn on_result(&mut self, line: u64, publication: &PublishResult) {
        match publication {
            PublishResult::Confirmed(_) => {
                self.confirmed += 1;
                self.unconfirmed.remove(&line);
            }
            PublishResult::Returned => self.stop(StopReason::Returned),
            PublishResult::Refused => self.stop(StopReason::Refused),
            PublishResult::Lost => self.stop(StopReason::Lost),
        }
    }

    /// The first reason is kept.
    fn stop(&mut self, why: StopReason) {
        self.why.get_or_insert(why);
    }

    fn end(mut self) -> PublishSummary {
        // Asked to end when all was sent, and all was confirmed after all: nothing is left undone.
        if self.read
            && self.unconfirmed.is_empty()
            && matches!(self.why, Some(StopReason::Interrupted(_)))
        {
            self.why = None;
        }
        let at = self.unconfirmed.first().copied().unwrap_or(self.next_line);
        PublishSummary {
            confirmed: self.confirmed,
            unconfirmed: self.unconfirmed.len() as u64,
            stop: self.why.map(|why| PublishStop { why, at }),
        }
    }
}

fn message(prepared: PreparedRequest) -> RequestMessage {
    let PreparedRequest { request, body } = prepared;
    RequestMessage {
        exchange: None,
        routing_key: format!("rename.{}", request.account_id),
        body,
        content_type: Some("application/json".to_owned()),
        message_id: Some(request.request_id.to_string()),
        correlation_id: None,
        timestamp: u64::try_from(clock::now().as_second()).ok(),
        headers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(from_line: u64, skip_invalid: bool) -> PublishOptions {
        PublishOptions {
            defaults: RequestDefaults::default(),
            from_line,
            skip_invalid,
        }
    }

    /// Sending that has read this many of ten valid lines, and whatever else there is.
    fn sending(skip_invalid: bool, read: u64, last: Option<&str>) -> PublishRun {
        let line = r#"{"account_id":"T12345678","username":"a","new_username":"b"}"#;
        let lines: Vec<&str> = (0..read).map(|_| line).chain(last).collect();
        let rules = rules(1, skip_invalid);
        let mut sending = PublishRun::new(&rules);
        let mut input = RequestInput::Kept(lines.join("\n").into_bytes());
        for line in check(&mut input, &rules).unwrap() {
            sending.next(Some(line));
        }
        sending
    }

    #[test]
    fn lines_before_the_first_wanted_are_passed_over() {
        let mut input = RequestInput::Kept(b"1\n\n2\n3".to_vec());
        for (from, wanted) in [(1, vec![1, 3, 4]), (3, vec![3, 4]), (5, vec![])] {
            let rules = rules(from, false);
            let checked = check(&mut input, &rules).unwrap();
            let lines: Vec<u64> = checked.map(|line| line.unwrap().0).collect();
            assert_eq!(lines, wanted, "from line {from}");
        }
    }

    #[test]
    fn the_place_to_go_on_is_the_first_line_that_is_not_confirmed() {
        let mut sending = sending(false, 10, None);
        for line in [1, 2, 4, 5] {
            let confirmed = PublishResult::Refused;
            sending.on_result(line, &confirmed);
        }
        assert!(!sending.goes_on());
        let stop = sending.end().stop.unwrap();
        assert!(matches!(stop.why, StopReason::Refused));
        assert_eq!(stop.at, 1);
    }

    #[test]
    fn a_line_that_was_valid_stops_it_there_unless_it_is_to_be_skipped() {
        let mut changed = sending(false, 3, Some("{}"));
        changed.unconfirmed.clear();
        let stop = changed.end().stop.unwrap();
        assert!(matches!(stop.why, StopReason::Changed));
        assert_eq!(stop.at, 4);
        let skipped = sending(true, 3, Some("{}"));
        assert!(skipped.goes_on());
        assert_eq!(skipped.next_line, 5);
    }

    #[test]
    fn an_interrupt_leaves_nothing_undone_where_all_was_confirmed() {
        for (left, stops) in [(0, false), (1, true)] {
            let mut sending = sending(false, 3, None);
            sending.next(None);
            while sending.unconfirmed.len() > left {
                sending.unconfirmed.pop_first();
            }
            sending.stop(StopReason::Interrupted(None));
            let sent = sending.end();
            assert_eq!(
                (sent.stop.is_some(), sent.unconfirmed),
                (stops, left as u64)
            );
        }
    }

    #[test]
    fn the_first_reason_is_told() {
        let mut sending = sending(false, 3, None);
        sending.on_result(2, &PublishResult::Returned);
        sending.on_result(3, &PublishResult::Lost);
        assert!(matches!(
            sending.end().stop.unwrap().why,
            StopReason::Returned
        ));
    }
}
