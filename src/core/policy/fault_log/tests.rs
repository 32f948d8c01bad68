use super::*;

fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    start + Duration::from_secs_f64(seconds)
}

/// What happens to the thing that is watched.
#[derive(Debug, Clone, Copy)]
enum LogStep {
    /// A failure that passes by itself.
    Fails,
    /// A failure that a person must end.
    Refuses,
    Recovers,
    Passes,
}
use LogStep::{Fails, Passes, Recovers, Refuses};

/// The lines of a story, each with its second.
fn lines(story: &[(f64, LogStep)]) -> Vec<(f64, String)> {
    let mut log = OutageLog::default();
    let mut lines = Vec::new();
    for &(second, step) in story {
        let now = at(second);
        let recovered =
            |line: FaultRecovery| format!("back after {:.1} s", line.lasted.as_secs_f64());
        let failed = |line: FaultLine| match line {
            FaultLine::Began => "lost".to_owned(),
            FaultLine::Continues { lasted, left_out } => {
                format!("away for {} s, {left_out} left out", lasted.as_secs())
            }
        };
        let line = match step {
            Fails => log.failed(false, now).map(failed),
            Refuses => log.failed(true, now).map(failed),
            Recovers => log.recovered(now).map(recovered),
            Passes => log.tick(now).map(recovered),
        };
        lines.extend(line.map(|line| (second, line)));
    }
    lines
}

fn expect(story: &[(f64, LogStep)], expected: &[(f64, &str)]) {
    let lines = lines(story);
    let told: Vec<(f64, &str)> = lines
        .iter()
        .map(|(at, line)| (*at, line.as_str()))
        .collect();
    assert_eq!(told, expected, "{story:?}");
}

#[test]
fn an_outage_has_one_line_at_its_begin_and_one_at_its_end() {
    expect(&[(0.0, Recovers)], &[]);
    expect(
        &[
            (0.0, Fails),
            (0.1, Fails),
            (0.3, Fails),
            (2.5, Recovers),
            (100.0, Passes),
        ],
        &[(0.0, "lost"), (2.5, "back after 2.5 s")],
    );
    // The next one is another.
    expect(
        &[
            (0.0, Fails),
            (1.0, Recovers),
            (62.0, Fails),
            (63.0, Recovers),
        ],
        &[
            (0.0, "lost"),
            (1.0, "back after 1.0 s"),
            (62.0, "lost"),
            (63.0, "back after 1.0 s"),
        ],
    );
}

#[test]
fn while_it_lasts_the_lines_come_at_growing_pauses() {
    let an_hour: Vec<_> = (0..3600).map(|second| (f64::from(second), Fails)).collect();
    expect(
        &an_hour,
        &[
            (0.0, "lost"),
            (60.0, "away for 60 s, 59 left out"),
            (120.0, "away for 120 s, 59 left out"),
            (240.0, "away for 240 s, 119 left out"),
            (480.0, "away for 480 s, 239 left out"),
            (960.0, "away for 960 s, 479 left out"),
            (1560.0, "away for 1560 s, 599 left out"),
            (2160.0, "away for 2160 s, 599 left out"),
            (2760.0, "away for 2760 s, 599 left out"),
            (3360.0, "away for 3360 s, 599 left out"),
        ],
    );
}

#[test]
fn that_a_person_is_needed_is_said_at_once_but_not_over_and_over() {
    expect(
        &[
            (0.0, Fails),
            (1.0, Fails),
            (2.0, Refuses),
            (3.0, Refuses),
            (4.0, Fails),
            (5.0, Refuses),
        ],
        &[(0.0, "lost"), (2.0, "away for 2 s, 1 left out")],
    );
    let alternating: Vec<_> = (0..600)
        .map(|second| {
            (
                f64::from(second),
                if second % 2 == 0 { Fails } else { Refuses },
            )
        })
        .collect();
    let told = lines(&alternating);
    for pair in told[1..].windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 60.0, "{told:?}");
    }
}

#[test]
fn one_that_comes_and_goes_is_one_outage_and_its_last_line_says_how_it_ended() {
    // Ten sessions that each end within a second, and one that lasts.
    let mut story = Vec::new();
    for second in 0..10 {
        story.push((f64::from(second), Fails));
        story.push((f64::from(second) + 0.5, Recovers));
    }
    story.extend([
        (20.0, Passes),
        (69.0, Passes),
        (69.5, Passes),
        (70.0, Passes),
    ]);
    expect(
        &story,
        &[
            (0.0, "lost"),
            (0.5, "back after 0.5 s"),
            (69.5, "back after 9.5 s"),
        ],
    );
    // Without an end: at most one line a minute after the first two.
    let forever: Vec<_> = (0..7200)
        .map(|half| {
            (
                f64::from(half) / 2.0,
                if half % 2 == 0 { Fails } else { Recovers },
            )
        })
        .collect();
    assert!(lines(&forever).len() <= 12, "{:?}", lines(&forever));
}

#[test]
fn a_clock_that_is_set_back_brings_no_flood_and_no_panic() {
    let told = lines(&[
        (1000.0, Fails),
        (0.0, Fails),
        (1.0, Recovers),
        (2.0, Passes),
        (3.0, Fails),
    ]);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn lines_of_one_kind_are_bounded_and_the_rest_is_counted() {
    let mut limit = LineLimit::default();
    let admitted = |limit: &mut LineLimit, from: u32, count: u32| -> Vec<u64> {
        (0..count)
            .filter_map(|n| limit.admit(at(f64::from(from) + f64::from(n) / 1000.0)))
            .collect()
    };
    assert_eq!(admitted(&mut limit, 0, 1000), [0; 10]);
    assert_eq!(admitted(&mut limit, 59, 1), [0; 0]);
    // 1,001 came, 10 were written.
    assert_eq!(admitted(&mut limit, 60, 2), [991, 0]);
    // Seldom ones are all written.
    for minute in 2..100 {
        assert_eq!(limit.admit(at(f64::from(minute) * 61.0)), Some(0));
    }
}
