use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::messages::headers::{TRUNCATED_BODY, TRUNCATED_HEADERS};

const PROPERTIES_AROUND: &[u8] = b"\x04json\x01e";
const PROPERTIES_BEHIND: &[u8] =
    b"\x02\x09\x02id\x01r\x0212\x01m\x00\x00\x00\x00\x65\x00\x00\x00\x01t\x01u\x01a\x01c";
const DELIVER: &[u8] = b"\x00\x3c\x00\x3c\x01c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01e\x01k";
const GET_OK: &[u8] =
    b"\x00\x3c\x00\x47\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01e\x01k\x00\x00\x00\x00";
const RETURN: &[u8] = b"\x00\x3c\x00\x32\x01\x38\x01n\x01e\x01k";

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let head = [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes()].concat();
    [&head, payload, &[FRAME_END]].concat()
}

fn tune(frame_max: u32) -> Vec<u8> {
    let arguments = [
        &[0, 10, 0, 30, 7, 0xff][..],
        &frame_max.to_be_bytes(),
        &[0, 60],
    ];
    frame(METHOD, 0, &arguments.concat())
}

/// A header that is text.
fn entry(name: &str, length: usize) -> Vec<u8> {
    let size = u32::try_from(length).unwrap().to_be_bytes();
    let name = [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    [&name[..], b"S", &size, &vec![b'v'; length]].concat()
}

fn number(name: &str, value: u64) -> Vec<u8> {
    let name = [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    [&name[..], b"l", &value.to_be_bytes()].concat()
}

/// Properties, all of them, with these headers, of a body of that size.
fn header(body: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    let table = entries.concat();
    [
        &[0, 60, 0, 0][..],
        &body.to_be_bytes(),
        &0xfffc_u16.to_be_bytes(),
        PROPERTIES_AROUND,
        &u32::try_from(table.len()).unwrap().to_be_bytes(),
        &table,
        PROPERTIES_BEHIND,
    ]
    .concat()
}

fn filter(body_max: Option<u64>) -> FrameFilter {
    FrameFilter::new(StreamLimits { body_max }, FRAME_MAX, Arc::default())
}

/// What goes on, whatever the pieces it comes in.
fn filtered(
    filter: &mut FrameFilter,
    sent: &[u8],
    mut pieces: impl Iterator<Item = usize>,
) -> Vec<u8> {
    let (mut out, mut sent) = (Vec::new(), sent);
    while !sent.is_empty() {
        let (piece, rest) = split(sent, pieces.next().unwrap_or(usize::MAX).max(1));
        filter.push(piece, &mut out);
        sent = rest;
    }
    out
}

#[derive(Debug, PartialEq)]
struct TestFrame<'a> {
    kind: u8,
    channel: u16,
    payload: &'a [u8],
}

/// All frames but heartbeats; each has to be whole.
fn frames(mut bytes: &[u8]) -> Vec<TestFrame<'_>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD>() {
        let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let (payload, rest) = rest.split_at(size);
        assert_eq!(rest[0], FRAME_END);
        bytes = &rest[1..];
        if head[0] != HEARTBEAT[0] {
            let (kind, channel) = (head[0], channel_of(*head));
            frames.push(TestFrame {
                kind,
                channel,
                payload,
            });
        }
    }
    assert!(bytes.is_empty());
    frames
}

/// The headers of a payload, by name; the numbers among them with their value.
fn headers(payload: &[u8]) -> BTreeMap<String, Option<u64>> {
    let at = content_header::FIXED + PROPERTIES_AROUND.len();
    assert_eq!(&payload[content_header::FIXED..at], PROPERTIES_AROUND);
    let length = u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()) as usize;
    let (mut table, behind) = payload[at + 4..].split_at(length);
    assert_eq!(behind, PROPERTIES_BEHIND);
    let mut found = BTreeMap::new();
    while let Some((&length, rest)) = table.split_first() {
        let (name, rest) = rest.split_at(usize::from(length));
        let (value, size) = match rest[0] {
            b'l' => (Some(u64::from_be_bytes(rest[1..9].try_into().unwrap())), 9),
            b'S' => (
                None,
                5 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize,
            ),
            other => panic!("type {other}"),
        };
        found.insert(String::from_utf8(name.to_vec()).unwrap(), value);
        table = &rest[size..];
    }
    found
}

#[test]
fn a_header_frame_beyond_the_agreed_size_loses_its_largest_headers_and_says_how_many() {
    for (theirs, wanted, agreed) in [
        (0, FRAME_MAX, 131_072),
        (8192, FRAME_MAX, 8192),
        (4096, FRAME_MAX, 8192),
        (131_072, FRAME_MAX, 131_072),
        (1 << 20, FRAME_MAX, 131_072),
        (131_072, 10_000, 10_000),
    ] {
        let mut filter = FrameFilter::new(StreamLimits::NONE, wanted, Arc::default());
        filtered(&mut filter, &tune(theirs), std::iter::empty());
        let large = [entry("large", agreed), entry("medium", agreed / 2)];
        let small: Vec<_> = (0..20)
            .map(|nth| entry(&format!("small{nth}"), 5))
            .collect();
        let payload = header(3, &[&large[..1], &small, &large[1..]].concat());
        let sent = [
            frame(METHOD, 7, DELIVER),
            frame(HEADER, 7, &payload),
            frame(BODY, 7, b"abc"),
        ];
        let out = filtered(&mut filter, &sent.concat(), std::iter::repeat(1000));
        let got = frames(&out);
        assert_eq!(got.len(), 3);
        assert!(got[1].payload.len() + FRAME_HEAD < agreed, "{agreed}");
        assert_eq!(content_header::body_size(got[1].payload), 3);
        assert_eq!(got[2].payload, b"abc");
        let kept = headers(got[1].payload);
        assert_eq!(kept.len(), 22, "{kept:?}");
        assert!(kept.contains_key("medium"));
        assert_eq!(kept[TRUNCATED_HEADERS], Some(1));
    }
}

#[test]
fn a_frame_of_the_agreed_size_goes_on_as_it_is_and_one_byte_more_does_not() {
    let without = header(0, &[entry("h", 0)]).len() + FRAME_HEAD + 1;
    for (length, left_out) in [(131_072 - without, None), (131_073 - without, Some(1))] {
        let payload = header(0, &[entry("h", length)]);
        let sent = frame(HEADER, 1, &payload);
        let out = filtered(&mut filter(None), &sent, std::iter::empty());
        let kept = headers(frames(&out)[0].payload);
        assert_eq!(kept.get(TRUNCATED_HEADERS).copied().flatten(), left_out);
        assert_eq!(out == sent, left_out.is_none());
    }
}

#[test]
fn a_header_frame_of_any_length_is_survived_with_little_memory() {
    let mut filter = filter(None);
    let mut out = Vec::new();
    filter.push(&tune(131_072), &mut out);
    out.clear();
    // 200 MB of headers, 50 KB each, and many small ones.
    let (large, small) = (entry("l", 50_000), entry("small", 1));
    let table = 4000 * (large.len() + small.len());
    let mut head = header(1, &[]);
    let at = content_header::FIXED + PROPERTIES_AROUND.len();
    head.truncate(at);
    head.extend(u32::try_from(table).unwrap().to_be_bytes());
    let size = head.len() + table + PROPERTIES_BEHIND.len();
    let start = frame(HEADER, 1, &[]);
    let mut start = start[..FRAME_HEAD].to_vec();
    start[3..].copy_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
    filter.push(&start, &mut out);
    filter.push(&head, &mut out);
    for _ in 0..4000 {
        filter.push(&large, &mut out);
        filter.push(&small, &mut out);
        let FilterState::Rewrite { rewriter, .. } = &filter.state else {
            panic!("it ended too early");
        };
        assert!(rewriter.memory() < 3 * 131_072);
    }
    // lapin heard of the broker all the while.
    assert!(out.len() >= 8000 * HEARTBEAT.len());
    filter.push(PROPERTIES_BEHIND, &mut out);
    filter.push(&[FRAME_END], &mut out);
    let got = frames(&out);
    let kept = headers(got[0].payload);
    assert_eq!(kept["small"], None);
    assert_eq!(kept[TRUNCATED_HEADERS], Some(8000 - HEADERS_MAX as u64));
}

#[test]
fn of_headers_without_number_a_thousand_are_passed_on() {
    let tiny: Vec<_> = (0..20_000)
        .map(|nth| [b"\x03", &nth.to_string().as_bytes()[..1], b"xxV"].concat())
        .collect();
    let large = entry("large", 500);
    for (entries, left_out) in [
        (
            [&tiny[..], std::slice::from_ref(&large)].concat(),
            Some(19_001),
        ),
        ([&tiny[..HEADERS_MAX - 1], &[large]].concat(), None),
    ] {
        let sent = frame(HEADER, 1, &header(0, &entries));
        let out = filtered(&mut filter(None), &sent, std::iter::empty());
        let payload = frames(&out)[0].payload;
        let mark = number(TRUNCATED_HEADERS, left_out.unwrap_or(0));
        let is_marked = payload.windows(mark.len()).any(|part| part == mark);
        assert_eq!(is_marked, left_out.is_some());
        assert_eq!(out == sent, left_out.is_none());
        // Of five bytes each.
        let fixed = header(0, &[mark]).len();
        assert!(left_out.is_none() || payload.len() == fixed + 5 * HEADERS_MAX);
    }
}

#[test]
fn what_we_and_rabbitmq_wrote_is_left_out_last() {
    let ours = ["x-rename-reason", "x-rename-original-exchange", "x-death"];
    let mut entries: Vec<_> = (0..2000).map(|nth| number(&format!("{nth}"), 1)).collect();
    entries.extend(ours.map(|name| entry(name, 300)));
    let sent = frame(HEADER, 1, &header(0, &entries));
    let out = filtered(&mut filter(None), &sent, std::iter::empty());
    let kept = headers(frames(&out)[0].payload);
    assert_eq!(kept[TRUNCATED_HEADERS], Some(1003));
    for name in ours {
        assert!(kept.contains_key(name), "{name}");
    }
}

#[test]
fn what_a_publisher_writes_as_a_mark_is_removed() {
    let forged = [
        number(TRUNCATED_HEADERS, 5),
        entry("mine", 3),
        number(TRUNCATED_BODY, 9),
        entry("x-rename-truncated-else", 1),
    ];
    let sent = [
        frame(METHOD, 1, DELIVER),
        frame(HEADER, 1, &header(2, &forged)),
    ]
    .concat();
    let out = filtered(&mut filter(Some(5)), &sent, std::iter::empty());
    let kept = headers(frames(&out)[1].payload);
    let names: Vec<_> = kept.keys().map(String::as_str).collect();
    assert_eq!(names, ["mine", "x-rename-truncated-else"]);
}

#[test]
fn a_long_body_is_cut_and_its_size_told() {
    for announced in [DELIVER, GET_OK] {
        let body = vec![b'b'; 1000];
        let sent = [
            frame(METHOD, 3, announced),
            frame(HEADER, 3, &header(1000, &[])),
            frame(BODY, 3, &body[..60]),
            frame(BODY, 3, b""),
            frame(BODY, 3, &body[60..900]),
            frame(BODY, 3, &body[900..]),
            // The next one is short enough.
            frame(METHOD, 3, announced),
            frame(HEADER, 3, &header(100, &[])),
            frame(BODY, 3, &body[..100]),
        ];
        let out = filtered(&mut filter(Some(100)), &sent.concat(), std::iter::repeat(7));
        let got = frames(&out);
        assert_eq!(headers(got[1].payload)[TRUNCATED_BODY], Some(1000));
        assert_eq!(content_header::body_size(got[1].payload), 100);
        let bodies = |got: &[TestFrame<'_>]| -> usize {
            let bodies = got.iter().filter(|frame| frame.kind == BODY);
            bodies.map(|frame| frame.payload.len()).sum()
        };
        let next = got.iter().rposition(|frame| frame.kind == METHOD).unwrap();
        assert_eq!(bodies(&got[..next]), 100);
        assert!(headers(got[next + 1].payload).is_empty());
        assert_eq!(bodies(&got[next..]), 100);
    }
}

#[test]
fn what_comes_back_to_its_publisher_is_never_cut() {
    let sent = [
        frame(METHOD, 3, RETURN),
        frame(HEADER, 3, &header(200, &[])),
        frame(BODY, 3, &[b'b'; 200]),
    ]
    .concat();
    assert_eq!(
        filtered(&mut filter(Some(100)), &sent, std::iter::empty()),
        sent
    );
}

/// A message, as it comes on a channel of its own.
#[derive(Debug, Clone)]
struct SentFrame {
    headers: Vec<usize>,
    body: Vec<u8>,
    /// Where the body's frames begin.
    parts: Vec<usize>,
}

fn message() -> impl Strategy<Value = SentFrame> {
    let length = prop_oneof![4 => 0..50_usize, 1 => 0..6000_usize, 1 => Just(2040)];
    let body = prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 0..3000)];
    (
        vec(length, 0..30),
        body,
        vec(any::<prop::sample::Index>(), 0..5),
    )
        .prop_map(|(headers, body, parts)| {
            let mut parts: Vec<_> = parts
                .iter()
                .map(|part| part.index(body.len() + 1))
                .collect();
            parts.sort_unstable();
            SentFrame {
                headers,
                body,
                parts,
            }
        })
}

impl SentFrame {
    fn frames(&self, channel: u16) -> Vec<Vec<u8>> {
        let entries = self.headers.iter().enumerate();
        let entries: Vec<_> = entries
            .map(|(nth, length)| entry(&format!("h{nth}"), *length))
            .collect();
        let mut frames = vec![
            frame(METHOD, channel, DELIVER),
            frame(HEADER, channel, &header(self.body.len() as u64, &entries)),
        ];
        let ends = self.parts.iter().copied().chain([self.body.len()]);
        let mut start = 0;
        for end in ends {
            frames.push(frame(BODY, channel, &self.body[start..end]));
            start = end;
        }
        frames
    }

    /// Checks what came of it.
    fn check(&self, got: &[&TestFrame<'_>], body_max: u64, frame_max: usize) {
        let max = usize::try_from(body_max).unwrap();
        let cut = self.body.len() > max;
        let payload = got[1].payload;
        assert!(payload.len() + FRAME_HEAD < frame_max);
        let body: Vec<u8> = got[2..]
            .iter()
            .flat_map(|frame| frame.payload.to_vec())
            .collect();
        assert_eq!(body, self.body[..self.body.len().min(max)]);
        assert_eq!(content_header::body_size(payload), body.len() as u64);
        let mut kept = headers(payload);
        let told = kept.remove(TRUNCATED_BODY);
        assert_eq!(told, cut.then_some(Some(self.body.len() as u64)));
        let left_out = kept.remove(TRUNCATED_HEADERS).flatten().unwrap_or(0);
        assert_eq!(kept.len() as u64 + left_out, self.headers.len() as u64);
        // None that is left out is smaller than one that is kept.
        let size = |nth: usize| entry(&format!("h{nth}"), self.headers[nth]).len();
        let (inside, outside): (Vec<_>, Vec<_>) =
            (0..self.headers.len()).partition(|nth| kept.contains_key(&format!("h{nth}")));
        let largest = inside.into_iter().map(size).max().unwrap_or(0);
        let smallest = outside.into_iter().map(size).min().unwrap_or(usize::MAX);
        assert!(largest <= smallest);
        if left_out > 0 {
            // And none is left out for nothing; the marks take a little.
            assert!(payload.len() + smallest + 100 > frame_max);
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_pieces_and_the_order_of_channels_each_message_comes_out_whole_or_cut(
        messages in vec(message(), 1..5),
        order in vec(any::<prop::sample::Index>(), 0..60),
        pieces in vec(1..5000_usize, 1..20),
        body_max in 0..2000_u64,
    ) {
        const AGREED: u32 = 8192;
        let mut waiting: Vec<_> = (1_u16..).zip(&messages).map(|(channel, message)| {
            let frames = message.frames(channel);
            frames.into_iter().collect::<std::collections::VecDeque<_>>()
        }).collect();
        let mut sent = Vec::new();
        let mut order = order.iter().cycle();
        while waiting.iter().any(|frames| !frames.is_empty()) {
            let left: Vec<_> = (0..waiting.len()).filter(|nth| !waiting[*nth].is_empty()).collect();
            let nth = order.next().map_or(left[0], |index| left[index.index(left.len())]);
            sent.extend(waiting[nth].pop_front().unwrap());
        }
        let mut filter = filter(Some(body_max));
        filtered(&mut filter, &tune(AGREED), std::iter::empty());
        let out = filtered(&mut filter, &sent, pieces.into_iter().cycle());
        let got = frames(&out);
        for (channel, message) in (1..).zip(&messages) {
            let own: Vec<_> = got.iter().filter(|frame| frame.channel == channel).collect();
            message.check(&own, body_max, AGREED as usize);
        }
        // Nothing is remembered of what is over.
        prop_assert!(filter.contents.is_empty() && filter.held.is_empty());
    }

    #[test]
    fn no_bytes_whatever_end_in_a_panic_or_in_much_memory(
        start in vec(any::<u8>(), 0..40),
        kinds in vec((1..4_u8, vec(any::<u8>(), 0..300)), 0..20),
        pieces in vec(1..50_usize, 1..20),
    ) {
        let mut sent: Vec<u8> = kinds.iter().flat_map(|(kind, payload)| frame(*kind, 1, payload)).collect();
        sent.extend(start);
        let mut filter = filter(Some(10));
        filter.agree(FRAME_MIN);
        let out = filtered(&mut filter, &sent, pieces.into_iter().cycle());
        prop_assert!(out.len() <= sent.len() * 2 + 16_384 * kinds.len().max(1));
    }

    #[test]
    fn properties_that_are_no_properties_come_out_as_some_that_fit(
        payload in vec(any::<u8>(), 8200..10_000),
        flags in any::<u16>(),
        pieces in vec(1..500_usize, 1..20),
    ) {
        let mut payload = payload;
        payload[12..14].copy_from_slice(&flags.to_be_bytes());
        let mut filter = filter(None);
        filter.agree(FRAME_MIN);
        let out = filtered(&mut filter, &frame(HEADER, 1, &payload), pieces.into_iter().cycle());
        let got = frames(&out);
        prop_assert_eq!(got.len(), 1);
        prop_assert!(got[0].payload.len() + FRAME_HEAD < FRAME_MIN as usize);
    }
}
