//! Asks a broker for its version, by a connection that goes no further than the greeting.
//!
//! lapin does not tell the server's properties, and one argument of one queue depends on the
//! version, dangerously: `x-delivery-limit` -1 means "none" from RabbitMQ 4.0 on, while 3.10 takes
//! it too and then drops a message the first time that it is requeued.

use std::io;
use std::time::Duration;

use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::tcp::{AMQPUriTcpExt as _, TLSConfig};

use super::connection::Door;
use super::trouble::Trouble;
use crate::config::Amqp;

/// What a client of AMQP 0-9-1 says first.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Frame type (1 byte), channel (2), size of the payload (4).
const FRAME_HEADER: usize = 7;
/// A method's frame.
const METHOD: u8 = 1;
/// A greeting has about 500 bytes.
const GREETING_MAX: usize = 64 * 1024;
/// As long as a connection may take to open.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The first number of the broker's version.
pub(super) async fn major_version(amqp: &Amqp) -> Result<u32, Trouble> {
    let door = Door::find(amqp).await?;
    let version = tokio::time::timeout(TIMEOUT, ask(&door))
        .await
        .map_err(|_| Trouble::Silent(TIMEOUT.as_secs()))?
        .map_err(|error| Trouble::Unreachable(error.to_string()))?;
    let major = version.split('.').next().and_then(|n| n.parse().ok());
    major.ok_or_else(|| Trouble::Refused(format!("it calls its version {version:?}")))
}

async fn ask(door: &Door) -> io::Result<String> {
    let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
    let mut stream = door
        .plain
        .connect_with_config_async(TLSConfig::default(), &runtime)
        .await?;
    if let Some(connector) = &door.tls {
        stream = stream.into_rustls(connector, door.host()).await?;
    }
    stream.write_all(PROTOCOL_HEADER).await?;
    let mut header = [0; FRAME_HEADER];
    stream.read_exact(&mut header).await?;
    let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
    if header[0] != METHOD || size > GREETING_MAX {
        return Err(io::Error::other("what answers there speaks no AMQP"));
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload).await?;
    version_in(&payload)
        .ok_or_else(|| io::Error::other("what answers there does not tell its version"))
}

/// The server property `version`: its name, `S` for a long string, 4 bytes of length, the text.
fn version_in(payload: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\x07versionS";
    let name = payload.windows(NAME.len()).position(|part| part == NAME)?;
    let (length, rest) = payload.get(name + NAME.len()..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*length) as usize)?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_greeting_and_in_no_part_of_it() {
        let greeting = b"\x00\x0a\x00\x0a\x00\x09\x07productS\x00\x00\x00\x08RabbitMQ\
            \x07versionS\x00\x00\x00\x053.8.1";
        assert_eq!(version_in(greeting).as_deref(), Some("3.8.1"));
        for end in 0..greeting.len() {
            assert_eq!(version_in(&greeting[..end]), None);
        }
    }
}
