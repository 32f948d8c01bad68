//! The sandbox as its callers meet it: over HTTP, with the client that the worker uses.

use jiff::Timestamp;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::*;

const ACCOUNT: &str = "T12345678";
const TOKEN: &str = "a-fixed-token";

/// A sandbox with ola and kari, and a client that has a token for it.
struct SandboxFixture {
    sandbox: Sandbox,
    http: reqwest::Client,
}

impl SandboxFixture {
    async fn start() -> Self {
        Self::with(SandboxOptions::default()).await
    }

    async fn with(mut options: SandboxOptions) -> Self {
        options.users.extend(["ola", "kari"].map(seed));
        options.tokens.push(TOKEN.into());
        // Loopback needs no certificates, but the client asks for a provider all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            sandbox: Sandbox::start(options).await.unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn faults(&self, texts: &[&str]) {
        let faults = texts.iter().map(|text| text.parse().unwrap());
        self.sandbox.set_faults(faults).await;
    }

    fn path(&self, username: &str) -> String {
        let segment = utf8_percent_encode(username, NON_ALPHANUMERIC);
        let base = self.sandbox.base_url();
        format!("{base}/accounts/{ACCOUNT}/auth/users/{segment}/change_username")
    }

    async fn try_rename(&self, from: &str, to: &str) -> reqwest::Result<Response> {
        let call = self.http.post(self.path(from)).bearer_auth(TOKEN);
        call.json(&json!({ "username": to })).send().await
    }

    async fn rename(&self, from: &str, to: &str) -> (u16, Value) {
        told(self.try_rename(from, to).await.unwrap()).await
    }

    async fn get_token(&self, id: &str, secret: &str) -> (u16, Value) {
        let url = format!("{}/accounts/{ACCOUNT}/auth/token", self.sandbox.base_url());
        let grant = json!({
            "grant_type": "client_credentials",
            "audience": format!("https://api.dintero.com/v1/accounts/{ACCOUNT}"),
        });
        let call = self
            .http
            .post(url)
            .basic_auth(id, Some(secret))
            .json(&grant);
        told(call.send().await.unwrap()).await
    }

    /// The renames in the ledger, in order.
    fn applied(&self) -> Vec<(String, String)> {
        let pair = |entry: LedgerEntry| (entry.from.into(), entry.to.into());
        self.sandbox.ledger().into_iter().map(pair).collect()
    }
}

fn seed(username: &str) -> NewUser {
    NewUser {
        account_id: AccountId::parse(ACCOUNT).unwrap(),
        username: username.into(),
        id: None,
    }
}

async fn told(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[tokio::test]
async fn a_rename_answers_the_documented_user() {
    let stage = SandboxFixture::start().await;
    let (status, mut user) = stage.rename("ola", "nils").await;
    assert_eq!(status, 200);
    for field in ["created_at", "updated_at"] {
        let at = user[field].take();
        at.as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    insta::assert_json_snapshot!(user);
    assert_eq!(stage.applied(), [pair("ola", "nils")]);
}

#[tokio::test]
async fn a_bare_user_is_a_name_and_nothing_else() {
    let bare_users = true;
    let stage = SandboxFixture::with(SandboxOptions {
        bare_users,
        ..SandboxOptions::default()
    })
    .await;
    let answer = stage.rename("ola", "nils").await;
    assert_eq!(answer, (200, json!({ "username": "nils" })));
}

#[tokio::test]
async fn unknown_and_taken_names_are_refused_and_a_self_rename_changes_nothing() {
    let stage = SandboxFixture::start().await;
    for (from, to, status, code) in [
        ("nobody", "nils", 404, json!("user_not_found")),
        ("nobody", "nobody", 404, json!("user_not_found")),
        ("ola", "kari", 409, json!("username_taken")),
        ("ola", "ola", 200, Value::Null),
    ] {
        let (told, body) = stage.rename(from, to).await;
        assert_eq!(
            (told, &body["error"]["code"]),
            (status, &code),
            "{from} to {to}"
        );
    }
    assert_eq!(stage.applied(), []);
    let calls = stage.sandbox.calls();
    assert_eq!(calls.status(SandboxCallKind::Confirm, 200), 1);
    assert_eq!(calls.status(SandboxCallKind::Confirm, 404), 1);
    assert_eq!(calls.of(SandboxCallKind::Rename), 2);
}

#[tokio::test]
async fn what_is_no_valid_request_is_refused_and_told_why() {
    let stage = SandboxFixture::start().await;
    let base = stage.sandbox.base_url();
    let account = |id: &str| format!("{base}/accounts/{id}/auth/users/ola/change_username");
    let long = "x".repeat(256);
    let mut shown = Vec::new();
    for (url, body) in [
        (account("X12345678"), r#"{"username":"nils"}"#.to_owned()),
        (account("T1234567"), r#"{"username":"nils"}"#.to_owned()),
        (stage.path("ola"), "nils".to_owned()),
        (stage.path("ola"), r#"{"name":"nils"}"#.to_owned()),
        (stage.path("ola"), r#"{"username":7}"#.to_owned()),
        (stage.path("ola"), r#"{"username":""}"#.to_owned()),
        (stage.path("ola"), json!({ "username": long }).to_string()),
        (stage.path("ola"), "x".repeat(100_000)),
        (stage.path(&long), r#"{"username":"nils"}"#.to_owned()),
    ] {
        let call = stage.http.post(url).bearer_auth(TOKEN).body(body);
        let (status, body) = told(call.send().await.unwrap()).await;
        let (code, why) = (&body["error"]["code"], &body["error"]["errors"][0]);
        shown.push(format!("{status} {code}: {why}"));
    }
    insta::assert_snapshot!(shown.join("\n"));
    assert_eq!(stage.applied(), []);
}

#[tokio::test]
async fn other_paths_and_methods_are_not_there() {
    let stage = SandboxFixture::start().await;
    let base = stage.sandbox.base_url();
    for (path, get, post) in [
        ("/accounts/T12345678/auth/users/ola", 404, 404),
        (
            "/accounts/T12345678/auth/users/ola/change_username",
            405,
            401,
        ),
        ("/accounts/T12345678/auth/token", 405, 401),
        (
            "/accounts/T12345678/auth/users/%FF/change_username",
            405,
            400,
        ),
    ] {
        let url = format!("{base}{path}");
        let got = stage.http.get(&url).send().await.unwrap().status();
        let posted = stage.http.post(&url).send().await.unwrap().status();
        assert_eq!((got.as_u16(), posted.as_u16()), (get, post), "{path}");
    }
}

#[tokio::test]
async fn get_token_gives_a_token_that_works_until_it_is_expired() {
    let stage = SandboxFixture::start().await;
    let (status, token) = stage.get_token(CLIENT_ID, CLIENT_SECRET).await;
    assert_eq!((status, &token["expires_in"]), (200, &json!(86_400)));
    let rename = async |from: &str, to: &str| {
        let token = token["access_token"].as_str().unwrap();
        let call = stage.http.post(stage.path(from)).bearer_auth(token);
        let call = call.json(&json!({ "username": to }));
        call.send().await.unwrap().status()
    };
    assert_eq!(rename("ola", "nils").await, StatusCode::OK);
    assert_eq!(stage.sandbox.expire_tokens(), 1);
    assert_eq!(rename("nils", "ola").await, StatusCode::UNAUTHORIZED);
    assert_eq!(stage.get_token(CLIENT_ID, "wrong").await.0, 401);
    assert_eq!(stage.get_token("nobody", CLIENT_SECRET).await.0, 401);
}

#[tokio::test]
async fn without_a_good_token_nothing_is_done() {
    let stage = SandboxFixture::start().await;
    let body = json!({ "username": "nils" });
    let call = || stage.http.post(stage.path("ola")).json(&body);
    for call in [
        call(),
        call().bearer_auth("wrong"),
        call().basic_auth("ola", Some(TOKEN)),
    ] {
        assert_eq!(
            call.send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(stage.applied(), []);
}

#[tokio::test]
async fn a_status_fault_answers_in_the_place_of_the_api() {
    let stage = SandboxFixture::start().await;
    stage
        .faults(&[
            "503=x1",
            "429=x1,retry-after=7",
            "408=x1,body=empty",
            "502=x1,body=html,applied",
        ])
        .await;
    let mut told = Vec::new();
    for _ in 0..5 {
        let answer = stage.try_rename("ola", "nils").await.unwrap();
        let retry_after = answer.headers().get("retry-after").cloned();
        told.push((
            answer.status().as_u16(),
            retry_after.map(|value| value.len()),
        ));
    }
    let expected = [
        (503, None),
        (429, Some(1)),
        (408, None),
        (502, None),
        (404, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        stage.applied(),
        [pair("ola", "nils")],
        "the 502 was applied"
    );
}

#[tokio::test]
async fn retry_after_can_be_a_date() {
    let stage = SandboxFixture::start().await;
    stage.faults(&["429,retry-date=90"]).await;
    let answer = stage.try_rename("ola", "nils").await.unwrap();
    let date = answer.headers()["retry-after"].to_str().unwrap();
    let date = Timestamp::try_from(httpdate::parse_http_date(date).unwrap()).unwrap();
    let ahead = date.duration_since(crate::clock::now()).as_secs();
    assert!((80..=90).contains(&ahead), "{ahead} s");
}

#[tokio::test]
async fn a_broken_connection_is_seen_as_one_whether_or_not_the_rename_was_applied() {
    let stage = SandboxFixture::start().await;
    for (fault, from, to, applied) in [
        ("reset=x1", "ola", "nils", 0),
        ("lost=x1", "ola", "nils", 1),
        ("cut=x1", "kari", "k", 1),
        ("cut=x1,applied", "kari", "k", 2),
    ] {
        stage.faults(&[fault]).await;
        let answer = match stage.try_rename(from, to).await {
            Ok(answer) => answer.bytes().await.map(|_| ()),
            Err(lost) => Err(lost),
        };
        let lost = answer.unwrap_err();
        assert!(
            !lost.is_connect() && !lost.is_timeout(),
            "{fault}: {lost:?}"
        );
        assert_eq!(stage.applied().len(), applied, "{fault}");
    }
    assert_eq!(
        stage
            .sandbox
            .calls()
            .count_of(SandboxCallKind::Rename, CallOutcome::Reset),
        4
    );
    assert_eq!(
        stage.rename("nils", "ola").await.0,
        200,
        "the next call is served"
    );
}

#[tokio::test]
async fn silence_lasts_and_then_breaks_the_connection() {
    let stage = SandboxFixture::start().await;
    stage.faults(&["late=x1,for=20ms"]).await;
    stage.try_rename("ola", "nils").await.unwrap_err();
    assert_eq!(stage.applied(), [pair("ola", "nils")]);
    assert_eq!(
        stage
            .sandbox
            .calls()
            .count_of(SandboxCallKind::Rename, CallOutcome::Silence),
        1
    );
}

#[tokio::test]
async fn garbage_is_a_200_that_is_no_user_of_the_wanted_name() {
    let stage = SandboxFixture::start().await;
    for (fault, least) in [
        ("garbage", 1),
        ("truncated", 1),
        ("other-name", 1),
        ("flood", 1 << 20),
    ] {
        stage.faults(&[fault]).await;
        let answer = stage.try_rename("ola", "nils").await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.bytes().await.unwrap();
        assert!(body.len() >= least, "{fault}");
        let name = serde_json::from_slice::<Value>(&body).map(|user| user["username"].clone());
        assert_ne!(name.ok(), Some(json!("nils")), "{fault}");
    }
    assert_eq!(stage.applied(), []);
}

#[tokio::test]
async fn an_expired_token_stays_expired_and_a_fixed_one_is_struck_once() {
    let stage = SandboxFixture::start().await;
    let (_, token) = stage.get_token(CLIENT_ID, CLIENT_SECRET).await;
    for (token, statuses) in [
        (token["access_token"].as_str().unwrap(), [401, 401]),
        (TOKEN, [401, 200]),
    ] {
        stage.faults(&["expired=x1"]).await;
        for status in statuses {
            let call = stage.http.post(stage.path("ola")).bearer_auth(token);
            let answer = call
                .json(&json!({ "username": "ola" }))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status().as_u16(), status);
        }
    }
}

#[tokio::test]
async fn a_gate_holds_calls_until_the_faults_are_changed() {
    let stage = SandboxFixture::start().await;
    stage.faults(&["gate"]).await;
    let held = async { tokio::join!(stage.rename("ola", "nils"), stage.rename("kari", "k")) };
    let opened = async {
        stage
            .sandbox
            .calls_until(|calls| calls.in_flight == 2)
            .await;
        assert_eq!(stage.applied(), []);
        stage.faults(&[]).await;
    };
    let ((ola, kari), ()) = tokio::join!(held, opened);
    assert_eq!((ola.0, kari.0, stage.applied().len()), (200, 200, 2));
}

#[tokio::test]
async fn a_caller_that_goes_away_is_counted_and_its_rename_not_applied() {
    let stage = SandboxFixture::start().await;
    stage.faults(&["gate"]).await;
    tokio::select! {
        _ = stage.rename("ola", "nils") => panic!("the gate is closed"),
        _ = stage.sandbox.calls_until(|calls| calls.in_flight == 1) => {}
    }
    let gone =
        |calls: &CallLog| calls.count_of(SandboxCallKind::Rename, CallOutcome::Abandoned) == 1;
    stage.sandbox.calls_until(gone).await;
    assert_eq!(stage.applied(), []);
}

#[tokio::test]
async fn while_refusing_no_connection_is_made_and_the_port_stays_ours() {
    let stage = SandboxFixture::start().await;
    assert_eq!(stage.rename("ola", "nils").await.0, 200);
    stage.faults(&["refuse"]).await;
    for _ in 0..3 {
        let refused = stage.try_rename("kari", "k").await.unwrap_err();
        assert!(refused.is_connect(), "{refused:?}");
    }
    let faults = format!("{}/faults", stage.sandbox.control_url());
    let answer = stage.http.put(faults).body("[]").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(stage.rename("kari", "k").await.0, 200);
}

#[tokio::test]
async fn an_outage_takes_get_token_too() {
    let stage = SandboxFixture::start().await;
    stage.faults(&["outage"]).await;
    assert_eq!(stage.rename("ola", "nils").await.0, 503);
    assert_eq!(stage.get_token(CLIENT_ID, CLIENT_SECRET).await.0, 503);
}

#[tokio::test]
async fn the_paths_under_sandbox_tell_and_set_what_the_handle_does() {
    let stage = SandboxFixture::start().await;
    let url = |path: &str| format!("{}{path}", stage.sandbox.control_url());
    let seeds = "{\"account_id\":\"P00000001\",\"username\":\"per\"}\n\n{\"account_id\":\"P00000001\",\"username\":\"pål\",\"id\":\"3c90c3cc-0d44-4b50-8888-8dd25736052a\"}";
    let send =
        async |call: reqwest::RequestBuilder| call.send().await.unwrap().text().await.unwrap();
    let mut shown = vec![
        send(stage.http.post(url("/users")).body(seeds)).await,
        send(
            stage
                .http
                .post(url("/users"))
                .body(r#"{"account_id":"P1","username":"per"}"#),
        )
        .await,
        send(
            stage
                .http
                .post(url("/users"))
                .body(r#"{"account_id":"P00000001","username":""}"#),
        )
        .await,
        send(
            stage
                .http
                .put(url("/faults"))
                .body(r#"["503=x1", "lost,on=confirm"]"#),
        )
        .await,
        send(stage.http.put(url("/faults")).body(r#"["503=2"]"#)).await,
    ];
    stage.rename("ola", "nils").await;
    stage.rename("ola", "nils").await;
    stage.rename("nils", "ola").await;
    shown.push(send(stage.http.get(url("/faults"))).await);
    shown.push(send(stage.http.get(url("/calls"))).await);
    shown.push(send(stage.http.post(url("/tokens/expire"))).await);
    insta::assert_snapshot!(shown.join("\n"));
    let ledger = send(stage.http.get(url("/ledger?after=1"))).await;
    let entry: LedgerEntry = serde_json::from_str(&ledger).unwrap();
    assert_eq!(entry, stage.sandbox.ledger()[1]);
    assert_eq!(send(stage.http.get(url("/users"))).await.lines().count(), 4);
    let endpoint = stage.sandbox.base_url().replace("/v1", "/_sandbox/faults");
    let refuse = stage
        .http
        .put(endpoint)
        .body(r#"["refuse"]"#)
        .send()
        .await
        .unwrap();
    assert_eq!(refuse.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let options = SandboxOptions {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..SandboxOptions::default()
    };
    let refused = Sandbox::start(options).await.unwrap_err();
    assert!(
        matches!(refused, SandboxStartError::NotLoopback(_)),
        "{refused}"
    );
}

#[tokio::test]
async fn shutting_down_lets_calls_under_way_end_and_breaks_off_those_that_do_not() {
    let stage = SandboxFixture::start().await;
    stage
        .faults(&["timeout,prefix=kari", "slow,prefix=ola,delay=50ms"])
        .await;
    let SandboxFixture { sandbox, http } = stage;
    let base = sandbox.base_url().to_owned();
    let rename = async |from: &str| {
        let url = format!("{base}/accounts/{ACCOUNT}/auth/users/{from}/change_username");
        let call = http.post(url).bearer_auth(TOKEN);
        call.json(&json!({ "username": "new" })).send().await
    };
    let close = async {
        let begun = |calls: &CallLog| {
            calls.in_flight == 1
                && calls.count_of(SandboxCallKind::Rename, CallOutcome::Silence) == 1
        };
        sandbox.calls_until(begun).await;
        sandbox.shutdown().await;
    };
    let (ola, kari, ()) = tokio::join!(rename("ola"), rename("kari"), close);
    assert_eq!(ola.unwrap().status(), StatusCode::OK);
    kari.unwrap_err();
    assert!(rename("ola").await.unwrap_err().is_connect());
}

#[test]
fn a_latency_is_a_time_or_two() {
    let ms = Duration::from_millis;
    for (text, latency) in [
        ("20ms", Ok((ms(20), ms(20)))),
        ("20ms-80ms", Ok((ms(20), ms(80)))),
        ("80ms - 20ms", Err(BadLatency)),
        ("soon", Err(BadLatency)),
    ] {
        let latency = latency.map(|(least, most)| LatencyRange { least, most });
        assert_eq!(text.parse::<LatencyRange>(), latency, "{text}");
    }
}

#[test]
fn any_username_can_be_renamed_to_any_other_through_real_http() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stage = runtime.block_on(SandboxFixture::start());
    let name = any::<String>().prop_filter("no path carries it", |name| {
        !matches!(&**name, "" | "." | "..") && name.chars().count() <= 255
    });
    proptest!(ProptestConfig::with_cases(128), |(from in name.clone(), to in name)| {
        let id = stage.sandbox.seed([seed(&from)])[0].id;
        let (status, user) = runtime.block_on(stage.rename(&from, &to));
        let account = AccountId::parse(ACCOUNT).unwrap();
        if status == 200 {
            prop_assert_eq!(&user["username"], &json!(to));
            prop_assert_eq!(stage.sandbox.user(&account, &to).map(|user| user.id), Some(id));
        } else {
            prop_assert_eq!(status, 409, "from and to were both there");
            prop_assert!(stage.sandbox.user(&account, &to).is_some());
        }
    });
}
