//! What the API or a proxy answers, and the verdict on it. Nothing of an answer is believed beyond
//! what the contract allows: an unclear answer makes no outcome, and after a try that may have been
//! applied no refusal does.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rename_worker::core::model::api_response::ApiResponse;
use rename_worker::core::model::outcome::Reason;
use rename_worker::core::model::request::RenameRequest;
use rename_worker::core::policy::verdict::{
    CallContext, CallStep, ProvisionalFailure, Verdict, confirmation, judge, sign,
};
use rename_worker::dintero::fuzzing::answer;
use rename_worker::messages::headers::NoHeaders;
use rename_worker::messages::request::read;

const REQUEST: &str = r#"{"request_id":"018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f","account_id":"T12345678",
    "username":"ola","new_username":"kari","user_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a"}"#;

fuzz_target!(|data: &[u8]| {
    let Some((&[status, odd, given, flags], body)) = data.split_first_chunk::<4>() else {
        return;
    };
    const USUAL: [u16; 16] = [
        200, 201, 204, 301, 400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 503, 504,
    ];
    // One in sixteen is any status at all.
    let status = match odd % 16 {
        0 => 100 + u16::from(status) * 4,
        _ => USUAL[usize::from(status) % USUAL.len()],
    };
    let body = (flags & 4 == 0).then(|| body.to_vec());
    let answer = answer(status, None, body, Timestamp::UNIX_EPOCH);
    is_bounded(&answer, status);
    let mut request = read(REQUEST.as_bytes(), None, &NoHeaders).expect("it is valid");
    if given % 2 == 0 {
        request.user_id = None;
    }
    let _ = sign(&answer);
    let _ = answer.gist().to_string();
    let pending = ProvisionalFailure {
        reason: Reason::UserNotFound,
        http_status: Some(404),
        detail: "the user was not found".into(),
    };
    for step in [
        CallStep::Verify,
        CallStep::Rename,
        CallStep::ConfirmOld(pending.clone()),
        CallStep::ConfirmNew(pending.clone()),
        CallStep::ConfirmNewAlone(pending),
    ] {
        let _ = confirmation(&step, &answer, &request);
        is_no_rash_verdict(&step, &answer, &request, flags);
    }
});

fn is_bounded(answer: &ApiResponse, status: u16) {
    let success = (200..300).contains(&status);
    match answer {
        ApiResponse::User(user) => {
            assert!(success);
            assert!((1..=255).contains(&user.username.chars().count()));
        }
        ApiResponse::Malformed { .. } => assert!(success),
        ApiResponse::Refused(refusal) => {
            assert!(!success && refusal.status == status);
            let code = refusal.code.as_deref().unwrap_or("none");
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            assert!(
                (1..=64).contains(&code.len()) && code.chars().all(plain),
                "{code:?}"
            );
        }
        ApiResponse::Silence(_) | ApiResponse::NoToken(_) => panic!("a status came"),
    }
}

fn is_no_rash_verdict(step: &CallStep, answer: &ApiResponse, request: &RenameRequest, flags: u8) {
    let case = CallContext {
        request,
        maybe_applied: flags & 1 != 0,
        verify_before: flags & 2 != 0,
    };
    let verdict = judge(step, answer, case);
    let renaming = matches!(step, CallStep::Rename);
    let status = match answer {
        ApiResponse::Refused(refusal) => Some(refusal.status),
        _ => None,
    };
    match &verdict {
        Verdict::Renamed { .. } => {
            assert!(*step != CallStep::Verify, "only asked");
            let said = matches!(answer, ApiResponse::User(_)) || (!renaming && status == Some(409));
            assert!(said, "told as renamed after {answer:?}");
        }
        Verdict::Failed(failed) if renaming && case.maybe_applied => {
            let unclear = [Reason::UserNotFound, Reason::UsernameTaken];
            assert!(
                !unclear.contains(&failed.reason),
                "an earlier try may have been applied"
            );
        }
        Verdict::Failed(failed) => {
            let garbled = matches!(answer, ApiResponse::Malformed { .. });
            assert!(
                !garbled,
                "{:?} after an answer that says nothing",
                failed.reason
            );
        }
        _ => {}
    }
}
