//! The least correct loop: consume, call, publish with a confirm, ack. It validates nothing, tries
//! nothing twice, counts nothing, and ends at the first surprise.

use std::env;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::CONCURRENCY;

/// Says that this process is to be the loop.
pub const ARGUMENT: &str = "--bare-loop";

const AMQP_URL: &str = "BARE_LOOP_AMQP_URL";
const PREFIX: &str = "BARE_LOOP_PREFIX";
const BASE_URL: &str = "BARE_LOOP_BASE_URL";
const TOKEN: &str = "BARE_LOOP_TOKEN";

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the message")]
struct Request {
    request_id: String,
    account_id: String,
    username: String,
    new_username: String,
}

#[derive(Serialize, Deserialize)]
struct User {
    username: String,
}

#[derive(Serialize)]
struct Renamed {
    request_id: String,
    account_id: String,
    previous_username: String,
    username: String,
}

struct Loop {
    http: reqwest::Client,
    channel: Channel,
    users: String,
    token: String,
    events: String,
}

/// The command that runs it as a process of its own.
pub fn command(amqp_url: &str, prefix: &str, base_url: &str, token: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(ARGUMENT)
        .env(AMQP_URL, amqp_url)
        .env(PREFIX, prefix)
        .env(BASE_URL, base_url)
        .env(TOKEN, token);
    Ok(command)
}

pub async fn run() -> Result<()> {
    let variable = |name| env::var(name).context(name);
    let prefix = variable(PREFIX)?;
    // reqwest asks for a TLS provider even where there is no TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let connection =
        Connection::connect(&variable(AMQP_URL)?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    channel
        .basic_qos(CONCURRENCY, BasicQosOptions::default())
        .await?;
    let mut deliveries = channel
        .basic_consume(
            format!("{prefix}.requests").into(),
            "bare-loop".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let this = Arc::new(Loop {
        http: reqwest::Client::new(),
        channel,
        users: format!("{}/accounts", variable(BASE_URL)?),
        token: variable(TOKEN)?,
        events: format!("{prefix}.events"),
    });
    while let Some(delivery) = deliveries.next().await {
        let (this, delivery) = (this.clone(), delivery?);
        tokio::spawn(async move {
            if let Err(error) = this.rename(delivery).await {
                eprintln!("{error:#}");
                std::process::exit(1);
            }
        });
    }
    Ok(())
}

impl Loop {
    async fn rename(&self, delivery: Delivery) -> Result<()> {
        let request: Request = serde_json::from_slice(&delivery.data)?;
        let url = format!(
            "{}/{}/auth/users/{}/change_username",
            self.users, request.account_id, request.username
        );
        let user: User = self
            .http
            .post(url)
            .bearer_auth(&self.token)
            .json(&User {
                username: request.new_username,
            })
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let event = serde_json::to_vec(&Renamed {
            request_id: request.request_id,
            account_id: request.account_id,
            previous_username: request.username,
            username: user.username,
        })?;
        self.channel
            .basic_publish(
                self.events.as_str().into(),
                "user.renamed".into(),
                BasicPublishOptions::default(),
                &event,
                // Persistent, as the worker's events are.
                BasicProperties::default().with_delivery_mode(2),
            )
            .await?
            .await?;
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}
