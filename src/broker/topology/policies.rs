//! The policies of RabbitMQ that apply to the topology and change what it promises, as its management
//! API has them.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use tokio::time::{Instant, sleep};

use super::management::{ManagementApi, ManagementRequest, ManagementTrouble};
use super::model::{
    ArgumentValue, DELIVERY_LIMIT_ARGUMENT, DifferenceKind, QueueNames, Topology,
    TopologyDifference, TopologyObject, TopologySettings,
};
use crate::config::AmqpSection;
use crate::core::policy::queue_policy::{
    PolicedQueue, PolicyValue, QueueRole, changed_promise, changed_promise_of_exchange,
};

/// The policies of a queue are part of its statistics, which come every 5 s, and later where the broker
/// is busy.
const STATISTICS_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two questions whether they have come.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// As small as the answer can be.
const COLUMNS: &str = "?columns=policy,operator_policy,effective_policy_definition";

/// What the API says of a queue or an exchange.
#[derive(Default, Deserialize)]
struct AppliedPolicy {
    policy: Option<String>,
    operator_policy: Option<String>,
    /// Both together. Absent until there are statistics, and `[]` where there is none.
    effective_policy_definition: Option<Json>,
}

#[derive(Deserialize)]
struct ClusterOverview {
    rabbitmq_version: String,
}

#[derive(Deserialize)]
struct BrokerPolicy {
    definition: Map<String, Json>,
}

/// Every policy that changes a promise of the topology. What is not there has none.
pub async fn policy_differences(
    amqp: &AmqpSection,
    settings: &TopologySettings,
    management_url: &SecretString,
) -> Result<Vec<TopologyDifference>, ManagementTrouble> {
    let mut api = ManagementApi::connect(amqp, management_url).await?;
    let version = match api.get::<ClusterOverview>("overview", None, "").await? {
        ManagementRequest::Found(overview) => overview.rabbitmq_version,
        ManagementRequest::Hidden => return Err(api.refused()),
        ManagementRequest::Missing => return Err(api.is_missing()),
    };
    let names = QueueNames::new(&amqp.prefix);
    let topology = Topology::new(&names, settings);
    let mut differences = Vec::new();
    for object in &topology.objects {
        match object {
            TopologyObject::Exchange { name, .. } => {
                let relied_on = *name != names.events;
                differences.extend(of_exchange(&mut api, object, name, relied_on).await?);
            }
            TopologyObject::Queue { name, .. } => {
                let queue = policed(&names, object, !version.starts_with("3."));
                differences.extend(of_queue(&mut api, object, name, &queue).await?);
            }
            TopologyObject::Binding { .. } => {}
        }
    }
    Ok(differences)
}

async fn of_queue(
    api: &mut ManagementApi,
    object: &TopologyObject,
    name: &str,
    queue: &PolicedQueue,
) -> Result<Vec<TopologyDifference>, ManagementTrouble> {
    let deadline = Instant::now() + STATISTICS_TIMEOUT;
    let (applied, definition) = loop {
        let mut applied = match api.get("queues", Some(name), COLUMNS).await? {
            ManagementRequest::Found(columns) => AppliedPolicy::read(columns),
            ManagementRequest::Missing => return Ok(Vec::new()),
            ManagementRequest::Hidden => return Err(api.refused()),
        };
        if let Some(definition) = applied.effective_policy_definition.take() {
            break (applied, definition);
        }
        if Instant::now() >= deadline {
            return Err(ManagementTrouble::NotKnownYet {
                queue: name.to_owned(),
            });
        }
        sleep(ASK_AGAIN).await;
    };
    let definition = definition.as_object().cloned().unwrap_or_default();
    let policies = applied.names();
    let changed = definition.iter().filter_map(|(key, value)| {
        let effect = changed_promise(queue, key, policy_value(value))?;
        Some(difference(
            object,
            &policies,
            key,
            &value.to_string(),
            effect,
        ))
    });
    Ok(changed.collect())
}

async fn of_exchange(
    api: &mut ManagementApi,
    object: &TopologyObject,
    name: &str,
    relied_on: bool,
) -> Result<Option<TopologyDifference>, ManagementTrouble> {
    let applied = match api.get("exchanges", Some(name), COLUMNS).await? {
        ManagementRequest::Found(columns) => AppliedPolicy::read(columns),
        ManagementRequest::Missing => return Ok(None),
        ManagementRequest::Hidden => return Err(api.refused()),
    };
    let Some(policy) = &applied.policy else {
        return Ok(None);
    };
    let key = "alternate-exchange";
    let Some(effect) = changed_promise_of_exchange(relied_on, key) else {
        return Ok(None);
    };
    let value = match api
        .get::<BrokerPolicy>("policies", Some(policy), "")
        .await?
    {
        ManagementRequest::Found(policy) => policy.definition.get(key).map(Json::to_string),
        ManagementRequest::Missing => None,
        ManagementRequest::Hidden => {
            Some("what this user may not read (tag policymaker)".to_owned())
        }
    };
    Ok(value.map(|value| difference(object, &applied.names(), key, &value, effect)))
}

impl AppliedPolicy {
    /// Where there is none of the columns yet, the API says `[]`.
    fn read(columns: Json) -> Self {
        serde_json::from_value(columns).unwrap_or_default()
    }

    fn names(&self) -> String {
        let policy = self.policy.as_ref().map(|name| format!("policy '{name}'"));
        let operator = self.operator_policy.as_ref();
        let operator = operator.map(|name| format!("operator policy '{name}'"));
        let both: Vec<_> = policy.into_iter().chain(operator).collect();
        if both.is_empty() {
            return "a policy".to_owned();
        }
        both.join(" and ")
    }
}

fn difference(
    object: &TopologyObject,
    policies: &str,
    key: &str,
    value: &str,
    effect: &'static str,
) -> TopologyDifference {
    TopologyDifference {
        object: object.to_string(),
        what: DifferenceKind::Policy {
            policies: policies.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            effect,
        },
    }
}

fn policy_value(value: &Json) -> PolicyValue<'_> {
    match value {
        Json::Number(number) => number
            .as_i64()
            .map_or(PolicyValue::Other, PolicyValue::Number),
        Json::String(text) => PolicyValue::Text(text),
        _ => PolicyValue::Other,
    }
}

fn policed(
    names: &QueueNames,
    queue: &TopologyObject,
    negative_limit_is_none: bool,
) -> PolicedQueue {
    let (name, arguments) = match queue {
        TopologyObject::Queue { name, arguments } => (name.as_str(), arguments.as_slice()),
        _ => ("", &[][..]),
    };
    let number = |wanted: &str| {
        let argument = arguments.iter().find(|argument| argument.name == wanted)?;
        match argument.value {
            ArgumentValue::Number(number) => Some(number),
            _ => None,
        }
    };
    let roles = [
        (&names.requests, QueueRole::Requests),
        (&names.due, QueueRole::Due),
        (&names.undeliverable, QueueRole::Undeliverable),
        (&names.dead_letters, QueueRole::DeadLetters),
        (&names.discarded, QueueRole::Discarded),
        (&names.review_lock, QueueRole::ReviewLock),
    ];
    let role = roles.iter().find(|(known, _)| *known == name);
    PolicedQueue {
        role: role.map_or(QueueRole::Wait, |(_, role)| *role),
        message_ttl: number("x-message-ttl"),
        delivery_limit: number(DELIVERY_LIMIT_ARGUMENT),
        negative_limit_is_none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_of_the_topology_has_its_role_and_its_own_limits() {
        let names = QueueNames::new("p");
        let delays = [Duration::from_secs(5)];
        let topology = Topology::new(&names, &TopologySettings::with_delays(&delays));
        let mut seen = Vec::new();
        for object in &topology.objects {
            if let Some(name) = object.queue_name() {
                let queue = policed(&names, object, true);
                seen.push((name, queue.role, queue.message_ttl, queue.delivery_limit));
            }
        }
        let month = Some(30 * 24 * 3_600_000);
        assert_eq!(
            seen,
            [
                ("p.dead-letters", QueueRole::DeadLetters, None, Some(-1)),
                ("p.undeliverable", QueueRole::Undeliverable, None, Some(-1)),
                ("p.discarded", QueueRole::Discarded, month, Some(-1)),
                ("p.review-lock", QueueRole::ReviewLock, None, Some(-1)),
                ("p.due", QueueRole::Due, None, Some(20)),
                ("p.requests", QueueRole::Requests, None, Some(20)),
                ("p.wait.5s", QueueRole::Wait, Some(5_000), Some(-1)),
            ]
        );
    }
}
