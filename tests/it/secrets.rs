//! Secrets that are broken in every way that a person, a template or a tool breaks one: whatever
//! key holds them, no output shows a piece of them.
//!
//! Each broken secret is checked in this process, by the functions behind `config check` and the
//! beginning of `run`; some of each kind by the program itself. None of it needs a broker.

mod broken;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use proptest::prelude::*;
use rename_worker::broker;
use rename_worker::config::Settings;
use rename_worker::config::keys::{KEYS, ValueKind};
use rename_worker::dintero::{self, ApiClient, CallObserver, HttpStatus};

use broken::{PEM, TEXT, pem_mutations, pieces, text_mutations};

/// What holds a secret, and how the broken one gets there.
struct Holder {
    /// What a failed test says.
    name: String,
    /// The variables, in which `{}` is the secret.
    variables: Vec<(&'static str, String)>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the variables.
    Inline,
    /// In a file, whose path the variables have.
    File,
}

fn holder(place: Place, variables: &[(&'static str, &str)]) -> Holder {
    let variables: Vec<_> = variables
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    let name = format!("{variables:?}");
    Holder {
        name,
        variables,
        place,
    }
}

/// Nobody listens there, and nothing leaves this machine.
const CLOSED: &str = "127.0.0.1:9";

fn holders_of_text() -> Vec<Holder> {
    use Place::{File, Inline};
    let mut holders = vec![
        holder(Inline, &[("AMQP__URL", "{}")]),
        holder(Inline, &[("AMQP__URL", "amqp://user:{}@127.0.0.1:9/%2f")]),
        holder(Inline, &[("AMQP__URL", "amqps://user:{}@127.0.0.1:9")]),
        holder(Inline, &[("AMQP__URL", "amqp://{}:pw@127.0.0.1:9/v")]),
        holder(Inline, &[("AMQP__URL", "amqp://user:12{}@127.0.0.1:9")]),
        holder(File, &[("AMQP__URL_FILE", "{}")]),
        holder(Inline, &[("API__TOKEN", "{}")]),
        holder(File, &[("API__TOKEN_FILE", "{}")]),
        holder(
            Inline,
            &[("API__CLIENT_ID", "{}"), ("API__CLIENT_SECRET", "s")],
        ),
        holder(
            Inline,
            &[("API__CLIENT_ID", "id"), ("API__CLIENT_SECRET", "{}")],
        ),
        holder(
            File,
            &[("API__CLIENT_ID", "id"), ("API__CLIENT_SECRET_FILE", "{}")],
        ),
        holder(Inline, &[("API__ACCOUNTS__T12345678__TOKEN", "{}")]),
        holder(File, &[("API__ACCOUNTS__T12345678__TOKEN_FILE", "{}")]),
        holder(
            Inline,
            &[
                ("API__ACCOUNTS__T12345678__CLIENT_ID", "{}"),
                ("API__ACCOUNTS__T12345678__CLIENT_SECRET", "{}"),
            ],
        ),
        holder(
            File,
            &[
                ("API__ACCOUNTS__T12345678__CLIENT_ID", "id"),
                ("API__ACCOUNTS__T12345678__CLIENT_SECRET_FILE", "{}"),
            ],
        ),
        holder(
            Inline,
            &[
                ("API__PROXY", "http://user:{}@127.0.0.1:9"),
                ("API__BASE_URL", "https://api.example.test/v1"),
            ],
        ),
        holder(Inline, &[("API__PROXY", "{}")]),
        holder(Inline, &[("OTLP__PROXY", "http://{}:12{}@127.0.0.1:9")]),
        holder(
            Inline,
            &[("API__BASE_URL", "http://user:{}@127.0.0.1:9/v1")],
        ),
        holder(Inline, &[("OTLP__ENDPOINT", "http://user:{}@127.0.0.1:9")]),
        holder(Inline, &[("HTTPS_PROXY", "http://user:{}@127.0.0.1:9")]),
    ];
    // And wherever it may stray. What these two take is shown by its meaning: in names, in filters.
    let stray = KEYS
        .iter()
        .filter(|key| !["amqp.prefix", "log.level"].contains(&key.path))
        .map(|key| {
            let path = key.path.replace("<aid>", "T12345678").replace('.', "__");
            (&*path.to_uppercase().leak(), "{}")
        });
    holders.extend(stray.map(|variable| holder(Inline, &[variable])));
    holders
}

fn holders_of_pem() -> Vec<Holder> {
    use Place::{File, Inline};
    let mut holders = Vec::new();
    for place in [File, Inline] {
        for key in ["AMQP__CA_FILE", "API__CA_FILE"] {
            let url = ("AMQP__URL", "amqps://127.0.0.1:9");
            holders.push(holder(place, &[(key, "{}"), url]));
        }
        holders.push(holder(
            place,
            &[
                ("AMQP__CLIENT_CERT_FILE", "{certificate}"),
                ("AMQP__CLIENT_KEY_FILE", "{}"),
                ("AMQP__CA_FILE", "{certificate}"),
                ("AMQP__URL", "amqps://127.0.0.1:9"),
            ],
        ));
        holders.push(holder(
            place,
            &[
                ("AMQP__CLIENT_CERT_FILE", "{}"),
                ("AMQP__CLIENT_KEY_FILE", "{}"),
                ("AMQP__CA_FILE", "{certificate}"),
                ("AMQP__URL", "amqps://127.0.0.1:9"),
            ],
        ));
    }
    holders
}

/// A folder with a certificate that is none too few, and the broken secret where it is in a file.
struct Scene {
    _folder: tempfile::TempDir,
    file: PathBuf,
    certificate: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["mq".to_owned()]).unwrap();
        let certificate = folder.path().join("certificate.pem");
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            file: folder.path().join("file"),
            certificate,
            _folder: folder,
        }
    }

    /// The environment that gives `broken` to the holder; the API is on this machine unless said
    /// otherwise.
    fn environment(&self, holder: &Holder, broken: &str) -> BTreeMap<String, String> {
        let secret = match holder.place {
            Place::Inline => broken.to_owned(),
            Place::File => {
                std::fs::write(&self.file, broken).unwrap();
                self.file.display().to_string()
            }
        };
        let certificate = self.certificate.display().to_string();
        let defaults = [
            ("AMQP__URL", format!("amqp://{CLOSED}")),
            ("API__BASE_URL", format!("http://{CLOSED}/v1")),
            ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let set = |key: &str| holder.variables.iter().any(|(name, _)| *name == key);
        let has_url_file = set("AMQP__URL_FILE");
        let mut environment = BTreeMap::new();
        for (key, value) in defaults {
            if !(key == "AMQP__URL" && has_url_file) {
                environment.insert(variable(key), value);
            }
        }
        for (key, value) in &holder.variables {
            let value = value
                .replace("{certificate}", &certificate)
                .replace("{}", &secret);
            environment.insert(variable(key), value);
        }
        environment
    }
}

fn variable(key: &str) -> String {
    match key {
        "HTTPS_PROXY" => key.to_owned(),
        key => format!("RENAME_WORKER_{key}"),
    }
}

/// Counts nothing.
struct Unheard;

impl CallObserver for Unheard {
    fn call_ended(&self, _: dintero::HttpCallKind, _: HttpStatus, _: Duration) {}
}

/// Everything that `config check` and the beginning of `run` could say.
fn said(config: Option<&Path>, environment: &BTreeMap<String, String>) -> String {
    let mut said = String::new();
    let env = || environment.clone().into_iter();
    if let Err(mistakes) = Settings::check(config, env()) {
        let _ = write!(said, "{mistakes}\n{mistakes:?}\n");
    }
    match Settings::load(config, env()) {
        Err(mistakes) => {
            let _ = write!(said, "{mistakes}\n{mistakes:?}\n");
        }
        Ok(settings) => {
            let _ = writeln!(
                said,
                "{:?} {:?}",
                settings.warnings(),
                settings.file_faults()
            );
            let _ = writeln!(said, "{:?}", broker::address(&settings.amqp));
            let client = ApiClient::new(&settings.api, 1, Unheard);
            if let Err(error) = client {
                let _ = write!(said, "{error}\n{error:?}\n");
            }
        }
    }
    said
}

fn assert_hidden(said: &str, secret: &str, what: &str) {
    for piece in pieces(secret) {
        assert!(!said.contains(&piece), "{what}: {piece} in: {said}");
    }
}

#[test]
fn no_piece_of_a_broken_secret_is_shown_whatever_key_holds_it() {
    let scene = Scene::new();
    for holder in holders_of_text() {
        for broken in text_mutations(TEXT) {
            if holder.place == Place::Inline && broken.contains('\0') {
                continue;
            }
            let environment = scene.environment(&holder, &broken);
            assert_hidden(&said(None, &environment), TEXT, &holder.name);
        }
    }
}

#[test]
fn no_piece_of_a_broken_key_or_certificate_is_shown() {
    let scene = Scene::new();
    for holder in holders_of_pem() {
        for broken in pem_mutations(PEM) {
            let environment = scene.environment(&holder, &broken);
            assert_hidden(&said(None, &environment), PEM, &holder.name);
        }
    }
}

#[test]
fn no_piece_of_a_secret_that_breaks_the_settings_file_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.toml");
    // Nothing else is looked for on the machine, such as its certificates.
    let here = variable("API__BASE_URL");
    let here = BTreeMap::from([(here, format!("http://{CLOSED}/v1"))]);
    let none = BTreeMap::new();
    for key in KEYS {
        if ["amqp.prefix", "log.level"].contains(&key.path) {
            continue;
        }
        let (section, name) = key.path.rsplit_once('.').unwrap();
        let section = section.replace("<aid>", "T12345678");
        let texts = text_mutations(TEXT).into_iter().chain(pem_mutations(TEXT));
        let may_hold_one =
            matches!(key.kind, ValueKind::Secret | ValueKind::File) || name == "client_id";
        let quotes = ["\"", "'", "\"\"\"", ""];
        let quotes = if may_hold_one {
            &quotes[..]
        } else {
            &quotes[..1]
        };
        for broken in texts {
            for quote in quotes {
                let text = format!("[{section}]\n{name} = {quote}{broken}{quote}\n");
                std::fs::write(&path, &text).unwrap();
                let environment = match key.path {
                    "api.base_url" => &none,
                    _ => &here,
                };
                assert_hidden(&said(Some(&path), environment), TEXT, &text);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// As the tables above, with more than anybody thought of.
    #[test]
    fn no_piece_of_a_secret_is_shown_with_anything_between_its_parts(
        cut in 4_usize..12,
        junk in "[/?#@:%\\\\\"' \t\n\r&=+;,.\\[\\]{}$~^|<>!`\u{feff}\u{e9}\u{85}\u{2028}0-9-]{0,6}",
        end in "[\r\n /?#@:]{0,3}",
        which in any::<prop::sample::Index>(),
    ) {
        let holders = holders_of_text();
        let holder = which.get(&holders);
        let broken = format!("{}{junk}{}{end}", &TEXT[..cut], &TEXT[cut..]);
        let scene = Scene::new();
        let environment = scene.environment(holder, &broken);
        assert_hidden(&said(None, &environment), TEXT, &format!("{}: {broken:?}", holder.name));
    }
}

fn program(args: &[&str], environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
    command
        .args(args)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null());
    command
}

fn output(args: &[&str], environment: &BTreeMap<String, String>) -> String {
    let Output { stdout, stderr, .. } = program(args, environment).output().unwrap();
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

/// What `run` logs until it has ended or has failed to connect, which it tries over and over.
fn log_of_run(environment: &BTreeMap<String, String>) -> String {
    /// Far more than a start takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut child = program(&["run"], environment)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (tell, lines) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in stderr.split(b'\n') {
            let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
            // Nobody listens once it has failed to connect.
            let _ = tell.send(line);
        }
    });
    let mut said = String::new();
    while !said.contains("\"why\"") {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => said.extend([line.as_str(), "\n"]),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("it neither ended nor connected: {said}"),
        }
    }
    child.kill().ok();
    child.wait().unwrap();
    reading.join().unwrap();
    said.extend(lines.try_iter());
    said
}

#[test]
#[should_panic(expected = "3vLm in: it shows xKw3vLm9t")]
fn a_piece_that_is_shown_is_found() {
    assert_hidden("it shows xKw3vLm9t", TEXT, "here");
}

#[test]
#[should_panic(expected = "in: it shows [120, 75, 119, 51]")]
fn a_piece_that_is_shown_as_numbers_is_found() {
    assert_hidden("it shows [120, 75, 119, 51]", TEXT, "here");
}

#[test]
fn the_program_shows_no_piece_of_a_broken_secret() {
    let scene = Scene::new();
    let texts = holders_of_text().into_iter().take(21).enumerate();
    for (nth, holder) in texts {
        // Another few of them for each holder; the tests above have all.
        let mutations = text_mutations(TEXT);
        for broken in mutations.iter().skip(nth % 5).step_by(9) {
            if !broken.contains('\0') {
                assert_program_hides(&scene, &holder, broken, TEXT);
            }
        }
    }
    for holder in holders_of_pem()
        .into_iter()
        .filter(|h| h.place == Place::File)
    {
        for broken in pem_mutations(PEM).iter().take(4) {
            assert_program_hides(&scene, &holder, broken, PEM);
        }
    }
}

fn assert_program_hides(scene: &Scene, holder: &Holder, broken: &str, secret: &str) {
    let environment = scene.environment(holder, broken);
    let what = format!("{}: {broken:?}", holder.name);
    for args in [
        &["config", "check"][..],
        &["config", "check", "--json"],
        &["topology", "check", "--json"],
    ] {
        assert_hidden(&output(args, &environment), secret, &what);
    }
    assert_hidden(&log_of_run(&environment), secret, &what);
}
