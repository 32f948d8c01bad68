//! Waits for a RabbitMQ to greet, and reads its version from the greeting.
//!
//! An open port proves little: Docker's proxy accepts before anything listens behind it. So the
//! protocol header is sent and the answer (`connection.start`, which carries the server's
//! properties) awaited. Nothing else of AMQP is spoken here.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// What a client of AMQP 0-9-1 says first.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Frame type (1), channel (2), size of the payload (4).
const FRAME_HEADER: usize = 7;

/// A greeting is about 500 bytes; anything much longer is no RabbitMQ.
const GREETING_MAX: usize = 16 * 1024;

/// Between two tries. The wait is for another process, which no clock of ours can hurry.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// One try may hang where packets are dropped silently.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// Waits until the broker greets and returns its version, or the last try's mishap.
pub async fn await_greeting(address: &str, limit: Duration) -> Result<String, String> {
    retry(limit, || greeting(address)).await
}

/// Waits until something listens.
pub async fn await_listener(address: &str, limit: Duration) -> Result<(), String> {
    retry(limit, async || TcpStream::connect(address).await.map(drop)).await
}

async fn retry<T>(
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> io::Result<T>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        let why = match timeout(TRY_LIMIT, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        sleep(RETRY_EVERY).await;
    }
}

async fn greeting(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(PROTOCOL_HEADER).await?;
    let mut header = [0; FRAME_HEADER];
    stream.read_exact(&mut header).await?;
    let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
    if header[0] != 1 || size > GREETING_MAX {
        return Err(io::Error::other("what answers there is no RabbitMQ"));
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload).await?;
    version_in(&payload)
        .ok_or_else(|| io::Error::other("what answers there does not tell its version"))
}

/// The text of the server property `version`: a field's name, `S`, a length of 4 bytes, the text.
fn version_in(payload: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = payload.windows(FIELD.len()).position(|w| w == FIELD)? + FIELD.len();
    let (length, text) = payload.get(at..)?.split_first_chunk::<4>()?;
    let text = text.get(..u32::from_be_bytes(*length) as usize)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_version_is_read_from_the_servers_properties() {
        let payload = b"\x00\x0a\x00\x0a\x00\x09\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x054.0.5";
        assert_eq!(version_in(payload).as_deref(), Some("4.0.5"));
        for cut in 0..payload.len() {
            assert_eq!(version_in(&payload[..cut]), None, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn something_else_that_listens_is_no_broker() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let why = await_greeting(&address, Duration::ZERO).await.unwrap_err();
        assert_eq!(why, "what answers there is no RabbitMQ");
    }
}
