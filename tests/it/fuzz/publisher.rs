//! AMQP 0-9-1 by hand, as far as publishing goes: lapin's publisher writes nothing that lapin could
//! not read.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;

type Method = (u16, u16);
const START: Method = (10, 10);
const TUNE: Method = (10, 30);
const OPEN_OK: Method = (10, 41);
const CONNECTION_CLOSE: Method = (10, 50);
const CHANNEL_OPEN_OK: Method = (20, 11);
const CHANNEL_CLOSE: Method = (20, 40);
const ACK: Method = (60, 80);
const NACK: Method = (60, 120);
const SELECT_OK: Method = (85, 11);

/// Bodies are sent in frames of at most this, in bytes: below RabbitMQ's 128 KiB.
const PART: usize = 100_000;
/// The broker answers in milliseconds, unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker ended the channel or the connection, and what it said.
#[derive(Debug)]
pub struct Closed(pub String);

/// What is published, as bytes.
pub struct Message {
    pub routing_key: Vec<u8>,
    /// The flags and the properties that they announce.
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
}

/// A connection with one channel in confirm mode.
pub struct Publisher {
    stream: TcpStream,
    published: u64,
    unconfirmed: BTreeSet<u64>,
    refused: u64,
}

impl Publisher {
    pub async fn connect(url: &str) -> Self {
        let url = Url::parse(url).expect("a URL");
        let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
        let stream = TcpStream::connect((host, port)).await.expect("it connects");
        stream.set_nodelay(true).expect("a socket's option");
        let mut this = Self {
            stream,
            published: 0,
            unconfirmed: BTreeSet::new(),
            refused: 0,
        };
        this.open(&url).await.expect("the broker opens a channel");
        this
    }

    async fn open(&mut self, url: &Url) -> Result<(), Closed> {
        let vhost = match url.path() {
            "" | "/" | "/%2f" | "/%2F" => "/",
            path => &path[1..],
        };
        self.write(b"AMQP\x00\x00\x09\x01").await?;
        self.expect(START).await?;
        let login = format!(
            "\0{}\0{}",
            url.username(),
            url.password().unwrap_or("guest")
        );
        let no_table = [0; 4];
        let start_ok = [
            &no_table[..],
            &short(b"PLAIN"),
            &long(login.as_bytes()),
            &short(b"en_US"),
        ];
        self.send(0, (10, 11), &start_ok.concat()).await?;
        let limits = self.expect(TUNE).await?;
        // As it says, without heartbeats.
        let tune_ok = [limits.get(..6).unwrap_or(&[0; 6]), &[0, 0]].concat();
        self.send(0, (10, 31), &tune_ok).await?;
        self.send(
            0,
            (10, 40),
            &[&short(vhost.as_bytes())[..], &[0, 0]].concat(),
        )
        .await?;
        self.expect(OPEN_OK).await?;
        self.send(1, (20, 10), &[0]).await?;
        self.expect(CHANNEL_OPEN_OK).await?;
        self.send(1, (85, 10), &[0]).await?;
        self.expect(SELECT_OK).await?;
        Ok(())
    }

    /// Sends a message; that it was taken is known when it is no longer [`Self::unconfirmed`].
    pub async fn publish(&mut self, exchange: &str, message: &Message) -> Result<(), Closed> {
        let (key, body) = (&message.routing_key, &message.body);
        let publish = [&[0, 0][..], &short(exchange.as_bytes()), &short(key), &[0]].concat();
        let mut all = method(1, (60, 40), &publish);
        let size = u64::try_from(body.len()).expect("it fits").to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &message.properties].concat();
        all.extend(frame(HEADER, 1, &header));
        for part in body.chunks(PART) {
            all.extend(frame(BODY, 1, part));
        }
        self.published += 1;
        self.unconfirmed.insert(self.published);
        self.write(&all).await
    }

    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// How many the broker would not take.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Waits until at most so many are unconfirmed.
    pub async fn confirm_down_to(&mut self, most: usize) -> Result<(), Closed> {
        while self.unconfirmed.len() > most {
            let (kind, arguments) = self.read().await?;
            let tag = arguments
                .first_chunk()
                .map_or(0, |tag| u64::from_be_bytes(*tag));
            let multiple = arguments.get(8).is_some_and(|bits| bits & 1 != 0);
            let settled = if multiple {
                let later = self.unconfirmed.split_off(&(tag + 1));
                std::mem::replace(&mut self.unconfirmed, later).len()
            } else {
                usize::from(self.unconfirmed.remove(&tag))
            };
            match kind {
                ACK => {}
                NACK => self.refused += u64::try_from(settled).expect("it fits"),
                other => panic!("the broker says {other:?} to a publisher"),
            }
        }
        Ok(())
    }

    async fn expect(&mut self, wanted: Method) -> Result<Vec<u8>, Closed> {
        let (kind, arguments) = self.read().await?;
        assert_eq!(kind, wanted, "the broker says something else");
        Ok(arguments)
    }

    /// The next method, and its arguments.
    async fn read(&mut self) -> Result<(Method, Vec<u8>), Closed> {
        loop {
            let mut head = [0; 7];
            self.fill(&mut head).await?;
            let [kind, _, _, size @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes(size) as usize + 1];
            self.fill(&mut payload).await?;
            assert_eq!(payload.pop(), Some(FRAME_END));
            match (kind, payload.as_slice()) {
                (HEARTBEAT, _) => {}
                (METHOD, [a, b, c, d, arguments @ ..]) => {
                    let method = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                    if method == CONNECTION_CLOSE || method == CHANNEL_CLOSE {
                        let said = String::from_utf8_lossy(arguments).into_owned();
                        return Err(Closed(said));
                    }
                    return Ok((method, arguments.to_vec()));
                }
                other => panic!("the broker sends {other:?} to a publisher"),
            }
        }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Closed> {
        let reading = timeout(PATIENCE, self.stream.read_exact(buffer)).await;
        let read = reading.expect("the broker answers in time");
        read.map(drop).map_err(closed)
    }

    async fn send(&mut self, channel: u8, kind: Method, arguments: &[u8]) -> Result<(), Closed> {
        self.write(&method(channel, kind, arguments)).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let writing = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        writing.expect("the broker reads in time").map_err(closed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn closed(error: io::Error) -> Closed {
    Closed(error.to_string())
}

fn method(channel: u8, (class, method): Method, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &payload)
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [
        &[kind, 0, channel][..],
        &length(payload),
        payload,
        &[FRAME_END],
    ]
    .concat()
}

/// A text of at most 255 bytes.
pub fn short(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("at most 255 bytes");
    [&[length][..], text].concat()
}

/// Bytes with their length in four bytes before them.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&length(bytes)[..], bytes].concat()
}

fn length(of: &[u8]) -> [u8; 4] {
    u32::try_from(of.len()).expect("it fits").to_be_bytes()
}
