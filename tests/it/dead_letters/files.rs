//! What a review writes to the disk: only its owner may read it, and nothing of an edit stays.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::{NAME, command, done, put_many, run, stage, strike, text};
use crate::support::stage::{PATIENCE, Stage};

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    metadata.permissions().mode() & 0o777
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn every_file_that_holds_names_is_its_owner_s_alone_and_no_link_is_followed() {
    let stage = stage().await;
    put_many(&stage, 6).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let discard = |audit: &str| {
        let args = [
            "discard",
            "--all",
            "--limit",
            "1",
            "--because",
            "x",
            "--audit",
        ];
        [&args[..], &[audit]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let discard_to = async |audit: &str| {
        let args = discard(audit);
        run(&stage, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let (export, audit) = (path("export"), path("audit"));
    done(&stage, &["export", &export]).await;
    assert_eq!(discard_to(&audit).await.status.code(), Some(0));
    done(&stage, &["import", &export]).await;
    for file in [&export, &audit, &format!("{export}.progress")] {
        assert_eq!(mode(Path::new(file)), 0o600, "{file}");
    }
    // Files that were there, for everybody to read.
    for name in [&audit, &export] {
        std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o644)).unwrap();
        let output = if *name == audit {
            discard_to(name).await
        } else {
            run(&stage, &["export", "--resume", name]).await
        };
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stderr).contains("could be read by others (mode 0644)"));
        assert_eq!(mode(Path::new(name)), 0o600, "{name}");
    }
    // Links, to what is precious and to nowhere.
    let (precious, link, dangling) = (path("precious"), path("link"), path("dangling"));
    std::fs::write(&precious, "precious").unwrap();
    symlink(&precious, &link).unwrap();
    symlink(path("nowhere"), &dangling).unwrap();
    for link in [&link, &dangling] {
        for output in [
            discard_to(link).await,
            run(&stage, &["export", link]).await,
            run(&stage, &["export", "--resume", link]).await,
        ] {
            assert_ne!(output.status.code(), Some(0), "{output:?}");
        }
    }
    symlink(&precious, format!("{export}.progress.new")).unwrap();
    std::fs::remove_file(format!("{export}.progress")).unwrap();
    done(&stage, &["import", &export]).await;
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!Path::new(&path("nowhere")).exists());
    strike(stage).await;
}

/// A replay whose editor is this script; the folder it edits in is made in `temporary`.
async fn edit(stage: &Stage, temporary: &Path, script: &str) -> Command {
    let editor = temporary.with_extension("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = command(&stage.settings, &["replay", "--all", "--edit"]).await;
    command
        .env("EDITOR", &editor)
        .env("TMPDIR", temporary)
        .process_group(0);
    command
}

#[tokio::test]
async fn nothing_of_an_edit_stays_however_it_ends() {
    let stage = stage().await;
    put_many(&stage, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    // An editor that keeps a backup.
    let script = "cp \"$1\" \"$1~\"; chmod 644 \"$1~\"";
    let output = edit(&stage, &temporary, script)
        .await
        .output()
        .await
        .unwrap();
    assert!(text(&output.stderr).contains("is left out"), "{output:?}");
    assert!(entries(&temporary).is_empty());
    // One that is open when somebody wants the end: the whole group, as a terminal does, or us alone.
    for (signal, whom) in [
        ("INT", "-"),
        ("TERM", "-"),
        ("HUP", "-"),
        ("TERM", ""),
        ("HUP", ""),
    ] {
        let mut child = edit(&stage, &temporary, "exec sleep 60")
            .await
            .spawn()
            .unwrap();
        let process = child.id().unwrap();
        let file = edited(&temporary).await;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        assert!(std::fs::read_to_string(&file).unwrap().contains(NAME));
        let kill = format!("kill -s {signal} -- {whom}{process}");
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .await
                .unwrap()
                .success()
        );
        let ended = timeout(PATIENCE, child.wait())
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(ended.code(), Some(1), "{signal}");
        assert!(entries(&temporary).is_empty(), "{signal}");
    }
    // What cannot be helped when it is killed, the next one does.
    let mut child = edit(&stage, &temporary, "exec sleep 60")
        .await
        .spawn()
        .unwrap();
    let process = child.id().unwrap();
    edited(&temporary).await;
    let kill = format!("kill -s KILL -- -{process}");
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .await
            .unwrap()
            .success()
    );
    child.wait().await.unwrap();
    assert_eq!(entries(&temporary).len(), 1);
    edit(&stage, &temporary, "true")
        .await
        .output()
        .await
        .unwrap();
    assert!(entries(&temporary).is_empty());
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 1);
    strike(stage).await;
}

/// Waits for the file that is edited.
async fn edited(temporary: &Path) -> std::path::PathBuf {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no editor was started");
        let file = entries(temporary)
            .pop()
            .map(|folder| folder.join("request.json"));
        let whole = |file: &std::path::PathBuf| {
            std::fs::read_to_string(file).is_ok_and(|text| text.ends_with("}\n"))
        };
        if let Some(file) = file.filter(whole) {
            // The editor starts when the file is whole; it has to be there to be ended.
            sleep(Duration::from_millis(200)).await;
            return file;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
