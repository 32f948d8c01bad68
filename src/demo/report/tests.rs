//! Counting what was told, and telling it.

use serde_json::json;

use super::*;

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

fn scripted(request_id: Option<Uuid>, fails: Option<Reason>) -> ScenarioRequest {
    ScenarioRequest {
        account: "T12345678",
        request_id,
        body: Vec::new(),
        fails,
    }
}

fn told(event: u128, request: Option<Uuid>, outcome: &str) -> ReceivedEvent {
    let field = if reason(outcome).is_some() {
        "reason"
    } else {
        "outcome"
    };
    let event = json!({
        "id": Uuid::from_u128(event), "data": { "request_id": request, field: outcome },
    });
    serde_json::from_value(event).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_ends_as_it_must_is_counted() {
    let begin = Instant::now();
    let after = |ms| begin + Duration::from_millis(ms);
    let script = [
        scripted(Some(A), None),
        scripted(Some(B), Some(Reason::UsernameTaken)),
        scripted(None, Some(Reason::InvalidRequest)),
    ];
    let heard = [
        (told(1, Some(A), "already_applied"), after(30)),
        (told(2, Some(B), "username_taken"), after(10)),
        (told(1, Some(A), "already_applied"), after(90)),
        (told(3, None, "invalid_request"), after(5)),
    ];
    let tally = tally(&script, &[begin; 3], &heard);
    assert_eq!((tally.wrong, tally.repeats), (0, 1));
    assert_eq!(tally.outcomes["already_applied"], 1);
    let latency = tally.latency_ms.unwrap();
    assert!((latency.max - 30.0).abs() < 0.1, "{latency:?}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_is_found() {
    let begin = Instant::now();
    let taken = Some(Reason::UsernameTaken);
    let request = |id| scripted(Some(id), None);
    for (script, heard, wrong) in [
        (vec![request(A)], vec![], 1),
        (vec![scripted(None, taken)], vec![], 1),
        (
            vec![request(A)],
            vec![told(1, Some(A), "username_taken")],
            1,
        ),
        (
            vec![scripted(Some(A), taken)],
            vec![told(1, Some(A), "applied")],
            1,
        ),
        (
            vec![request(A)],
            vec![told(1, Some(A), "applied"), told(2, Some(A), "poison")],
            1,
        ),
        (vec![], vec![told(1, Some(A), "applied")], 1),
        (vec![], vec![told(1, None, "invalid_request")], 1),
        (vec![request(A)], vec![told(1, Some(B), "applied")], 2),
    ] {
        let heard: Vec<_> = heard.into_iter().map(|told| (told, begin)).collect();
        let sent = vec![begin; script.len()];
        assert_eq!(tally(&script, &sent, &heard).wrong, wrong, "{script:?}");
    }
}

#[test]
fn the_report_reads_well() {
    let report = DemoReport {
        broker: "a throw-away container of rabbitmq:4.0-management".into(),
        version: Some("4.0.5".into()),
        requests: 1000,
        seconds: 6.04,
        outcomes: [
            ("applied".to_owned(), 800),
            ("already_applied".to_owned(), 20),
            ("user_not_found".to_owned(), 100),
            ("invalid_request".to_owned(), 80),
        ]
        .into(),
        latency_ms: Some(LatencyReport {
            p50: 31.2,
            p90: 58.8,
            p99: 980.4,
            max: 2310.0,
        }),
        wrong: 0,
        repeats: 0,
        took_effect: 820,
        calls: 1340,
        dead_letters: DeadLetterTally {
            queue: "rename.dead-letters".into(),
            letters: 180,
        },
    };
    assert!(report.is_fine());
    insta::assert_snapshot!(report);
    let lost = DemoReport {
        took_effect: 821,
        ..report
    };
    assert!(!lost.is_fine());
}
