//! The requests of a run, and the queue that counts what came of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, PublisherConfirm};
use serde_json::json;
use uuid::Uuid;

pub const ACCOUNT: &str = "T12345678";

/// Current names that begin so are sick: the sandbox answers 503 for them, always.
pub const SICK: &str = "sick-";

/// So many healthy requests stand before each sick one: 19 and 1, which makes 5 %.
const HEALTHY_TO_A_SICK_ONE: usize = 19;

/// Requests published and not yet confirmed.
const UNCONFIRMED: usize = 1_000;

/// How often a portion of a steady load is published: seldom enough for a timer, often enough that
/// a portion fits the slots.
const PORTION: Duration = Duration::from_millis(20);

/// Whose renames are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Users {
    pub count: usize,
    /// How often each was renamed: the names carry it.
    pub renamed: usize,
    pub with_sick: bool,
}

/// A user's name after so many renames: as long as many an address.
pub fn name(user: usize, renamed: usize) -> String {
    format!("user-{user:06}.{renamed:02}@example.com")
}

/// A queue of this connection's that takes the events of renames.
pub async fn bind_events(channel: &Channel, prefix: &str) -> Result<String> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await?;
    channel
        .queue_bind(
            queue.name().clone(),
            format!("{prefix}.events").into(),
            // Only these: a failed event would be a wrong run, which then never ends.
            "user.renamed".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(queue.name().to_string())
}

/// Publishes all requests and waits for their confirms.
pub async fn publish(channel: &Channel, prefix: &str, users: Users) -> Result<()> {
    let mut confirming = FuturesUnordered::new();
    for body in bodies(users).flatten() {
        if confirming.len() >= UNCONFIRMED {
            confirmed(confirming.next().await)?;
        }
        confirming.push(send(channel, prefix, &body).await?);
    }
    while let Some(confirmation) = confirming.next().await {
        confirmed(Some(confirmation))?;
    }
    Ok(())
}

/// The same, so many healthy ones a second.
pub async fn publish_steadily(
    channel: &Channel,
    prefix: &str,
    users: Users,
    rate: u32,
) -> Result<()> {
    let portion = (rate * u32::try_from(PORTION.as_millis())? / 1_000) as usize;
    let mut ticks = tokio::time::interval(PORTION);
    let mut confirming = FuturesUnordered::new();
    let mut bodies = bodies(users).peekable();
    while bodies.peek().is_some() {
        ticks.tick().await;
        for body in bodies.by_ref().take(portion).flatten() {
            confirming.push(send(channel, prefix, &body).await?);
        }
    }
    while let Some(confirmation) = confirming.next().await {
        confirmed(Some(confirmation))?;
    }
    Ok(())
}

async fn send(channel: &Channel, prefix: &str, body: &str) -> Result<PublisherConfirm> {
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2);
    let confirm = channel
        .basic_publish(
            format!("{prefix}.requests").into(),
            format!("rename.{ACCOUNT}").into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties,
        )
        .await?;
    Ok(confirm)
}

/// For each user the request, after that of a sick one where it is that one's turn.
fn bodies(users: Users) -> impl Iterator<Item = Vec<String>> {
    let Users {
        count,
        renamed,
        with_sick,
    } = users;
    (0..count).map(move |user| {
        let (old, new) = (name(user, renamed), name(user, renamed + 1));
        let healthy = body(&old, &new);
        if with_sick && user % HEALTHY_TO_A_SICK_ONE == 0 {
            vec![
                body(&format!("{SICK}{old}"), &format!("{SICK}{new}")),
                healthy,
            ]
        } else {
            vec![healthy]
        }
    })
}

fn body(username: &str, new_username: &str) -> String {
    let request = json!({
        "request_id": Uuid::now_v7(),
        "account_id": ACCOUNT,
        "username": username,
        "new_username": new_username,
        "requested_at": rename_worker::clock::now(),
        "requested_by": "bench",
    });
    request.to_string()
}

fn confirmed(confirmation: Option<lapin::Result<lapin::Confirmation>>) -> Result<()> {
    let confirmation = confirmation.context("nothing to confirm")??;
    ensure!(confirmation.is_ack(), "the broker refused a request");
    Ok(())
}
