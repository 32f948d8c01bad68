//! `Retry-After`, whatever is in it: seconds or a date, never past, an hour at most.

#![no_main]

use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rename_worker::core::model::api_response::ApiResponse;
use rename_worker::dintero::fuzzing::answer;

const HOUR: Duration = Duration::from_secs(3_600);

fuzz_target!(|data: &[u8]| {
    let Some((&now, header)) = data.split_first_chunk::<8>() else {
        return;
    };
    let (least, most) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let now = i64::from_be_bytes(now).clamp(least, most);
    let now = Timestamp::from_second(now).expect("it is within bounds");
    let ApiResponse::Refused(refusal) = answer(429, Some(header), Some(Vec::new()), now) else {
        panic!("429 is a refusal");
    };
    let wait = refusal.retry_after;
    assert!(wait.is_none_or(|wait| wait <= HOUR), "{wait:?}");
    let digits = !header.is_empty() && header.iter().all(u8::is_ascii_digit);
    if digits {
        let text = std::str::from_utf8(header).expect("digits are ASCII");
        let seconds = text.parse().unwrap_or(u64::MAX);
        assert_eq!(wait, Some(Duration::from_secs(seconds).min(HOUR)));
    }
});
