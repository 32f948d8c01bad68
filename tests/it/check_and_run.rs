//! What `config check` accepts, the run's own parsers accept too, whatever is set.

use std::time::Duration;

use axum::http::Uri;
use proptest::prelude::*;
use rename_worker::config::Settings;
use rename_worker::dintero::{ApiClient, CallObserver, HttpCallKind, HttpStatus};

/// Counts nothing.
struct Unheard;

impl CallObserver for Unheard {
    fn call_ended(&self, _: HttpCallKind, _: HttpStatus, _: Duration) {}
}

fn settings(env: &[(&str, &str)]) -> Option<Settings> {
    let env = env
        .iter()
        .map(|(key, value)| (format!("RENAME_WORKER_{key}"), (*value).to_owned()));
    Settings::check(None, env)
        .ok()
        .map(|(settings, _)| settings)
}

/// Half of a URL, with whatever people put there.
const REST: &str = "[a-z0-9._~:@/?#!$&'()*+,;=% |{}\\[\\]\"<>^`é-]{0,16}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_base_url_or_proxy_that_is_accepted_makes_a_client(
        base in REST,
        proxy in REST,
        user in "([a-z%2f:+é]{0,6}@)?",
    ) {
        let base = format!("http://a{base}");
        let proxy = format!("http://{user}p{proxy}");
        let insecure = ("API__ALLOW_INSECURE", "true");
        for env in [
            &[insecure, ("API__BASE_URL", &*base)][..],
            &[insecure, ("API__BASE_URL", "http://a"), ("API__PROXY", &*proxy)],
        ] {
            if let Some(settings) = settings(env) {
                prop_assert!(ApiClient::new(&settings.api, 1, Unheard).is_ok(), "{:?}", env);
                // As each request has to name it.
                prop_assert!(settings.api.base_url.parse::<Uri>().is_ok(), "{:?}", env);
                if let Some(proxy) = &settings.api.proxy {
                    prop_assert!(proxy.url.as_str().parse::<Uri>().is_ok(), "{:?}", env);
                }
            }
        }
    }

    #[test]
    fn a_level_that_is_accepted_makes_a_filter(level in "[a-z0-9_:=,\\[\\]{}.-]{0,12}(info|=debug|)") {
        if let Some(settings) = settings(&[("API__BASE_URL", "http://localhost"), ("LOG__LEVEL", &*level)]) {
            let filter = tracing_subscriber::EnvFilter::try_new(&settings.log.level);
            prop_assert!(filter.is_ok(), "{}", level);
        }
    }
}

#[cfg(feature = "otlp")]
proptest! {
    // Each makes a client and a thread.
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_endpoint_that_is_accepted_makes_an_exporter(rest in REST) {
        let endpoint = format!("http://a{rest}");
        if let Some(settings) = settings(&[("API__BASE_URL", "http://localhost"), ("OTLP__ENDPOINT", &*endpoint)]) {
            let client = rename_worker::dintero::collector_client(&settings.otlp);
            let client = client.expect("a client can be made");
            let tracer = rename_worker::telemetry::trace::RequestTracer::new(&settings, "0", client);
            prop_assert!(tracer.is_ok(), "{}", endpoint);
        }
    }
}
