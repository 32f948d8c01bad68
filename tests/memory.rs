//! What the worker keeps of requests that wait in the ladder: measured with an allocator that
//! counts, which a process has only one of, so this is a test binary of its own.

use std::alloc::System;
use std::time::Duration;

use jiff::Timestamp;
use rename_worker::core::model::api_response::{ApiResponse, ErrorResponse, UserRecord};
use rename_worker::core::model::outcome::AttemptHistory;
use rename_worker::core::model::request::{AccountId, RenameRequest, Username};
use rename_worker::core::policy::consume_plan::SourceQueue;
use rename_worker::core::scheduler::{
    ArrivedRequest, Destination, Effect, JobEvent, JobId, PublishEffect, PublishPart, Scheduler,
    SchedulerConfig,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WAITING: u64 = 10_000;
const MOST_BYTES: isize = 5_000_000;

/// The shell as far as memory goes: it keeps nothing of a job that is acknowledged.
struct Desk {
    machine: Scheduler,
    now: Timestamp,
    next_job: u64,
}

impl Desk {
    fn say(&mut self, input: JobEvent) -> Vec<Effect> {
        let mut effects = Vec::new();
        let roll = &mut || 0.5;
        self.machine.handle(input, self.now, roll, &mut effects);
        effects
    }

    fn deliver(&mut self, number: u64, carried: AttemptHistory) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.say(JobEvent::Delivered(ArrivedRequest {
            job,
            request: Ok(Box::new(request(number))),
            carried,
            redelivered: false,
            delivery_count: 0,
            fetched: false,
            source: SourceQueue::Requests,
            removed: None,
        }));
        job
    }

    fn publish(&mut self, job: JobId, part: PublishPart) {
        let confirmed = true;
        self.say(JobEvent::Published {
            job,
            part,
            confirmed,
        });
    }

    /// A request that is renamed at once.
    fn rename(&mut self, number: u64, carried: AttemptHistory) {
        let job = self.deliver(number, carried);
        let answer = ApiResponse::User(UserRecord {
            username: new_name(number).into(),
            id: None,
        });
        self.say(JobEvent::Answered { job, answer });
        self.publish(job, PublishPart::Event);
        self.say(JobEvent::Settled { job });
    }

    /// A request that fails in passing and goes to the ladder; what its copy carries.
    fn defer(&mut self, number: u64) -> AttemptHistory {
        // So late in its backoff that it waits for minutes.
        let tried = AttemptHistory {
            attempts: 8,
            first_attempt_at: Some(self.now),
            ..AttemptHistory::default()
        };
        let job = self.deliver(number, tried);
        let answer = ApiResponse::Refused(ErrorResponse {
            status: 503,
            ..ErrorResponse::default()
        });
        let effects = self.say(JobEvent::Answered { job, answer });
        let carried = effects.into_iter().find_map(|effect| match effect {
            Effect::Publish {
                parcel:
                    PublishEffect::Copy {
                        to: Destination::Ladder { .. },
                        carried,
                    },
                ..
            } => Some(carried),
            _ => None,
        });
        self.publish(job, PublishPart::Copy);
        carried.expect("it goes to the ladder")
    }
}

fn request(number: u64) -> RenameRequest {
    RenameRequest {
        request_id: Uuid::from_u128(number.into()),
        account_id: AccountId::parse("T12345678").expect("valid"),
        username: Username::parse(&format!("old-{number}@example.com")).expect("valid"),
        new_username: Username::parse(&new_name(number)).expect("valid"),
        user_id: None,
        requested_at: None,
        requested_by: None,
        not_after: None,
    }
}

fn new_name(number: u64) -> String {
    format!("new-{number}@example.com")
}

#[test]
fn ten_thousand_requests_in_the_ladder_cost_less_than_five_megabytes() {
    let mut desk = Desk {
        machine: Scheduler::new(SchedulerConfig::default()),
        now: Timestamp::from_second(1_800_000_000).expect("a time"),
        next_job: 0,
    };
    desk.say(JobEvent::Up);
    // A worker in full swing: it remembers as many outcomes as it ever does.
    for number in 0..2 * WAITING {
        desk.rename(1_000_000 + number, AttemptHistory::default());
    }

    let region = Region::new(ALLOCATOR);
    let mut copies = Vec::new();
    let mut kept_by_test = 0;
    for number in 0..WAITING {
        copies.push(desk.defer(number));
        // The API is well, but for some.
        desk.rename(2_000_000 + number, AttemptHistory::default());
        kept_by_test = copies.capacity() * size_of::<AttemptHistory>();
    }
    let grown = net(&region) - signed(kept_by_test);
    println!("{WAITING} requests in the ladder: {grown} bytes");
    assert_eq!(desk.machine.counts().in_hand, 0);
    assert!(grown < MOST_BYTES, "{grown} bytes");
    // Their places are kept, so that none of their names is overtaken; that has its price.
    assert!(grown > 500_000, "{grown} bytes: are their places kept?");

    // They come back and end; what is left is room in the tables of what is remembered.
    desk.now = desk
        .now
        .saturating_add(Duration::from_secs(600))
        .expect("later");
    for (number, carried) in (0..WAITING).zip(copies) {
        desk.rename(number, carried);
    }
    let left = net(&region);
    println!("all ended: {left} bytes");
    assert!(left < grown / 2, "{left} bytes");
}

fn net(region: &Region<'_, System>) -> isize {
    let change = region.change();
    signed(change.bytes_allocated) - signed(change.bytes_deallocated)
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("less than the address space")
}
