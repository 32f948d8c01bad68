//! Finds a way to the broker by TCP: a name may stand for several nodes, of which some are away.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_rs::Tokio;
use async_rs::traits::Reactor as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::lapin_runtime::TcpConnect;

/// After so long without an answer the next address is tried as well. A node that is there answers
/// in milliseconds; one whose machine is gone never does.
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// Connects to one of the addresses of `host`. It begins with any of them (`chance` is from 0 to 1),
/// so that workers spread over the nodes, and a node that accepts but does not speak is not the one
/// that every try begins with.
pub(in crate::broker) async fn connect_tcp(
    host: &str,
    port: u16,
    chance: f64,
) -> io::Result<TcpConnect> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    rotate(&mut addresses, chance);
    race(addresses).await
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a handful of addresses, and a share of them that is not negative"
)]
fn rotate(addresses: &mut [SocketAddr], chance: f64) {
    if !addresses.is_empty() {
        let begin = (chance * addresses.len() as f64) as usize;
        addresses.rotate_left(begin.min(addresses.len() - 1));
    }
}

/// The first that answers.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpConnect> {
    let tokio = Tokio::current();
    let mut left = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    loop {
        if let Some(address) = left.next() {
            trying.push(tokio.tcp_connect_addr(address));
        }
        tokio::select! {
            tried = trying.next() => match tried {
                Some(Ok(tcp)) => return Ok(tcp),
                Some(Err(error)) => failed = error,
                None => return Err(failed),
            },
            () = tokio::time::sleep(NEXT_AFTER), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn every_address_is_the_first_at_times() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        for (chance, ports) in [
            (0.0, [1, 2, 3]),
            (0.34, [2, 3, 1]),
            (0.99, [3, 1, 2]),
            (1.0, [3, 1, 2]),
        ] {
            let mut rotated = addresses;
            rotate(&mut rotated, chance);
            assert_eq!(rotated.map(|address| address.port()), ports);
        }
        rotate(&mut [], 0.5);
    }

    /// Nothing answers there: its queue of connections that nobody accepts is full.
    async fn silent() -> (SocketAddr, impl Sized) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(one)) = tokio::time::timeout(
            Duration::from_millis(200),
            tokio::net::TcpStream::connect(address),
        )
        .await
        {
            held.push(one);
        }
        (address, (listener, held))
    }

    #[tokio::test]
    async fn nodes_that_refuse_or_do_not_answer_are_passed_over() {
        let (silent, _kept) = silent().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = open.local_addr().unwrap();
        let began = tokio::time::Instant::now();
        let tcp = race(vec![silent, refusing, address]).await.unwrap();
        assert_eq!(tcp.get_ref().peer_addr().unwrap(), address);
        assert!(began.elapsed() < Duration::from_secs(2));
        // The kernel's own patience with a silent node is minutes.
        let alone = tokio::time::timeout(NEXT_AFTER * 2, race(vec![silent]));
        assert!(alone.await.is_err());
    }

    #[tokio::test]
    async fn when_all_refuse_the_last_refusal_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let error = race(vec![refusing, refusing]).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(vec![]).await.is_err());
    }
}
