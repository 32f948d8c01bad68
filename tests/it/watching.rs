//! What those who watch the worker rely on: the dashboard, the rules and the runbook hold together,
//! and name only what exists. Whether the queries return data is `make dashboard-test`'s business.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rename_worker::telemetry::metrics::families::MetricFamilies;
use serde_json::Value;

/// What RabbitMQ's Prometheus plugin tells of a queue, from 3.10 to 4.3, after its two prefixes.
const RABBITMQ: [&str; 3] = [
    "queue_messages_ready",
    "queue_messages_unacked",
    "queue_consumers",
];

/// Those of the process's own metrics that are used.
const PROCESS: [&str; 2] = ["process_cpu_seconds_total", "process_resident_memory_bytes"];

/// Grafana's ids of the units that are used: a wrong one is shown as a suffix, and nobody is told.
const UNITS: [&str; 7] = ["none", "short", "s", "bytes", "percentunit", "reqps", "eps"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect(path)
}

fn dashboard() -> Value {
    serde_json::from_str(&read("helm/rename-worker/dashboards/rename-worker.json")).unwrap()
}

/// The panels that show something, without the rows they stand in.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().map_or(&[], Vec::as_slice)
}

/// The output, or nothing where the tool is missing.
fn run(tool: &str, args: &[&str]) -> Option<Output> {
    match Command::new(tool).args(args).current_dir(root()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("{tool} was not asked: {error}");
            None
        }
    }
}

fn assert_succeeds(tool: &str, args: &[&str]) {
    if let Some(output) = run(tool, args) {
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
}

/// Every word in a query that can be a metric's name.
fn metric_names(query: &str) -> BTreeSet<String> {
    query
        .replace("rabbitmq(_detailed)?_", "rabbitmq_")
        .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':'))
        .filter(|word| {
            ["rename_worker_", "rabbitmq_", "process_"]
                .iter()
                .any(|start| word.starts_with(start))
                // A recording rule; a subquery, such as 5m:30s, begins with a digit.
                || (word.contains(':') && word.starts_with(|c: char| c.is_ascii_alphabetic()))
        })
        .map(str::to_owned)
        .collect()
}

/// Every name that `/metrics` and RabbitMQ know.
fn known_names() -> BTreeSet<String> {
    let ours = MetricFamilies::CATALOGUE.iter().flat_map(|about| {
        let name = format!("rename_worker_{}", about.name);
        match about.kind {
            "histogram" => vec![
                format!("{name}_bucket"),
                format!("{name}_sum"),
                format!("{name}_count"),
            ],
            _ => vec![name],
        }
    });
    let brokers = RABBITMQ.iter().map(|name| format!("rabbitmq_{name}"));
    let others = PROCESS.iter().map(|&name| name.to_owned());
    ours.chain(brokers).chain(others).collect()
}

/// A query as Prometheus would get it from Grafana.
fn filled_in(query: &str) -> String {
    let chosen = [
        "$broker_namespace",
        "$broker",
        "$namespace",
        "$job",
        "$instance",
        "$vhost",
    ];
    let query = chosen
        .iter()
        .fold(query.to_owned(), |query, name| query.replace(name, ".*"));
    query
        .replace("$prefix", "rename")
        .replace("$__rate_interval", "1m")
}

#[test]
fn the_dashboard_is_what_its_script_prints() {
    if let Some(output) = run("python3", &["scripts/dashboard.py"]) {
        let kept = read("helm/rename-worker/dashboards/rename-worker.json");
        assert!(output.stdout == kept.as_bytes(), "run `make dashboard`");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_what_unit() {
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let title = text(&panel["title"]);
        assert!(!title.is_empty(), "{panel}");
        assert!(
            text(&panel["description"]).ends_with('.'),
            "{title}: description"
        );
        let field = &panel["fieldConfig"]["defaults"];
        assert!(UNITS.contains(&text(&field["unit"])), "{title}: unit");
        assert!(!targets(panel).is_empty(), "{title}: targets");
        for target in targets(panel) {
            assert!(!text(&target["expr"]).is_empty(), "{title}: expr");
            assert!(!text(&target["legendFormat"]).is_empty(), "{title}: legend");
        }
        let legend = match text(&panel["type"]) {
            "timeseries" => &panel["options"]["legend"]["showLegend"],
            "heatmap" => &panel["options"]["legend"]["show"],
            "stat" => &Value::Bool(true),
            other => panic!("{title}: no rule for panels of type {other}"),
        };
        assert_eq!(legend, true, "{title}: legend shown");
        let steps = field["thresholds"]["steps"].as_array().unwrap();
        let values: Vec<_> = steps.iter().map(|step| step["value"].as_f64()).collect();
        assert!(values[0].is_none(), "{title}: the first step is the base");
        assert!(values.is_sorted(), "{title}: thresholds ascend");
    }
}

#[test]
fn no_panel_shares_its_id_or_its_place() {
    let dashboard = dashboard();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{}",
            panel["title"]
        );
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}: off the grid", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w"))
            .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(
                places.insert((x, y)),
                "{}: {x},{y} is taken",
                panel["title"]
            );
        }
    }
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist_and_only_for_what_is_selected() {
    let (dashboard, known) = (dashboard(), known_names());
    for panel in panels(&dashboard) {
        for target in targets(panel) {
            let query = text(&target["expr"]);
            let names = metric_names(query);
            assert!(!names.is_empty(), "{query}");
            let strangers: Vec<_> = names.difference(&known).collect();
            assert!(strangers.is_empty(), "{}: {strangers:?}", panel["title"]);
            let selected = query.contains("namespace=\"$namespace\",job=\"$job\"")
                || query.contains("namespace=\"$broker_namespace\",job=\"$broker\"");
            // This one shows which there are to select.
            let overview = panel["title"] == "Installations";
            assert!(selected || overview, "{}: {query}", panel["title"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
}

#[test]
fn every_metric_of_ours_is_shown_somewhere() {
    let dashboard = dashboard();
    let queries: String = panels(&dashboard)
        .iter()
        .flat_map(|panel| targets(panel))
        .map(|target| text(&target["expr"]))
        .collect();
    for about in MetricFamilies::CATALOGUE {
        assert!(
            queries.contains(&format!("rename_worker_{}", about.name)),
            "{}",
            about.name
        );
    }
}

#[test]
fn promtool_can_read_every_query_of_the_dashboard() {
    let dashboard = dashboard();
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for panel in panels(&dashboard) {
        for (place, target) in targets(panel).iter().enumerate() {
            // JSON strings are YAML strings.
            let query = Value::String(filled_in(text(&target["expr"])));
            let id = &panel["id"];
            writeln!(
                rules,
                "      - {{ record: panel_{id}_{place}, expr: {query} }}"
            )
            .unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yaml");
    std::fs::write(&file, rules).unwrap();
    assert_succeeds("promtool", &["check", "rules", file.to_str().unwrap()]);
}

/// Where the rules are.
const RULES: [&str; 2] = [
    "helm/rename-worker/rules/rename-worker.yaml",
    "helm/rename-worker/rules/rename-worker-absent.yaml",
];

/// One alert or recording rule, as the lines it is written in.
fn rules() -> Vec<String> {
    let file = RULES.map(read).concat();
    let starts =
        |line: &str| line.starts_with("      - alert:") || line.starts_with("      - record:");
    let mut rules: Vec<String> = Vec::new();
    for line in file
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        if starts(line) {
            rules.push(String::new());
        }
        if let Some(rule) = rules.last_mut() {
            rule.push_str(line);
            rule.push('\n');
        }
    }
    rules
}

fn name_after<'a>(rule: &'a str, key: &str) -> Option<&'a str> {
    let key = format!("{key}:");
    rule.lines()
        .find_map(|line| {
            line.trim_start()
                .trim_start_matches("- ")
                .strip_prefix(&key)
        })
        .map(str::trim)
}

#[test]
fn every_alert_says_what_it_means_and_leads_to_the_runbook() {
    let runbook = read("docs/runbook.md");
    let anchors: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let mut reached = BTreeSet::new();
    for rule in rules() {
        let Some(alert) = name_after(&rule, "alert") else {
            continue;
        };
        for key in ["severity", "summary", "description"] {
            assert!(
                name_after(&rule, key).is_some_and(|value| !value.is_empty()),
                "{alert}: {key}"
            );
        }
        let link =
            name_after(&rule, "runbook_url").unwrap_or_else(|| panic!("{alert}: runbook_url"));
        let (page, anchor) = link
            .split_once('#')
            .unwrap_or_else(|| panic!("{alert}: no anchor"));
        assert!(page.ends_with("/docs/runbook.md"), "{alert}: {page}");
        assert!(
            anchors.contains(anchor),
            "{alert}: the runbook has no section {anchor}"
        );
        assert!(
            runbook.contains(&format!("`{alert}`")),
            "{alert}: the runbook does not name it"
        );
        reached.insert(anchor.to_owned());
    }
    assert_eq!(reached, anchors, "sections that no alert leads to");
}

#[test]
fn the_rules_ask_only_for_metrics_that_exist() {
    let mut known = known_names();
    known.extend(
        rules()
            .iter()
            .filter_map(|rule| name_after(rule, "record").map(str::to_owned)),
    );
    for rule in rules() {
        let from = rule.find("expr:").unwrap();
        let until = ["\n        for:", "\n        labels:", "\n  - name:"]
            .iter()
            .filter_map(|key| rule.find(key))
            .min();
        let names = metric_names(&rule[from + "expr:".len()..until.unwrap_or(rule.len())]);
        let strangers: Vec<_> = names.difference(&known).collect();
        assert!(
            !names.is_empty() && strangers.is_empty(),
            "{strangers:?} in\n{rule}"
        );
    }
}

fn rule_tests() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("tests/rules")).unwrap();
    folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

#[test]
fn every_alert_is_tested_firing_and_not_firing() {
    let tests: String = rule_tests()
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for rule in rules() {
        let Some(alert) = name_after(&rule, "alert") else {
            continue;
        };
        let expected: Vec<_> = tests
            .split(&format!("alertname: {alert}\n"))
            .skip(1)
            .collect();
        let silent = |after: &&&str| after.trim_start().starts_with("exp_alerts: []");
        let silences = expected.iter().filter(silent).count();
        assert!(silences > 0, "{alert} is not tested silent");
        assert!(expected.len() > silences, "{alert} is not tested firing");
    }
}

#[test]
fn the_rules_fire_when_they_should_and_only_then() {
    assert_succeeds("promtool", &[&["check", "rules"], &RULES[..]].concat());
    let tests = rule_tests();
    let mut args = vec!["test", "rules"];
    args.extend(tests.iter().map(|path| path.to_str().unwrap()));
    assert_succeeds("promtool", &args);
}
