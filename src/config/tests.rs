use super::*;

/// The mistakes name the file as `worker.toml`, wherever it lay.
fn load(toml: &str, env: &[(&str, &str)]) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.toml");
    std::fs::write(&path, toml).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let folder = format!("{}/", dir.path().display());
    Settings::load(Some(&path), env).map_err(|told| told.to_string().replace(&folder, ""))
}

#[test]
fn nothing_set_is_every_default() {
    let settings = Settings::default();
    assert_eq!(settings.api.base_url, "https://api.dintero.com/v1");
    assert_eq!(settings.consumer.concurrency.get(), 64);
    assert_eq!(settings.retry.initial_delay, Duration::from_millis(500));
    assert_eq!(settings.retry.ladder.steps().len(), 5);
    assert!(settings.api.credentials.is_none());
    assert!(settings.amqp.url.file().is_none());
}

#[test]
fn a_variable_overrides_the_file() {
    let toml = "[api]\ntimeout = \"2s\"\n[api.accounts.T12345678]\ntoken_file = \"/run/t\"";
    let settings = load(
        toml,
        &[
            ("RENAME_WORKER_API__TIMEOUT", "4s"),
            ("RENAME_WORKER_API__ACCOUNTS__P12345678__CLIENT_ID", "id"),
            (
                "RENAME_WORKER_API__ACCOUNTS__P12345678__CLIENT_SECRET",
                "12",
            ),
            ("RENAME_WORKER_API__REQUESTS_PER_SECOND", ""),
        ],
    )
    .unwrap();
    assert_eq!(settings.api.timeout, Duration::from_secs(4));
    let aids: Vec<&str> = settings
        .api
        .accounts
        .keys()
        .map(AccountId::as_str)
        .collect();
    assert_eq!(aids, ["P12345678", "T12345678"]);
    assert!(settings.api.requests_per_second.is_none());
}

#[test]
fn every_mistake_is_told_at_once_with_its_key_and_source() {
    let toml = r#"
concurrency = 5

[amqp]
url = "http://guest:hush-1@broker/"
prefix = "amq.rename"
client_cert_file = "/etc/tls.crt"
declare_topologie = false
decalre_topology = { a = 1 }

[api]
base_url = "http://api.example.com/v1?key=hush-2"
token = "hush-3"
token_file = "hush-4://"
client_id = "me"
timeout = 10
connect_timeout = "5 parsecs"
requests_per_second = 0
verify_user = "never"
prefix = "x"

[api.accounts.X1]
token = "hush-5"

[api.accounts.T12345678]
client_secret = "hush-6"
tokn = "hush-7"

[cosumer]
concurrency = 1

[consumer]
concurrency = "64"
drain_timeout = "11m"

[retry]
multiplier = 0.5
jitter = "hush-8, a secret that strayed"
max_delay = "1s"
initial_delay = "2s"
ladder = ["5s", "2s"]
max_attempts = 99999999999999999999

[hold]
failures = { a = 1 }

[admin]
listen = "localhost:9090"

[log]
level = "inof"
format = "xml"

[events]
source = "my worker"

[otlp]
endpoint = "grpc://collector:4317"
"#;
    let env = [
        ("RENAME_WORKER_API__CLIENT_SECRET_FILES", "hush-9"),
        ("RENAME_WORKER_LOG_LEVEL", "debug"),
        ("RENAME_WORKER_HOLD__FIRST_PROBE", "2h"),
        ("RENAME_WORKER_API_ACCOUNTS_T12345678_TOKEN", "hush-10"),
        ("RENAME_WORKER_AMQP__URL__X", "hush-11"),
        // Kubernetes' own, beside a service of that name; and what is not ours at all.
        ("RENAME_WORKER_SERVICE_HOST", "10.0.0.1"),
        ("RENAME_WORKER_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
        ("RENAME_WORKER_CONFIG", "worker.toml"),
        ("HOME", "/root"),
    ];
    let told = load(toml, &env).unwrap_err();
    assert!(!told.contains("hush"), "{told}");
    insta::assert_snapshot!(told);
}

#[test]
fn broken_toml_is_told_by_its_line_and_never_quoted() {
    let told = load(
        "[api]\ntoken = \"hush\nx = 1\n",
        &[("RENAME_WORKER_LOG__FORMAT", "xml")],
    );
    insta::assert_snapshot!(told.unwrap_err());
    let told = load("[api]\ntimeout = \"1s\"\ntimeout = \"hush\"", &[]);
    insta::assert_snapshot!(told.unwrap_err());
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let told = Settings::load(Some(Path::new("/nowhere/worker.toml")), std::iter::empty());
    let told = told.unwrap_err().to_string();
    assert!(
        told.contains("--config (/nowhere/worker.toml): cannot be read"),
        "{told}"
    );
}

#[test]
fn a_secret_s_file_takes_the_place_of_its_default() {
    let env = [
        ("RENAME_WORKER_AMQP__URL_FILE", "/run/secrets/amqp"),
        ("RENAME_WORKER_API__CLIENT_ID", "me"),
        (
            "RENAME_WORKER_API__CLIENT_SECRET_FILE",
            "/run/secrets/client",
        ),
    ];
    let settings = load("", &env).unwrap();
    assert_eq!(
        settings.amqp.url.file(),
        Some(Path::new("/run/secrets/amqp"))
    );
    let Some(Credentials::Client { id, secret }) = settings.api.credentials else {
        panic!("no client");
    };
    assert_eq!(id, "me");
    assert_eq!(secret.file(), Some(Path::new("/run/secrets/client")));
}

#[test]
fn plain_http_is_for_this_machine_only() {
    for url in [
        "https://api.example.com/v1/",
        "http://localhost:8080",
        "http://127.1.2.3/v1",
        "http://[::1]:80/v1",
    ] {
        let settings = load(&format!("[api]\nbase_url = \"{url}\""), &[]).unwrap();
        assert!(!settings.api.base_url.ends_with('/'), "{url}");
    }
    for url in [
        "http://api.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
    ] {
        let toml = format!("[api]\nbase_url = \"{url}\"");
        assert!(
            load(&toml, &[]).unwrap_err().contains("plain http"),
            "{url}"
        );
        let allowed = load(&toml, &[("RENAME_WORKER_API__ALLOW_INSECURE", "true")]);
        assert!(allowed.is_ok(), "{url}");
    }
}

#[test]
fn a_bound_that_is_lowered_takes_defaults_along() {
    let toml =
        "[api]\ntimeout = \"1s\"\n[retry]\nmax_delay = \"100ms\"\n[hold]\nmax_probe = \"50ms\"";
    let settings = load(toml, &[]).unwrap();
    assert_eq!(settings.api.connect_timeout, Duration::from_secs(1));
    assert_eq!(settings.retry.initial_delay, Duration::from_millis(100));
    assert_eq!(settings.hold.first_probe, Duration::from_millis(50));
}

#[test]
fn an_amqp_url_is_checked_without_being_shown() {
    for (url, fits) in [
        ("amqp://localhost", true),
        ("amqps://u:p@broker:5671/vhost?heartbeat=10", true),
        ("amqp://u:p@broker/%2f", true),
        ("AMQP://broker", true),
        ("amqp://broker/a/b", false),
        ("amqp:///x", false),
        ("broker:5672", false),
        ("hush", false),
        ("https://hush@broker", false),
    ] {
        let loaded = load(&format!("[amqp]\nurl = \"{url}\""), &[]);
        assert_eq!(loaded.is_ok(), fits, "{url}");
        if let Err(mistakes) = loaded {
            assert!(!mistakes.contains("hush"));
        }
    }
}

#[test]
fn nothing_shows_a_secret() {
    let env = [
        ("RENAME_WORKER_AMQP__URL", "amqp://guest:hush@broker"),
        ("RENAME_WORKER_API__TOKEN", "hush"),
        ("RENAME_WORKER_API__ACCOUNTS__P12345678__CLIENT_ID", "me"),
        (
            "RENAME_WORKER_API__ACCOUNTS__P12345678__CLIENT_SECRET",
            "hush",
        ),
    ];
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let (settings, effective) = Settings::explain(None, env).unwrap();
    assert!(!format!("{settings:?}{effective:?}{:?}", settings.notes()).contains("hush"));
}

#[test]
fn notes_tell_what_is_not_there_yet() {
    assert_eq!(
        Settings::default().notes(),
        ["api: no credentials are set, so requests will wait for them"]
    );
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("url");
    std::fs::write(&url, "hush\n").unwrap();
    let toml = format!(
        "[amqp]\nurl_file = {url:?}\n[api]\ntoken_file = \"/nowhere\"\nca_file = \"/nowhere\""
    );
    let notes = load(&toml, &[]).unwrap().notes().join("\n");
    for part in [
        "holds is no URL",
        "api.ca_file: cannot open /nowhere",
        "api.token_file: cannot read the secret in /nowhere",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
    assert!(!notes.contains("hush"));
}
