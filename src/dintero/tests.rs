//! The client against servers on loopback that answer as told, or fail to.

mod calls;
mod names;
mod proxy;
mod server;
mod tls;
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{ApiCall, ApiClient, CallObserver, HttpCallKind, HttpStatus};
use crate::config::{ApiSection, CredentialsSection, Secret, VerifyUser};
use crate::core::model::api_response::{ApiResponse, CallKind, ErrorResponse, UserRecord};
use crate::core::model::request::{AccountId, Username};

/// What the client told its observer.
#[derive(Clone, Default)]
struct ObservedCall(Arc<Mutex<Vec<(HttpCallKind, HttpStatus)>>>);

impl CallObserver for ObservedCall {
    fn call_ended(&self, kind: HttpCallKind, status: HttpStatus, _: Duration) {
        self.0.lock().unwrap().push((kind, status));
    }
}

impl ObservedCall {
    fn all(&self) -> Vec<(HttpCallKind, HttpStatus)> {
        self.0.lock().unwrap().clone()
    }
}

fn api(base_url: &str) -> ApiSection {
    ApiSection {
        base_url: base_url.into(),
        allow_insecure: false,
        ca_file: None,
        proxy: None,
        credentials: Some(CredentialsSection::Token(Secret::inline("sesame"))),
        accounts: BTreeMap::new(),
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(3),
        requests_per_second: None,
        verify_user: VerifyUser::Before,
    }
}

fn client_of(api: &ApiSection) -> (ApiClient, ObservedCall) {
    let observed = ObservedCall::default();
    let client = ApiClient::new(api, 64, observed.clone()).unwrap();
    (client, observed)
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

fn rename(username: &str, new_username: &str) -> ApiCall {
    ApiCall {
        kind: CallKind::Rename,
        account: account("T12345678"),
        username: Username::parse(username).unwrap(),
        new_username: Username::parse(new_username).unwrap(),
        traceparent: None,
    }
}

fn user(username: &str) -> ApiResponse {
    ApiResponse::User(UserRecord {
        username: username.into(),
        id: None,
    })
}

fn refused(status: u16) -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status,
        ..ErrorResponse::default()
    })
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}
