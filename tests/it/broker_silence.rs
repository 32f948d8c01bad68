//! Ways to the broker on which a connection is taken and then not served, or served slowly: the
//! link does not wait for what never comes, and has patience with what comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use lapin::BasicProperties;
use rename_worker::broker::{BrokerEvent, PublishId, RetryClass};
use rename_worker::core::policy::consume_plan::ConsumeScope;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::broker_bench::{Bench, PATIENCE, amqp};
use crate::support::proxy::Proxy;
use crate::support::{broker, unique_prefix};

/// So soon requests come again once the broker is back, with room for a machine that is busy with
/// other tests: alone it is well under two seconds. A link that waits for what never comes takes ten
/// and more.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// No younger try beside the first is given longer than this.
const YOUNGER_TRIES: Duration = Duration::from_secs(2);

fn address(url: &str) -> &str {
    let (_, rest) = url.split_once('@').unwrap();
    rest.split_once('/').unwrap().0
}

fn url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

#[derive(Debug, Clone, Copy)]
enum Then {
    /// The connection stays, and nothing comes any more.
    Silence,
    End,
}

/// A way on which only the first bytes of what the broker says come through. Once it is healed, new
/// connections have all; those from before stay as they are.
struct Choked {
    port: u16,
    healed: Arc<AtomicBool>,
    said: Arc<AtomicUsize>,
    stuck: Arc<Notify>,
}

impl Choked {
    async fn to(target: &str, after: usize, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let choked = Self {
            port: listener.local_addr().unwrap().port(),
            healed: Arc::default(),
            said: Arc::default(),
            stuck: Arc::default(),
        };
        let (healed, said) = (Arc::clone(&choked.healed), Arc::clone(&choked.said));
        let (stuck, target) = (Arc::clone(&choked.stuck), address(target).to_owned());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                let limit = if healed.load(Ordering::Relaxed) {
                    usize::MAX
                } else {
                    after
                };
                let (said, stuck) = (Arc::clone(&said), Arc::clone(&stuck));
                tokio::spawn(async move {
                    let (mut from_near, to_near) = near.into_split();
                    let (from_far, mut to_far) = far.into_split();
                    tokio::select! {
                        _ = copy(&mut from_near, &mut to_far) => {}
                        _open = some(from_far, to_near, limit, &said) => {
                            stuck.notify_one();
                            if matches!(then, Then::Silence) {
                                std::future::pending::<()>().await;
                            }
                        }
                    }
                });
            }
        });
        choked
    }

    fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }
}

/// Hands `limit` bytes on, and then gives back both ends, still open.
async fn some(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    limit: usize,
    said: &AtomicUsize,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut left = limit;
    let mut chunk = [0; 4096];
    while left > 0 {
        let most = chunk.len().min(left);
        let Ok(count @ 1..) = from.read(&mut chunk[..most]).await else {
            break;
        };
        said.fetch_add(count, Ordering::Relaxed);
        if to.write_all(&chunk[..count]).await.is_err() {
            break;
        }
        left -= count;
    }
    (from, to)
}

/// How much a broker says until a session is up.
async fn said_until_up(plain: &str) -> usize {
    let open = Choked::to(plain, usize::MAX, Then::Silence).await;
    let mut bench = Bench::with(amqp(&url(open.port), &unique_prefix()), plain).await;
    bench.up().await;
    let said = open.said.load(Ordering::Relaxed);
    bench.finish().await;
    said
}

/// Lets the link run into the choked way, heals it, and says how long it then took until a request
/// came.
async fn healed(plain: &str, after: usize, then: Then) -> Duration {
    let choked = Choked::to(plain, after, then).await;
    let mut bench = Bench::with(amqp(&url(choked.port), &unique_prefix()), plain).await;
    choked.stuck.notified().await;
    // Into the midst of whatever it does about it.
    sleep(Duration::from_millis(1_300)).await;
    choked.heal();
    let began = Instant::now();
    let mut asked = false;
    loop {
        match bench.next().await {
            BrokerEvent::Up { epoch } => {
                bench.epoch = epoch;
                bench.link.consume(epoch, ConsumeScope::All);
                if !std::mem::replace(&mut asked, true) {
                    bench.request("first", BasicProperties::default()).await;
                }
            }
            BrokerEvent::Failed { why, .. } | BrokerEvent::Down { why, .. } => {
                assert_eq!(why.pace(), RetryClass::Quick, "{why}");
            }
            BrokerEvent::Delivered(first) => {
                assert_eq!(first.body(), b"first");
                break;
            }
            other => panic!("{other:?} before a request"),
        }
    }
    let took = began.elapsed();
    bench.finish().await;
    took
}

/// The best of three, if need be: a machine that is busy with other tests takes seconds for anything,
/// but a link that waits for what never comes does so each time.
async fn best(plain: &str, after: usize, then: Then) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let took = healed(plain, after, then).await;
        best = best.min(beyond_usual(plain, took).await);
        if best < AGAIN_WITHIN {
            break;
        }
    }
    best
}

/// Without what a link takes on a broker that is well, where that may make the difference.
async fn beyond_usual(plain: &str, took: Duration) -> Duration {
    if took < AGAIN_WITHIN {
        return took;
    }
    let began = Instant::now();
    said_until_up(plain).await;
    took.saturating_sub(began.elapsed())
}

#[tokio::test]
async fn wherever_the_broker_falls_silent_a_request_comes_soon_after_its_return() {
    let plain = broker().await;
    let all = said_until_up(plain).await;
    let points = [0, 5, 20, 40, 50, 60, 80, 99].map(|percent| all * percent / 100);
    let mut runs = stream::iter(points)
        .flat_map(|after| stream::iter([Then::Silence, Then::End].map(|then| (after, then))))
        .map(async |(after, then)| (after, then, best(plain, after, then).await))
        .buffer_unordered(2);
    while let Some((after, then, took)) = runs.next().await {
        assert!(
            took < AGAIN_WITHIN,
            "{then:?} after {after} of {all} bytes: it took {took:?}"
        );
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_when_asked_to_deliver_is_given_up_within_seconds() {
    let plain = broker().await;
    let all = said_until_up(plain).await;
    // Into the answer to the consume.
    let took = healed(plain, all + 5, Then::Silence).await;
    println!("again after {took:?}");
    // Far below what the heartbeats take to tell.
    assert!(took < Duration::from_secs(8), "it took {took:?}");
}

#[tokio::test]
async fn when_a_stall_of_the_network_ends_a_request_comes_soon() {
    let plain = broker().await;
    let proxy = Proxy::to(address(plain)).await;
    let mut bench = Bench::with(amqp(&url(proxy.address.port()), &unique_prefix()), plain).await;
    bench.up().await;
    for stalled in [300, 1_500, 3_000] {
        proxy.stall();
        assert!(proxy.cut() > 0);
        let why = bench.down().await;
        assert_eq!(why.pace(), RetryClass::Quick, "{why}");
        sleep(Duration::from_millis(stalled)).await;
        proxy.flow();
        let began = Instant::now();
        bench.up().await;
        bench.link.consume(bench.epoch, ConsumeScope::All);
        bench.request("next", BasicProperties::default()).await;
        let next = bench.delivered().await;
        let took = began.elapsed();
        bench.settle(next).await;
        // An ack that the cut takes away would bring it again.
        bench.link.flush(bench.epoch, PublishId(9));
        let flushed = bench.next().await;
        assert!(
            matches!(flushed, BrokerEvent::Flushed { .. }),
            "{flushed:?}"
        );
        let took = beyond_usual(plain, took).await;
        assert!(took < AGAIN_WITHIN, "it took {took:?}");
    }
    bench.finish().await;
}

/// Every answer of the broker comes so much later.
async fn slow(target: &str, by: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = address(target).to_owned();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move {
                let (mut from_near, mut to_near) = near.into_split();
                let (mut from_far, mut to_far) = far.into_split();
                let back = async {
                    let mut chunk = [0; 4096];
                    while let Ok(count @ 1..) = from_far.read(&mut chunk).await {
                        sleep(by).await;
                        if to_near.write_all(&chunk[..count]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    _ = copy(&mut from_near, &mut to_far) => {}
                    () = back => {}
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_broker_that_takes_seconds_to_let_us_in_is_waited_for() {
    let plain = broker().await;
    let port = slow(plain, Duration::from_millis(200)).await;
    let began = Instant::now();
    let mut bench = Bench::with(amqp(&url(port), &unique_prefix()), plain).await;
    let first = bench.next().await;
    assert!(matches!(first, BrokerEvent::Up { .. }), "{first:?}");
    let took = began.elapsed();
    assert!(
        took > YOUNGER_TRIES && took < PATIENCE,
        "slower than any younger try may be: {took:?}"
    );
    bench.finish().await;
}
