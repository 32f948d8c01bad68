//! `sandbox` as a process: it says where it serves, serves there, and ends when told to.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

fn sandbox(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
    command
        .arg("sandbox")
        .args(args)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn it_says_where_it_serves_and_ends_in_peace_when_told_to() {
    // Nothing here is encrypted, but the client asks for a provider all the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--token",
        "t",
        "--user",
        "T12345678:a/b=3c90c3cc-0d44-4b50-8888-8dd25736052a",
        "--fault",
        "503=x1",
        "--json",
    ];
    for signal in ["TERM", "INT"] {
        let mut child = sandbox(&flags).spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).await.unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(
            (&ready["users"], &ready["faults"]),
            (&json!(1), &json!(["503=x1"]))
        );

        let base = ready["base_url"].as_str().unwrap();
        let url = format!("{base}/accounts/T12345678/auth/users/a%2Fb/change_username");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let rename = async || {
            let call = http
                .post(&url)
                .bearer_auth("t")
                .json(&json!({ "username": "c" }));
            call.send().await.unwrap()
        };
        assert_eq!(rename().await.status().as_u16(), 503);
        let user: Value = rename().await.json().await.unwrap();
        assert_eq!(user["id"], json!("3c90c3cc-0d44-4b50-8888-8dd25736052a"));
        let ledger = format!("{}/ledger", ready["control_url"].as_str().unwrap());
        let ledger = http.get(ledger).send().await.unwrap().text().await.unwrap();
        let entry: Value = serde_json::from_str(&ledger).unwrap();
        assert_eq!((&entry["from"], &entry["to"]), (&json!("a/b"), &json!("c")));

        let id = child.id().unwrap().to_string();
        let killed = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .await;
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "SIG{signal}");
        let mut told = String::new();
        child
            .stderr
            .unwrap()
            .read_to_string(&mut told)
            .await
            .unwrap();
        assert_eq!(
            told,
            "the sandbox has ended: 2 calls, 1 renames took effect\n"
        );
    }
}

#[tokio::test]
async fn it_stays_on_this_machine() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let output = sandbox(&["--listen", address]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("not a loopback address"), "{told}");
    }
}
