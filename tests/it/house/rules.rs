//! Who may see what. A new room needs its line here.

use super::imports::{Seen, seen_by};

/// A room, the other rooms of ours that it may see. Every room sees itself and [`PLAIN`].
const ROOMS: [(&str, &[&str]); 17] = [
    ("core", &[]),
    ("clock", &[]),
    ("messages", &["core"]),
    ("config", &["core"]),
    ("broker", &["messages", "core", "config"]),
    ("dintero", &["messages", "core", "config"]),
    ("telemetry", &["messages", "core", "config"]),
    ("sandbox", &["messages", "core", "config"]),
    (
        "admin",
        &["worker", "telemetry", "messages", "core", "config"],
    ),
    (
        "dead_letters",
        &["broker", "telemetry", "messages", "core", "config"],
    ),
    ("publish", &["broker", "messages", "core", "config"]),
    (
        "worker",
        &[
            "broker",
            "dintero",
            "telemetry",
            "messages",
            "core",
            "config",
        ],
    ),
    (
        "app",
        &[
            "worker",
            "admin",
            "broker",
            "dintero",
            "telemetry",
            "messages",
            "core",
            "config",
        ],
    ),
    (
        "demo",
        &[
            "app",
            "sandbox",
            "publish",
            "broker",
            "telemetry",
            "messages",
            "core",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "demo",
            "sandbox",
            "publish",
            "dead_letters",
            "admin",
            "broker",
            "dintero",
            "telemetry",
            "messages",
            "core",
            "config",
        ],
    ),
    ("main", &["cli"]),
    // The module map itself.
    ("", &[]),
];

/// The sub-rooms of a room, each of which may see only those before it and itself. What lies in
/// the room itself, outside them, is for all of them.
const SUB_ROOMS: [(&str, &[&str]); 2] = [
    ("core", &["model", "policy", "scheduler"]),
    (
        "broker",
        &[
            "transport",
            "topology",
            "publish",
            "session",
            "dead_letter_queue",
        ],
    ),
];

/// Rooms that decide and know nothing, so that all but `core` may ask them.
const PLAIN: [&str; 1] = ["clock"];

/// A crate that one room keeps to itself.
const KEPT: [(&str, &str); 3] = [
    ("lapin", "broker"),
    ("async_rs", "broker"),
    ("reqwest", "dintero"),
];

/// All that `core` may name besides itself: nothing here does anything by itself.
const CORE_CRATES: [&str; 10] = [
    "core",
    "std",
    "alloc",
    "jiff",
    "uuid",
    "thiserror",
    "backoff",
    "icu_normalizer",
    // Pure with a clock that is moved by hand; its real ones are forbidden below.
    "governor",
    "lru",
];

/// What `core` may not reach even there: clocks, randomness and the world.
const CORE_NEVER: [&[&str]; 19] = [
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "process"],
    &["std", "sync"],
    &["std", "thread"],
    &["jiff", "Timestamp", "now"],
    &["jiff", "Zoned", "now"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["governor", "DefaultKeyedRateLimiter"],
    &["governor", "clock", "DefaultClock"],
    &["governor", "clock", "MonotonicClock"],
    &["governor", "clock", "SystemClock"],
    &["Uuid", "new_v4"],
    &["Uuid", "now_v7"],
];

/// The rules that a file breaks, each as a sentence.
pub fn broken(module: &[String], text: &str) -> Vec<String> {
    let room = module.first().map_or("", String::as_str);
    let Some((_, may_see)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "`{room}` is a new room: say in tests/it/house/rules.rs what it may see"
        )];
    };
    let mut told: Vec<String> = seen_by(module, text)
        .into_iter()
        .filter_map(|seen| match seen {
            Seen::Ours(path) => {
                breaks_order(room, may_see, &path).or_else(|| breaks_sub_order(module, &path))
            }
            Seen::Foreign(path) => breaks_keeping(room, &path),
        })
        .collect();
    told.sort();
    told.dedup();
    told
}

fn breaks_order(room: &str, may_see: &[&str], path: &[String]) -> Option<String> {
    let other = path.first()?.as_str();
    // What is no room is an item of the crate's root, which has none.
    let is_room = ROOMS.iter().any(|(name, _)| *name == other);
    let fine = !is_room
        || other == room
        || may_see.contains(&other)
        || (PLAIN.contains(&other) && room != "core");
    (!fine).then(|| format!("`{room}` may not see `{other}` ({})", path.join("::")))
}

fn breaks_sub_order(module: &[String], path: &[String]) -> Option<String> {
    let [room, from, ..] = module else {
        return None;
    };
    let [other_room, to, ..] = path else {
        return None;
    };
    let (_, in_order) = SUB_ROOMS.iter().find(|(name, _)| name == room)?;
    let level = |sub_room: &String| in_order.iter().position(|name| name == sub_room);
    let above = other_room == room && level(from)? < level(to)?;
    above.then(|| format!("`{room}::{from}` may not see `{to}` ({})", path.join("::")))
}

fn breaks_keeping(room: &str, path: &[String]) -> Option<String> {
    let first = path.first()?.as_str();
    if let Some((name, keeper)) = KEPT.iter().find(|(name, _)| *name == first)
        && *keeper != room
    {
        return Some(format!(
            "only `{keeper}` may know {name} ({})",
            path.join("::")
        ));
    }
    if room != "core" {
        return None;
    }
    let never = CORE_NEVER.iter().any(|never| {
        path.iter()
            .map(String::as_str)
            .take(never.len())
            .eq(never.iter().copied())
    });
    let stranger = is_crate_name(first) && !CORE_CRATES.contains(&first);
    (never || stranger).then(|| format!("`core` is pure, it may not use {}", path.join("::")))
}

/// The crates of our manifest; other first words are modules, types or variables.
fn is_crate_name(word: &str) -> bool {
    static MANIFEST: &str = include_str!("../../../Cargo.toml");
    let as_package = word.replace('_', "-");
    MANIFEST
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .take_while(|line| !line.starts_with("[profile"))
        .filter_map(|line| line.split_once(" = "))
        .any(|(name, _)| name == word || name == as_package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(module: &str, text: &str) -> Vec<String> {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        broken(&module, text)
    }

    #[test]
    fn what_points_up_or_sideways_is_found() {
        for (module, text) in [
            ("core::policy::retry", "use crate::messages::Thing;"),
            ("core::policy::retry", "use super::super::super::worker;"),
            ("messages", "use crate::{core::model, broker::session};"),
            ("messages", "fn f() { crate::app::run() }"),
            ("broker::session", "use crate::dintero;"),
            ("dintero", "type T = crate::broker::Link;"),
            ("dintero", "fn f() { log!(\"{}\", crate::broker::LIMIT) }"),
            ("worker", "use crate::cli::Exit;"),
            ("worker", "mod deep { use super::super::app; }"),
            (
                "worker::shell",
                "mod deep { use super::super::super::app; }",
            ),
            ("main", "use rename_worker::worker;"),
            ("worker", "pub use lapin::Channel;"),
            ("worker", "fn f() -> reqwest::Result<()> { todo() }"),
            ("worker", "use ::lapin;"),
            ("sandbox", "use reqwest as http;"),
            ("core::scheduler::name_order", "use tokio::sync;"),
            (
                "core::scheduler::name_order",
                "fn f() { tracing::info!(\"x\") }",
            ),
            (
                "core::scheduler::name_order",
                "fn f() -> f64 { rand::random() }",
            ),
            (
                "core::scheduler::name_order",
                "use std::time::{Duration, Instant};",
            ),
            (
                "core::scheduler::name_order",
                "fn f() { std::time::SystemTime::now(); }",
            ),
            (
                "core::scheduler::name_order",
                "fn f() { jiff::Timestamp::now(); }",
            ),
            (
                "core::scheduler::name_order",
                "use jiff::Timestamp; fn f() { Timestamp::now(); }",
            ),
            (
                "core::scheduler::name_order",
                "use uuid::Uuid; fn f() { Uuid::new_v4(); }",
            ),
            ("core::scheduler::name_order", "use crate::clock;"),
            ("core::model::outcome", "use crate::core::policy::retry;"),
            ("broker::publish", "use super::session::event_loop;"),
            ("core::policy", "fn f() { super::scheduler::run() }"),
            ("attic", ""),
        ] {
            assert_eq!(told(module, text).len(), 1, "{module}: {text}");
        }
    }

    #[test]
    fn what_points_down_is_fine() {
        for (module, text) in [
            (
                "core::policy::retry",
                "use super::request; use crate::core::model::api_response; use std::time::Duration;",
            ),
            (
                "core::policy::retry",
                "use core::fmt; use jiff::Timestamp; use uuid::Uuid;",
            ),
            (
                "core::scheduler::job",
                "use crate::core::policy::retry; use super::super::model::request;",
            ),
            (
                "broker",
                "use lapin::Channel; use crate::{config::Amqp, core::model};",
            ),
            (
                "dintero::token",
                "use crate::clock; fn f() -> reqwest::Client { g() }",
            ),
            ("app", "use crate::{broker, dintero, worker};"),
            ("main", "use rename_worker::cli;"),
            (
                "core",
                "#[cfg(test)] mod tests { use proptest::prelude::*; use crate::messages; }",
            ),
            (
                "worker",
                "//! See [`crate::cli`].\n// lapin::Channel\nconst A: &str = \"lapin::x\";",
            ),
        ] {
            assert_eq!(told(module, text), [""; 0], "{module}: {text}");
        }
    }
}
