use super::*;

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.toml");
    std::fs::write(&path, toml).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    Settings::load(Some(&path), env)
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
