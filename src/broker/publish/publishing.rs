//! A connection that messages are published by, and nothing else is done on.
//!
//! A broker in an alarm stops reading from connections that publish: behind a message that it does
//! not take, nothing else of that connection is heard either, no ack and no question. So a review
//! looks on one connection and publishes on another. Why nothing is confirmed can be asked at any
//! time, and leaving takes no longer than what is waited for is likely to come.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Event;

use super::confirm::PublishResult;
use super::confirmed_publisher::{CONFIRMS_LATE, ConfirmedPublisher};
use super::message::{OutboundMessage, PublishRouting};
use crate::broker::error::BrokerError;
use crate::broker::transport::connection;
use crate::broker::transport::connection::AmqpConnection;
use crate::config::AmqpSection;

/// How long confirms may still come when the connection is closed. They take milliseconds.
const LAST_CONFIRMS: Duration = Duration::from_secs(1);

/// Why a message that was published is not confirmed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishWait {
    /// The broker has raised this alarm and takes no messages.
    Alarm(BrokerAlarm),
    /// It says nothing, and confirms nothing either.
    Confirms,
}

/// What the broker has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerAlarm {
    Memory,
    Disk,
    Unknown,
}

impl fmt::Display for PublishWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alarm = match self {
            Self::Alarm(BrokerAlarm::Memory) => "a memory alarm",
            Self::Alarm(BrokerAlarm::Disk) => "a disk alarm",
            Self::Alarm(BrokerAlarm::Unknown) => "an alarm (memory or disk)",
            Self::Confirms => {
                let seconds = CONFIRMS_LATE.as_secs();
                return write!(f, "the broker has confirmed no message for {seconds} s");
            }
        };
        write!(f, "the broker has raised {alarm} and accepts no messages")
    }
}

impl BrokerAlarm {
    /// From the broker's own words, which are made for people.
    fn of(reason: &str) -> Self {
        match (reason.contains("memory"), reason.contains("disk")) {
            (true, false) => Self::Memory,
            (false, true) => Self::Disk,
            _ => Self::Unknown,
        }
    }
}

#[derive(Debug)]
pub(in crate::broker) struct PublishingConnection {
    pipe: ConfirmedPublisher,
    wire: Mutex<AlarmError>,
}

/// The connection, and the last alarm that the broker gave as its reason.
#[derive(Debug)]
struct AlarmError {
    wire: AmqpConnection,
    alarm: BrokerAlarm,
}

impl PublishingConnection {
    /// Connects. `name` is shown in the broker's list of connections.
    pub(in crate::broker) async fn open(
        amqp: &AmqpSection,
        name: &str,
        addresses: PublishRouting,
    ) -> Result<Self, BrokerError> {
        let wire = connection::open(amqp, name).await?;
        let pipe = ConfirmedPublisher::open(&wire.connection, addresses).await?;
        let alarm = BrokerAlarm::Unknown;
        Ok(Self {
            pipe,
            wire: Mutex::new(AlarmError { wire, alarm }),
        })
    }

    /// Hands one message over, behind all that were handed over before; waits only while the pipe
    /// is full. What it returns waits for the message's fate.
    pub(in crate::broker) async fn hand_over(
        &self,
        outgoing: OutboundMessage,
    ) -> impl Future<Output = PublishResult> + use<> {
        self.pipe.publish(outgoing).await
    }

    /// Why nothing is confirmed, where that is to be told.
    pub(in crate::broker) fn waiting(&self) -> Option<PublishWait> {
        let mut alarmed = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alarm) = alarmed.alarm() {
            return Some(PublishWait::Alarm(alarm));
        }
        self.pipe.is_late().then_some(PublishWait::Confirms)
    }

    /// Leaves, and says what ended the connection before, if anything did. Does not wait for a
    /// broker that takes nothing.
    pub(in crate::broker) async fn close(self) -> Option<BrokerError> {
        let patience = match self.waiting() {
            Some(_) => Duration::ZERO,
            None => LAST_CONFIRMS,
        };
        let trouble = self.pipe.close(patience).await;
        let alarmed = self.wire.into_inner();
        let AlarmError { wire, .. } = alarmed.unwrap_or_else(PoisonError::into_inner);
        if patience.is_zero() {
            wire.cut();
        } else {
            wire.close().await;
        }
        trouble
    }
}

impl AlarmError {
    fn alarm(&mut self) -> Option<BrokerAlarm> {
        while let Some(Some(event)) = self.wire.events.next().now_or_never() {
            if let Event::ConnectionBlocked(reason) = event {
                self.alarm = BrokerAlarm::of(&reason);
            }
        }
        let blocked = self.wire.connection.status().blocked();
        blocked.then_some(self.alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_told() {
        for (reason, told) in [
            ("low on memory", "a memory alarm"),
            ("low on disk", "a disk alarm"),
            ("low on memory & disk", "an alarm (memory or disk)"),
            ("", "an alarm (memory or disk)"),
        ] {
            let waiting = PublishWait::Alarm(BrokerAlarm::of(reason)).to_string();
            let wanted = format!("the broker has raised {told} and accepts no messages");
            assert_eq!(waiting, wanted);
        }
        let confirms = PublishWait::Confirms.to_string();
        assert_eq!(confirms, "the broker has confirmed no message for 10 s");
    }
}
