//! A real Prometheus watches a real worker and a real RabbitMQ under a mixed load: every query of
//! the dashboard returns data, and the rules are evaluated without a fault.
//!
//! Not part of `cargo test`, since it needs Prometheus and a minute: `make dashboard-test`, and in CI.
//! It prints each panel's data as a table, to be looked at.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::BasicProperties;
use rename_worker::clock;
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::{CLIENT_ID, CLIENT_SECRET, NewUser, Sandbox, SandboxOptions};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};
use url::Url;
use uuid::Uuid;

use crate::support::{self, amqp::Raw};

const ACCOUNT: &str = "T12345678";

/// The API refuses the credentials of this account, so that it is held while the other one goes on.
const REFUSED: &str = "T40100000";

/// From this wave on there are requests of it: by then the credentials have worked for the other one.
const REFUSED_FROM: u32 = 5;

/// How long the load lasts: long enough for a letter to go through the shortest retry queue.
const WAVES: u32 = 40;

/// In this wave so many more requests come at once that they queue.
const BURST: (u32, u32) = (20, 2_000);

/// Panels that may well show nothing but zeros while all goes as it should.
const MAY_BE_ZERO: [&str; 7] = [
    "Hold",
    "Held",
    "Deliveries near the limit",
    "Reconnects",
    // Requests are taken within the second they are asked for in, but for those of the burst.
    "Oldest request",
    "Undeliverable by cause",
    "Log lines dropped",
];

/// The labels of the scrapes, as the dashboard's variables select them.
const NAMESPACE: &str = "dashboard-test";
const JOB: &str = "rename-worker";
const BROKER: &str = "rabbitmq";

/// A program that ends with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", name.display())),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn start_worker(amqp_url: &str, prefix: &str, api: &str, port: u16) -> Program {
    Program::start(
        Command::new(env!("CARGO_BIN_EXE_rename-worker"))
            .arg("run")
            .env("RENAME_WORKER_AMQP__URL", amqp_url)
            .env("RENAME_WORKER_AMQP__PREFIX", prefix)
            .env("RENAME_WORKER_API__BASE_URL", api)
            .env("RENAME_WORKER_API__CLIENT_ID", CLIENT_ID)
            .env("RENAME_WORKER_API__CLIENT_SECRET", CLIENT_SECRET)
            .env("RENAME_WORKER_CONSUMER__CONCURRENCY", "16")
            .env("RENAME_WORKER_ADMIN__LISTEN", format!("127.0.0.1:{port}"))
            .env("RENAME_WORKER_LOG__LEVEL", "warn"),
    )
}

fn start_prometheus(
    folder: &Path,
    port: u16,
    worker: u16,
    rabbitmq: &str,
    prefix: &str,
) -> Program {
    for file in ["rename-worker.yaml", "rename-worker-absent.yaml"] {
        let rules =
            std::fs::read_to_string(root().join("helm/rename-worker/rules").join(file)).unwrap();
        // As the chart does it.
        let rules = rules
            .replace("queue=~\"rename[.]", &format!("queue=~\"{prefix}[.]"))
            .replace("queue=\"rename.", &format!("queue=\"{prefix}."))
            .replace("interval: 30s", "interval: 1s");
        std::fs::write(folder.join(file), rules).unwrap();
    }
    let labels = format!("labels: {{ namespace: {NAMESPACE} }}");
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [rename-worker.yaml, rename-worker-absent.yaml]\n\
         scrape_configs:\n\
         - job_name: {JOB}\n  \
           static_configs: [{{ targets: ['127.0.0.1:{worker}'], {labels} }}]\n\
         - job_name: {BROKER}\n  \
           metrics_path: /metrics/detailed\n  \
           params: {{ family: [queue_coarse_metrics, queue_consumer_count] }}\n  \
           static_configs: [{{ targets: ['{rabbitmq}'], {labels} }}]\n"
    );
    std::fs::write(folder.join("prometheus.yaml"), config).unwrap();
    Program::start(
        Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn"),
    )
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn start_sandbox() -> Sandbox {
    let account = AccountId::parse(ACCOUNT).unwrap();
    let user = |name: String| NewUser {
        account_id: account.clone(),
        username: name.into(),
        id: None,
    };
    let users =
        (0..WAVES).flat_map(|wave| (0..12).map(move |n| format!("u{wave}-{n}@example.com")));
    Sandbox::start(SandboxOptions {
        users: users.map(user).collect(),
        latency: "20ms-120ms".parse().unwrap(),
        faults: [
            &*format!("401,account={REFUSED}"),
            "503=0.06",
            "lost=0.06,on=rename",
            "429=x3,retry-after=4",
        ]
        .iter()
        .map(|fault| fault.parse().unwrap())
        .collect(),
        ..SandboxOptions::default()
    })
    .await
    .unwrap()
}

/// One second's worth of requests: most fine, one chain of names, an unknown user, a taken name, an
/// invalid request, one of an account that is refused.
async fn publish_wave(raw: &Raw, prefix: &str, wave: u32) {
    let request_of = |account: &str, old: String, new: String| {
        json!({
            "request_id": Uuid::now_v7(), "account_id": account,
            "username": old, "new_username": new, "requested_at": clock::now(),
        })
        .to_string()
    };
    let request = |old, new| request_of(ACCOUNT, old, new);
    let name = |n: u32| format!("u{wave}-{n}@example.com");
    let fresh = |n: u32| format!("v{wave}-{n}@example.com");
    let mut bodies: Vec<_> = (0..8).map(|n| request(name(n), fresh(n))).collect();
    bodies.push(request(fresh(0), format!("w{wave}@example.com")));
    bodies.push(request(format!("nobody{wave}@example.com"), fresh(90)));
    bodies.push(request(name(9), name(10)));
    bodies.push("{\"request_id\": 1".to_owned());
    if wave >= REFUSED_FROM {
        bodies.push(request_of(REFUSED, name(0), fresh(0)));
    }
    let (burst, many) = BURST;
    if wave == burst {
        let nobody = |n| request(format!("nobody{wave}-{n}@example.com"), fresh(100 + n));
        bodies.extend((0..many).map(nobody));
    }
    let exchange = format!("{prefix}.requests");
    // All at once: one by one they would come no faster than they are worked off.
    let publish = |body: String| {
        let exchange = &exchange;
        async move {
            let properties = BasicProperties::default();
            raw.publish(exchange, "rename.T12345678", body.as_bytes(), properties)
                .await;
        }
    };
    join_all(bodies.into_iter().map(publish)).await;
}

async fn get(url: &str, query: &[(&str, &str)]) -> Option<Value> {
    let url = Url::parse_with_params(url, query).ok()?;
    let answer = reqwest::get(url).await.ok()?;
    serde_json::from_str(&answer.text().await.ok()?).ok()
}

async fn until_ready(what: &str, url: &str) {
    for _ in 0..300 {
        if reqwest::get(url)
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} is not ready: {url}");
}

/// Waits until Prometheus has seen the worker, so that the very first count is an increase to it.
async fn until_scraped(prometheus: &str) {
    let url = format!("{prometheus}/api/v1/query");
    for _ in 0..100 {
        let answer = get(&url, &[("query", "rename_worker_build_info")]).await;
        let found = answer.and_then(|answer| answer["data"]["result"].as_array().map(Vec::len));
        if found == Some(1) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("Prometheus does not see the worker");
}

/// What a query returned: one line of numbers for each series.
async fn series(
    prometheus: &str,
    query: &str,
    start: Timestamp,
) -> Result<Vec<(Value, Vec<f64>)>, String> {
    let (from, to) = (
        start.as_second().to_string(),
        clock::now().as_second().to_string(),
    );
    let url = format!("{prometheus}/api/v1/query_range");
    let asked = [
        ("query", query),
        ("start", &from),
        ("end", &to),
        ("step", "1"),
    ];
    let answer = get(&url, &asked).await.ok_or("no answer")?;
    let found = answer["data"]["result"]
        .as_array()
        .ok_or_else(|| answer.to_string())?;
    let numbers = |one: &Value| -> Vec<f64> {
        let values = one["values"].as_array().into_iter().flatten();
        values
            .filter_map(|pair| pair[1].as_str()?.parse::<f64>().ok())
            .filter(|n| n.is_finite())
            .collect()
    };
    Ok(found
        .iter()
        .map(|one| (one["metric"].clone(), numbers(one)))
        .collect())
}

/// A legend with its labels filled in, as Grafana does.
fn legend(format: &str, labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    labels.fold(format.to_owned(), |text, (name, value)| {
        text.replace(
            &format!("{{{{{name}}}}}"),
            value.as_str().unwrap_or_default(),
        )
    })
}

/// A course as blocks, the highest value full.
fn course(values: &[f64]) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 8"
    )]
    values
        .iter()
        .map(|value| BLOCKS[(value.max(0.0) / most * 8.0).round() as usize])
        .collect()
}

/// A query as Grafana asks it when this test's installation is selected.
fn filled_in(query: &str, prefix: &str) -> String {
    let chosen = [
        ("$broker_namespace", NAMESPACE),
        ("$broker", BROKER),
        ("$namespace", NAMESPACE),
        ("$job", JOB),
        ("$instance", ".*"),
        ("$vhost", "/"),
        ("$prefix", prefix),
        ("$__rate_interval", "5s"),
    ];
    chosen
        .iter()
        .fold(query.to_owned(), |query, (name, value)| {
            query.replace(name, value)
        })
}

/// Prints what each panel would show and returns what is wrong with it.
async fn look(prometheus: &str, prefix: &str, start: Timestamp) -> Vec<String> {
    let dashboard =
        std::fs::read_to_string(root().join("helm/rename-worker/dashboards/rename-worker.json"))
            .unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let (mut wrong, mut table) = (Vec::new(), String::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let unit = panel["fieldConfig"]["defaults"]["unit"]
            .as_str()
            .unwrap_or_default();
        writeln!(table, "\n{title} [{unit}]").unwrap();
        let mut most = 0.0_f64;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let filled = filled_in(query, prefix);
            match series(prometheus, &filled, start).await {
                Ok(found) if found.iter().any(|(_, values)| !values.is_empty()) => {
                    for (labels, values) in &found {
                        let legend = legend(target["legendFormat"].as_str().unwrap(), labels);
                        let top = values.iter().copied().fold(0.0, f64::max);
                        let last = values.last().copied().unwrap_or(f64::NAN);
                        writeln!(
                            table,
                            "  {legend:34} last {last:<10.4} max {top:<10.4} {}",
                            course(values)
                        )
                        .unwrap();
                        if legend.contains("{{") || legend.is_empty() {
                            wrong.push(format!("{title}: legend {legend:?}"));
                        }
                        most = most.max(top);
                    }
                }
                Ok(_) => wrong.push(format!("{title}: no data from {filled}")),
                Err(why) => wrong.push(format!("{title}: {why}")),
            }
        }
        let shown = panel["type"] != "row";
        if shown && most == 0.0 && !MAY_BE_ZERO.contains(&title) {
            wrong.push(format!("{title}: all zero"));
        }
    }
    support::say(&table);
    wrong
}

/// Rules whose last evaluation failed.
async fn broken_rules(prometheus: &str) -> Vec<String> {
    let answer = get(&format!("{prometheus}/api/v1/rules"), &[])
        .await
        .unwrap();
    let groups = answer["data"]["groups"].as_array().unwrap();
    assert!(!groups.is_empty(), "no rules are loaded");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .filter(|rule| rule["health"] != "ok")
        .map(Value::to_string)
        .collect()
}

#[tokio::test]
#[ignore = "needs Prometheus and a minute: make dashboard-test"]
async fn every_panel_has_data_under_a_mixed_load() {
    // For this process's own questions; one that is there already does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(broker) = support::own_broker_or_skip("the dashboard").await else {
        return;
    };
    let rabbitmq = broker
        .prometheus_url()
        .expect("a broker of ours has the plugin");
    let prefix = "watched";
    let sandbox = start_sandbox().await;
    let (worker_port, port) = (free_port(), free_port());
    let _worker = start_worker(broker.url(), prefix, sandbox.base_url(), worker_port);
    until_ready(
        "the worker",
        &format!("http://127.0.0.1:{worker_port}/readyz"),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let _prometheus = start_prometheus(
        folder.path(),
        port,
        worker_port,
        rabbitmq.trim_start_matches("http://"),
        prefix,
    );
    let prometheus = format!("http://127.0.0.1:{port}");
    until_ready("Prometheus", &format!("{prometheus}/-/ready")).await;

    until_scraped(&prometheus).await;
    let start = clock::now();
    let raw = Raw::connect(broker.url()).await;
    let mut second = interval(Duration::from_secs(1));
    for wave in 0..WAVES {
        second.tick().await;
        publish_wave(&raw, prefix, wave).await;
    }
    // Two more scrapes, so that the last wave is seen.
    sleep(Duration::from_secs(2)).await;

    let wrong = look(&prometheus, prefix, start).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let broken = broken_rules(&prometheus).await;
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    broker.stop().await;
}
