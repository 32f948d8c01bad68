use secrecy::ExposeSecret as _;

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
account_share = 0
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
    // Where a quote ends early, what was to be a secret is read as names.
    let told = load("[api]\ntoken = \"x\"\nhush4 = 1\n[hush5]\n", &[]).unwrap_err();
    assert!(told.contains("line 3 (worker.toml): is no key"), "{told}");
    assert!(
        told.contains("line 4 (worker.toml): is no section"),
        "{told}"
    );
    assert!(!told.contains("hush"), "{told}");
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
    let Some(CredentialsSection::Client { id, secret }) = settings.api.credentials else {
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
        "http://api.localhost",
        "http://127.evil.com",
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
fn the_share_of_an_account_is_more_than_nothing_and_at_most_everything() {
    for (share, fits) in [
        ("0.01", true),
        ("0.5", true),
        ("1", true),
        ("1.0", true),
        ("0", false),
        ("0.009", false),
        ("1.01", false),
        ("-0.5", false),
        ("nan", false),
        ("inf", false),
        ("\"half\"", false),
    ] {
        let loaded = load(&format!("[consumer]\naccount_share = {share}"), &[]);
        assert_eq!(loaded.is_ok(), fits, "{share}");
        if let Err(mistakes) = loaded {
            let range = "say a number from 0.01 to 1";
            assert!(mistakes.contains("consumer.account_share"), "{mistakes}");
            assert!(mistakes.contains(range), "{mistakes}");
        }
    }
}

#[test]
fn an_amqp_url_is_checked_without_being_shown() {
    for (url, fits) in [
        ("amqp://localhost", true),
        ("amqps://u:p@broker:5671/vhost?heartbeat=10", true),
        ("amqp://u:p@broker/%2f", true),
        ("AMQP://broker", true),
        ("amqp://u:hush@broker/", false),
        ("amqp://u:hush@broker/%ff", false),
        ("amqp://u:hush@broker?heartbeat=30s", false),
        ("amqp://u:1/hush@broker", false),
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
    assert!(!format!("{settings:?}{effective:?}{:?}", settings.warnings()).contains("hush"));
}

fn check(toml: &str, env: &[(&str, &str)]) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.toml");
    std::fs::write(&path, toml).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    Settings::check(Some(&path), env)
        .map(|(settings, _)| settings)
        .map_err(|mistakes| mistakes.to_string())
}

#[test]
fn a_check_reads_every_file_that_the_run_would_and_reports_all_that_it_could_not_use() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["mq".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let broken = format!(
        "[amqp]\nurl = \"amqps://mq.example.com\"\nca_file = {:?}\nclient_cert_file = {:?}\n\
         client_key_file = {:?}\n[api]\nca_file = \"/nowhere\"\ntoken_file = {:?}\n\
         timeout = \"soon\"\n\
         [api.accounts.T12345678]\nclient_id = \"me\"\nclient_secret_file = {:?}\n",
        file("ca", "hush"),
        file("cert", &cert),
        file("key", &other_key),
        file("token", "hush hush"),
        file("secret", ""),
    );
    let mistakes = check(&broken, &[]).unwrap_err();
    for part in [
        "amqp.ca_file (",
        "holds no PEM certificate",
        "amqp.client_key_file (",
        "is not the key of the certificate",
        "api.ca_file (",
        "cannot be read: No such file",
        "api.timeout (",
        "api.token_file (",
        "what it holds holds a space",
        "api.accounts.T12345678.client_secret_file (",
        "is empty",
    ] {
        assert!(mistakes.contains(part), "{part}: {mistakes}");
    }
    assert!(mistakes.starts_with("6 mistakes"), "{mistakes}");
    assert!(!mistakes.contains("hush"), "{mistakes}");

    let url = file("url", "amqp://u:hush@mq.example.com/\n");
    let mistakes = check(
        &format!("[amqp]\nurl_file = {url:?}\nca_file = {url:?}"),
        &[],
    );
    let mistakes = mistakes.unwrap_err();
    assert!(mistakes.contains("amqp.url_file ("), "{mistakes}");
    assert!(mistakes.contains("names no virtual host"), "{mistakes}");
    assert!(!mistakes.contains("hush"), "{mistakes}");

    let usable = format!(
        "\u{feff}[amqp]\nurl_file = {:?}\nca_file = {:?}\nclient_cert_file = {:?}\n\
         client_key_file = {:?}\n[api]\ntoken_file = {:?}\nca_file = {:?}\n",
        file("url", "\u{feff}amqps://u:hush@mq.example.com/%2f\n"),
        file("ca", &format!("\u{feff}{cert}")),
        file("cert", &cert),
        file("key", &key.serialize_pem()),
        file("token", "hush\n"),
        file("api-ca", &cert),
    );
    check(&usable, &[]).unwrap();
}

#[test]
fn the_line_end_of_a_variable_is_left_out_whatever_the_key() {
    let env = [
        ("RENAME_WORKER_AMQP__URL", "amqp://u:p@mq/v\n"),
        ("RENAME_WORKER_API__CLIENT_ID", "me\n"),
        ("RENAME_WORKER_API__CLIENT_SECRET", "hush\r\n"),
        ("RENAME_WORKER_API__TIMEOUT", "4s\n"),
        ("RENAME_WORKER_API__ALLOW_INSECURE", "true\n"),
        (
            "RENAME_WORKER_API__BASE_URL",
            "https://api.example.com/v1\n",
        ),
        ("RENAME_WORKER_API__REQUESTS_PER_SECOND", "7\n"),
        ("RENAME_WORKER_API__VERIFY_USER", "after\n"),
        ("RENAME_WORKER_RETRY__LADDER", "5s,30s\n"),
        ("RENAME_WORKER_RETRY__MULTIPLIER", "3\n"),
        ("RENAME_WORKER_CONSUMER__ACCOUNT_SHARE", "0.25\n"),
        ("RENAME_WORKER_ADMIN__LISTEN", "0.0.0.0:9090\n"),
        ("RENAME_WORKER_LOG__LEVEL", "debug\n"),
        ("RENAME_WORKER_API__PROXY", "http://proxy:3128\n"),
        ("RENAME_WORKER_EVENTS__SOURCE", "/here\n"),
    ];
    let settings = load("", &env).unwrap();
    let secret = |secret: &Secret| secret.read().unwrap().expose_secret().to_owned();
    assert_eq!(secret(&settings.amqp.url), "amqp://u:p@mq/v");
    let Some(CredentialsSection::Client { id, secret: given }) = &settings.api.credentials else {
        panic!("no client");
    };
    assert_eq!((id.as_str(), secret(given).as_str()), ("me", "hush"));
    assert_eq!(settings.events.source, "/here");
    assert_eq!(settings.retry.ladder.steps().len(), 2);
    assert!((settings.consumer.account_share - 0.25).abs() < f64::EPSILON);
    assert!(settings.api.proxy.is_some());
}

#[test]
fn a_secret_that_cannot_be_sent_is_a_mistake_that_shows_nothing_of_it() {
    for (variable, value) in [
        ("RENAME_WORKER_API__TOKEN", "hush\nhush"),
        ("RENAME_WORKER_API__TOKEN", "Bearer hush"),
        ("RENAME_WORKER_API__CLIENT_SECRET", "hush\thush"),
        ("RENAME_WORKER_API__CLIENT_ID", "hush:hush"),
        ("RENAME_WORKER_AMQP__CLIENT_KEY_FILE", "-----BEGIN hush"),
        ("RENAME_WORKER_AMQP__CA_FILE", "hush\nhush"),
        ("RENAME_WORKER_API__TOKEN_FILE", "eyJhush"),
        ("RENAME_WORKER_API__PROXY", "http://hush:12/3@proxy"),
        ("RENAME_WORKER_OTLP__PROXY", "hush"),
        ("RENAME_WORKER_API__TIMEOUT", "hush"),
    ] {
        let mistakes = load("", &[(variable, value)]).unwrap_err();
        assert!(mistakes.contains(variable), "{mistakes}");
        assert!(!mistakes.contains("hush"), "{mistakes}");
    }
}

#[test]
fn a_duration_that_looks_like_two_is_not_taken_for_their_sum() {
    for (variable, value, fits) in [
        ("RENAME_WORKER_RETRY__LADDER", "5s,30s", true),
        ("RENAME_WORKER_RETRY__LADDER", "5s, 1h30m", true),
        ("RENAME_WORKER_RETRY__LADDER", "5s 30s", false),
        ("RENAME_WORKER_RETRY__LADDER", "5s30s", false),
        ("RENAME_WORKER_RETRY__LADDER", "1h 30m", false),
        ("RENAME_WORKER_RETRY__LADDER", "5s;30s", false),
        ("RENAME_WORKER_API__TIMEOUT", "1m 30s", true),
        ("RENAME_WORKER_API__TIMEOUT", "1s 2s", false),
        ("RENAME_WORKER_API__TIMEOUT", "1s 1m", false),
    ] {
        let loaded = load("", &[(variable, value)]);
        assert_eq!(loaded.is_ok(), fits, "{variable}={value}");
        if let Err(mistakes) = loaded {
            assert!(mistakes.contains(variable), "{mistakes}");
        }
    }
}

#[test]
fn notes_tell_of_what_travels_in_the_clear_and_of_proxies_that_are_not_used() {
    let none = "api: no credentials are set, so requests will wait for them";
    assert_eq!(Settings::default().warnings(), [none]);
    for (toml, env, part) in [
        (
            "[amqp]\nurl = \"amqp://u:hush@127.evil.com\"",
            "",
            "amqp.url: the broker's password",
        ),
        (
            "[amqp]\nurl = \"amqp://u:hush@mq.localhost\"",
            "",
            "amqp.url: the broker's password",
        ),
        (
            "[amqp]\nurl = \"amqps://u:hush@mq?verify=hush\"",
            "",
            "amqp.url: has parameters",
        ),
        (
            "[api]\nbase_url = \"http://api.example.com\"\nallow_insecure = true",
            "",
            "api.base_url: tokens and usernames travel in the clear",
        ),
        (
            "",
            "HTTPS_PROXY",
            "HTTPS_PROXY: set in the environment and used for nothing",
        ),
        (
            "[api]\nbase_url = \"http://localhost\"\nproxy = \"http://hush@proxy\"",
            "",
            "api.proxy: is used for nothing",
        ),
    ] {
        let notes = load(toml, &[(env, "http://hush@proxy")])
            .unwrap()
            .warnings();
        let notes = notes.join("\n");
        assert!(notes.contains(part), "{toml}: {notes}");
        assert!(!notes.contains("hush"), "{notes}");
    }
    for (toml, env) in [
        ("[amqp]\nurl = \"amqps://mq.example.com\"", "NO_PROXY"),
        ("[api]\nproxy = \"http://hush@proxy\"", "HTTPS_PROXY"),
        ("[api]\nbase_url = \"http://localhost\"", "https_proxy"),
    ] {
        let notes = load(toml, &[(env, "http://hush@proxy")])
            .unwrap()
            .warnings();
        assert_eq!(notes, [none], "{toml}");
    }
}
