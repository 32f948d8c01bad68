//! The reviewer's process killed at any point: every letter is still there, or its replay or its
//! record is.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{lines_of, put_many, requests_in, stage, start, strike, told};
use crate::support::stage::{PATIENCE, Stage};

const LETTERS: usize = 1_500;
/// Kills in the middle, before it may end.
const KILLS: usize = 4;
/// Between two looks at how far another process is, which no clock of ours can hurry.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until the broker has taken back what a killed process held.
async fn returned(stage: &Stage, at_least: usize) {
    let begun = Instant::now();
    let queue = &stage.names.dead_letters;
    while (stage.raw.queue_length(queue).await as usize) < at_least {
        assert!(begun.elapsed() < PATIENCE, "letters are lost");
        sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn a_replay_that_is_killed_loses_nothing_and_is_finished_later() {
    let stage = stage().await;
    let ids = put_many(&stage, LETTERS).await;
    let (letters, requests) = (&stage.names.dead_letters, &stage.names.due);
    for kill in 1..=KILLS {
        let before = stage.raw.queue_length(requests).await as usize;
        let mut replay = start(&stage, &["replay", "--all", "--yes"]).await;
        let begun = Instant::now();
        while stage.raw.queue_length(requests).await as usize <= before + 20 * kill {
            assert!(begun.elapsed() < PATIENCE, "it sends nothing");
            sleep(LOOK_EVERY).await;
        }
        replay.kill().await.expect("it can be killed");
        let sent = stage.raw.queue_length(requests).await as usize;
        returned(&stage, LETTERS.saturating_sub(sent)).await;
    }
    let left = stage.raw.queue_length(letters).await;
    assert!(left > 0, "the kills came too late to show anything");
    told(&stage, &["replay", "--all", "--yes"]).await;
    assert_eq!(stage.raw.queue_length(letters).await, 0);
    let sent = requests_in(&stage, requests).await;
    assert_eq!(sent.len(), LETTERS, "some are lost");
    assert!(ids.iter().all(|id| sent.contains_key(id)));
    // Once more for each kill at worst: acks that were under way when it came are lost with it.
    let most = sent.values().max().copied().unwrap_or_default();
    assert!(most <= 1 + KILLS, "one was sent {most} times");
    strike(stage).await;
}

/// Lines of an audit or an export, the last of which may be cut off.
fn recorded(file: &Path) -> usize {
    std::fs::read(file).map_or(0, |text| text.split(|byte| *byte == b'\n').count() - 1)
}

/// The request in such a line.
fn body_of(line: &Value) -> Value {
    let body = line["message"]["body"]["text"].as_str().unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_discard_that_is_killed_loses_nothing_and_is_finished_later() {
    let stage = stage().await;
    let ids = put_many(&stage, LETTERS).await;
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let args = [
        "discard",
        "--all",
        "--yes",
        "--because",
        "killed",
        "--audit",
    ];
    let args = [&args[..], &[audit.to_str().unwrap()]].concat();
    for _ in 0..KILLS {
        let before = recorded(&audit);
        let mut discard = start(&stage, &args).await;
        let begun = Instant::now();
        while recorded(&audit) <= before && discard.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it records nothing");
            sleep(LOOK_EVERY).await;
        }
        discard.kill().await.expect("it can be killed");
        let done = recorded(&audit);
        returned(&stage, LETTERS.saturating_sub(done)).await;
    }
    told(&stage, &args).await;
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 0);
    let text = std::fs::read_to_string(&audit).unwrap();
    // A line that a kill cut off is not JSON; its letter was not taken, so it is there again.
    let whole = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let kept = super::count_requests(whole.map(|line| body_of(&line)));
    assert!(ids.iter().all(|id| kept.contains_key(id)), "some are lost");
    strike(stage).await;
}

#[tokio::test]
async fn a_look_that_is_killed_changes_nothing() {
    let stage = stage().await;
    let ids = put_many(&stage, LETTERS).await;
    let queue = &stage.names.dead_letters;
    for _ in 0..KILLS {
        let mut list = start(&stage, &["list"]).await;
        // Until it holds some, or is done already.
        while stage.raw.queue_length(queue).await as usize == LETTERS
            && list.try_wait().unwrap().is_none()
        {
            sleep(LOOK_EVERY).await;
        }
        list.kill().await.ok();
        returned(&stage, LETTERS).await;
    }
    let kept = requests_in(&stage, queue).await;
    assert!(ids.iter().all(|id| kept.get(id) == Some(&1)));
    strike(stage).await;
}

#[tokio::test]
async fn an_export_that_is_killed_goes_on_and_the_queue_keeps_all() {
    let stage = stage().await;
    let ids = put_many(&stage, LETTERS).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let args = ["export", path.to_str().unwrap(), "--resume"];
    let mut cut_off = 0;
    for _ in 0..KILLS {
        let before = recorded(&path);
        let mut export = start(&stage, &args).await;
        let begun = Instant::now();
        while recorded(&path) <= before && export.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it writes nothing");
            sleep(LOOK_EVERY).await;
        }
        export.kill().await.ok();
        let written = recorded(&path);
        cut_off += usize::from((1..LETTERS).contains(&written));
        returned(&stage, LETTERS).await;
    }
    assert!(cut_off > 0, "the kills came too late to show anything");
    told(&stage, &args).await;
    let exported = super::count_requests(lines_of(&path).iter().map(body_of));
    let kept = requests_in(&stage, &stage.names.dead_letters).await;
    for id in &ids {
        let each = (exported.get(id), kept.get(id));
        assert_eq!(each, (Some(&1), Some(&1)), "lost or doubled");
    }
    strike(stage).await;
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_without_doubles() {
    let (stage, elsewhere) = (stage().await, stage().await);
    let ids = put_many(&stage, LETTERS).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let file = path.to_str().unwrap();
    told(&stage, &["export", file]).await;
    assert_eq!(lines_of(&path).len(), LETTERS);
    let queue = &elsewhere.names.dead_letters;
    for kill in 1..=KILLS {
        let mut import = start(&elsewhere, &["import", file, "--yes"]).await;
        let begun = Instant::now();
        while (elsewhere.raw.queue_length(queue).await as usize) < 100 * kill
            && import.try_wait().unwrap().is_none()
        {
            assert!(begun.elapsed() < PATIENCE, "it imports nothing");
            sleep(LOOK_EVERY).await;
        }
        import.kill().await.ok();
        // What it held for its look comes back first.
        settled(&elsewhere).await;
    }
    told(&elsewhere, &["import", file, "--yes"]).await;
    let kept = requests_in(&elsewhere, queue).await;
    assert!(
        ids.iter().all(|id| kept.get(id) == Some(&1)),
        "lost or doubled"
    );
    strike(stage).await;
    strike(elsewhere).await;
}

/// Waits until the queue's length is the same for a while.
async fn settled(stage: &Stage) {
    let queue = &stage.names.dead_letters;
    let mut last = u32::MAX;
    let mut same = 0;
    while same < 20 {
        let now = stage.raw.queue_length(queue).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        sleep(LOOK_EVERY).await;
    }
}
