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

use super::{Call, Client, Kind, Observer, Status};
use crate::config::{Api, Credentials, Secret, VerifyUser};
use crate::core::answer::{Answer, CallKind, Refusal, User};
use crate::core::request::{AccountId, Username};

/// What the client told its observer.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Kind, Status)>>>);

impl Observer for Told {
    fn call_ended(&self, kind: Kind, status: Status, _: Duration) {
        self.0.lock().unwrap().push((kind, status));
    }
}

impl Told {
    fn all(&self) -> Vec<(Kind, Status)> {
        self.0.lock().unwrap().clone()
    }
}

fn api(base_url: &str) -> Api {
    Api {
        base_url: base_url.into(),
        allow_insecure: false,
        ca_file: None,
        proxy: None,
        credentials: Some(Credentials::Token(Secret::inline("sesame"))),
        accounts: BTreeMap::new(),
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(3),
        requests_per_second: None,
        verify_user: VerifyUser::Before,
    }
}

fn client_of(api: &Api) -> (Client, Told) {
    let told = Told::default();
    let client = Client::new(api, 64, told.clone()).unwrap();
    (client, told)
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

fn rename(username: &str, new_username: &str) -> Call {
    Call {
        kind: CallKind::Rename,
        account: account("T12345678"),
        username: Username::parse(username).unwrap(),
        new_username: Username::parse(new_username).unwrap(),
        traceparent: None,
    }
}

fn user(username: &str) -> Answer {
    Answer::User(User {
        username: username.into(),
        id: None,
    })
}

fn refused(status: u16) -> Answer {
    Answer::Refused(Refusal {
        status,
        ..Refusal::default()
    })
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}
