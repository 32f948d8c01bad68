//! `sandbox`: the stand-in for Dintero, served until it is told to stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::{CliError, ExitStatus};
use crate::config::without_bom;
use crate::core::model::request::{AccountId, BadAccountId, Username};
use crate::sandbox::{
    ApiFault, CLIENT_ID, CLIENT_SECRET, KEYS, KINDS, LatencyRange, NewUser, OAuthClient, Sandbox,
    SandboxOptions, SandboxStartError, people,
};

/// The account of generated users when none is named.
const ACCOUNT: &str = "T12345678";

/// How many users there are when nothing is said of users: enough to play with.
const USERS: usize = 100;

const EXAMPLE: &str = "--fault 503=0.05 --fault 429=x3,retry-after=2 --fault lost=0.01,on=rename";

#[derive(Debug, Args)]
#[command(after_long_help = after_help())]
pub struct SandboxArgs {
    /// Where to serve the endpoint; loopback only, port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Where to serve /_sandbox as well, for when the endpoint refuses connections
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    #[arg(
        long,
        value_name = "FILE",
        help = "Users to be there: JSON lines {account_id, username, id?}"
    )]
    users: Vec<PathBuf>,
    /// A user to be there
    #[arg(long, value_name = "ACCOUNT:NAME[=UUID]", value_parser = user)]
    user: Vec<NewUser>,
    /// Believable users to be there in each --account [default: 100, if no user is named]
    #[arg(long, value_name = "N")]
    generate: Option<usize>,
    /// Whose users to generate [default: T12345678]
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    account: Vec<AccountId>,
    /// Answer with a user's name and nothing else of it
    #[arg(long)]
    bare_users: bool,
    /// The client that Get Token knows [default: sandbox-client]
    #[arg(long, value_name = "ID", requires = "client_secret")]
    client_id: Option<String>,
    /// Its secret [default: sandbox-secret]
    #[arg(long, value_name = "SECRET", requires = "client_id", value_parser = secret)]
    client_secret: Option<SecretString>,
    /// A token that is good for every account and for ever
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    token: Vec<SecretString>,
    /// How long an issued token is good
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    token_lifetime: std::time::Duration,
    /// What shall go wrong, in a share of the calls or in the next ones; --help lists it
    #[arg(long, value_name = "KIND[=SHARE|=xCOUNT][,KEY=VALUE]...")]
    fault: Vec<ApiFault>,
    /// How long each call takes: a time, or two to draw between
    #[arg(long, value_name = "TIME[-TIME]", default_value = "0ms")]
    latency: LatencyRange,
    /// Of what is drawn: the same seed, the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Say where it serves as JSON
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    let table = |pairs: &[(&str, &str)]| {
        let line = |(word, meaning): &(&str, &str)| format!("  {word:12} {meaning}\n");
        pairs.iter().map(line).collect::<String>()
    };
    format!(
        "Faults; of those given, the first that strikes a call wins:\n{}\nTheir keys:\n{}\nFor example: {EXAMPLE}",
        table(&KINDS),
        table(&KEYS),
    )
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: SandboxArgs) -> ExitStatus {
    let json = args.json;
    let own_client = args.client_id.is_some();
    let options = match options(args) {
        Ok(options) => options,
        Err(wrong) => return CliError::new(ExitStatus::Usage, format!("{wrong:#}")).print(json),
    };
    // Before anything is said to be ready, so that who waits for that can also end it.
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(wrong), _) | (_, Err(wrong)) => {
            say!("cannot listen for signals: {wrong}");
            return ExitStatus::Failed;
        }
    };
    let sandbox = match Sandbox::start(options).await {
        Ok(sandbox) => sandbox,
        Err(wrong) => return refusal(&wrong).print(json),
    };
    let ready = if json {
        format!("{}\n", ready_json(&sandbox))
    } else {
        ready_text(&sandbox, own_client)
    };
    if super::print(&ready) != ExitStatus::Done {
        return ExitStatus::Failed;
    }
    wait_for_signal(&mut terminate, &mut interrupt).await;
    let (calls, renames) = (sandbox.calls().total(), sandbox.ledger().len());
    sandbox.shutdown().await;
    say!("the sandbox has ended: {calls} calls, {renames} renames took effect");
    ExitStatus::Done
}

async fn wait_for_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn refusal(wrong: &SandboxStartError) -> CliError {
    match wrong {
        SandboxStartError::NotLoopback(_) => CliError::new(ExitStatus::Usage, wrong.to_string()),
        SandboxStartError::Listen { source, .. } => {
            let remedy = "--listen and --control take another address";
            CliError::new(ExitStatus::Failed, format!("{wrong}: {source}; {remedy}"))
        }
    }
}

fn options(args: SandboxArgs) -> anyhow::Result<SandboxOptions> {
    let mut users = args.user;
    for file in &args.users {
        users.extend(read_users(file)?);
    }
    let nobody = users.is_empty();
    let count = args.generate.unwrap_or(if nobody { USERS } else { 0 });
    let accounts = if args.account.is_empty() {
        vec![AccountId::parse(ACCOUNT)?]
    } else {
        args.account
    };
    users.extend(accounts.iter().flat_map(|account| people(account, count)));
    Ok(SandboxOptions {
        listen: args.listen,
        control: args.control,
        users,
        bare_users: args.bare_users,
        clients: vec![OAuthClient {
            id: args.client_id.unwrap_or_else(|| CLIENT_ID.to_owned()),
            secret: args.client_secret.unwrap_or_else(|| CLIENT_SECRET.into()),
            account: None,
        }],
        tokens: args.token,
        token_lifetime: args.token_lifetime,
        faults: args.fault,
        latency: args.latency,
        seed: args.seed,
    })
}

fn read_users(file: &Path) -> anyhow::Result<Vec<NewUser>> {
    let wrong = |wrong: &dyn std::fmt::Display| {
        anyhow::anyhow!("{}: cannot read users: {wrong}", file.display())
    };
    let text = std::fs::read(file).map_err(|error| wrong(&error))?;
    serde_json::Deserializer::from_slice(without_bom(&text))
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))
}

fn ready_json(sandbox: &Sandbox) -> serde_json::Value {
    let users = sandbox.users();
    let faults: Vec<_> = sandbox
        .faults()
        .into_iter()
        .map(|fault| fault.fault)
        .collect();
    json!({
        "base_url": sandbox.base_url(),
        "control_url": sandbox.control_url(),
        "accounts": accounts(&users),
        "users": users.len(),
        "faults": faults,
    })
}

fn ready_text(sandbox: &Sandbox, own_client: bool) -> String {
    let users = sandbox.users();
    let accounts: Vec<_> = accounts(&users).into_iter().collect();
    let (base, control) = (sandbox.base_url(), sandbox.control_url());
    let faults: Vec<_> = sandbox
        .faults()
        .into_iter()
        .map(|fault| fault.fault)
        .collect();
    let faults = if faults.is_empty() {
        "none".to_owned()
    } else {
        faults.join("  ")
    };
    let (id, secret) = if own_client {
        ("(as given)", "(as given)")
    } else {
        (CLIENT_ID, CLIENT_SECRET)
    };
    format!(
        "The sandbox answers as Dintero does, to this machine only, until Ctrl-C or SIGTERM.\n\n\
         base URL  {base}\n\
         control   {control}\n\
         users     {count} in {accounts}\n\
         faults    {faults}\n\n\
         For a worker:\n  \
         RENAME_WORKER_API__BASE_URL={base}\n  \
         RENAME_WORKER_API__CLIENT_ID={id}\n  \
         RENAME_WORKER_API__CLIENT_SECRET={secret}\n\n\
         To look inside:\n  \
         curl {control}          what there is to ask\n  \
         curl {control}/ledger   the renames that took effect\n  \
         curl {control}/users    who is there\n",
        count = users.len(),
        accounts = accounts.join(", "),
    )
}

fn accounts(users: &[NewUser]) -> BTreeSet<&str> {
    users.iter().map(|user| user.account_id.as_str()).collect()
}

fn account(text: &str) -> Result<AccountId, BadAccountId> {
    AccountId::parse(text)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "clap asks for a parser, which may fail"
)]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

/// `ACCOUNT:NAME[=UUID]`; what follows the last `=` is part of the name when it is no UUID.
fn user(text: &str) -> Result<NewUser, String> {
    let (account, rest) = text
        .split_once(':')
        .ok_or("a user is ACCOUNT:NAME or ACCOUNT:NAME=UUID")?;
    let account_id = AccountId::parse(account).map_err(|wrong| wrong.to_string())?;
    let with_id = rest
        .rsplit_once('=')
        .and_then(|(name, id)| Some((name, Some(id.parse::<Uuid>().ok()?))));
    let (name, id) = with_id.unwrap_or((rest, None));
    Username::parse_for_path(name).map_err(|wrong| wrong.to_string())?;
    Ok(NewUser {
        account_id,
        username: name.into(),
        id,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct SandboxCommandLine {
        #[command(flatten)]
        args: SandboxArgs,
    }

    fn parsed(flags: &[&str]) -> anyhow::Result<SandboxOptions> {
        let flags = ["sandbox"].iter().chain(flags);
        options(SandboxCommandLine::try_parse_from(flags)?.args)
    }

    #[test]
    fn a_user_is_an_account_and_a_name_and_perhaps_an_id() {
        let id = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
        for (text, name, given) in [
            ("T12345678:ola", "ola", None),
            ("T12345678:a:b=c", "a:b=c", None),
            (&*format!("T12345678:a=b={id}"), "a=b", Some(id)),
        ] {
            let seed = user(text).unwrap();
            assert_eq!(&*seed.username, name, "{text}");
            assert_eq!(seed.id.map(|id| id.to_string()).as_deref(), given, "{text}");
        }
        for bad in ["ola", "X1:ola", "T12345678:", "T12345678:.."] {
            user(bad).unwrap_err();
        }
    }

    #[test]
    fn there_are_users_unless_some_are_named() {
        let count = |flags: &[&str]| parsed(flags).unwrap().users.len();
        assert_eq!(count(&[]), USERS);
        assert_eq!(count(&["--user", "T12345678:ola"]), 1);
        assert_eq!(count(&["--user", "T12345678:ola", "--generate", "5"]), 6);
        let two = [
            "--generate",
            "5",
            "--account",
            "T00000001",
            "--account",
            "P00000002",
        ];
        assert_eq!(count(&two), 10);
    }

    #[test]
    fn users_are_read_from_json_lines_and_a_wrong_line_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let good = r#"{"account_id":"T12345678","username":"ola"}"#;
        std::fs::write(path, format!("{good}\n{good}\n")).unwrap();
        assert_eq!(parsed(&["--users", path]).unwrap().users.len(), 2);
        std::fs::write(path, format!("{good}\n{{\"account_id\":\"T1\"}}\n")).unwrap();
        let wrong = parsed(&["--users", path]).unwrap_err().to_string();
        assert!(wrong.contains("line 2"), "{wrong}");
    }

    #[test]
    fn wrong_flags_are_told_where_they_are() {
        for flags in [
            ["--fault", "boom"],
            ["--latency", "9ms-1ms"],
            ["--client-id", "crm"],
            ["--account", "X1"],
        ] {
            parsed(&flags).unwrap_err();
        }
    }

    #[tokio::test]
    async fn what_a_person_reads_says_how_to_use_it() {
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--fault",
            "503=0.1",
            "--token",
            "hush-hush",
        ];
        let sandbox = Sandbox::start(parsed(&flags).unwrap()).await.unwrap();
        let text = ready_text(&sandbox, false);
        let ports = |text: String| {
            text.replace(sandbox.base_url(), "http://127.0.0.1:1/v1")
                .replace(sandbox.control_url(), "http://127.0.0.1:2/_sandbox")
        };
        insta::assert_snapshot!(ports(text));
        insta::assert_snapshot!(ports(ready_json(&sandbox).to_string()));
        sandbox.shutdown().await;
    }
}
