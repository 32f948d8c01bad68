//! W3C Trace Context: a `traceparent` read and written. Whatever is no such thing is dropped, since
//! it comes from outside and goes into log lines, events and requests.

use std::fmt;

/// Which trace, which span of it, and whether somebody records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Never 0.
    trace_id: u128,
    /// Never 0.
    span_id: u64,
    sampled: bool,
}

/// The length of a version 00 `traceparent`: 2 + 32 + 16 + 2 digits and three dashes.
const LENGTH: usize = 55;

/// The flags' only bit that every version knows.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// `None` where an id is 0, which stands for none.
    #[must_use]
    pub const fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled,
        })
    }

    /// Reads version 00, and of later versions the part that 00 knows, as the standard demands.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !fits || parts.next().is_some() {
            return None;
        }
        let sampled = flags & u128::from(SAMPLED) != 0;
        Self::new(trace_id, u64::try_from(span_id).ok()?, sampled)
    }

    #[must_use]
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    #[must_use]
    pub const fn span_id(&self) -> u64 {
        self.span_id
    }

    #[must_use]
    pub const fn sampled(&self) -> bool {
        self.sampled
    }

    /// The trace's id as logs and tracing backends print it.
    #[must_use]
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// A `traceparent`, version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

/// Exactly `digits` digits, lower case as the standard has it.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(plain) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_back() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.sampled());
        let unsampled = TraceContext::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!unsampled.sampled());
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for later in [
            GOOD.replacen("00", "01", 1),
            GOOD.replacen("00", "cc", 1) + "-what-comes",
        ] {
            assert_eq!(
                TraceContext::parse(&later),
                TraceContext::parse(GOOD),
                "{later}"
            );
        }
        // A bit that this version does not know is not passed on.
        let random = TraceContext::parse(&GOOD.replace("-01", "-03")).unwrap();
        assert_eq!(random.to_string(), GOOD);
    }

    #[test]
    fn what_is_no_traceparent_is_dropped() {
        for bad in [
            "",
            "ola@example.com",
            "00-ola@example.com-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_context_survives_the_way(trace_id: u128, span_id: u64, sampled: bool) {
            let context = TraceContext::new(trace_id, span_id, sampled);
            let back = context.and_then(|context| TraceContext::parse(&context.to_string()));
            prop_assert_eq!(back, context);
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,70}") {
            let _ = TraceContext::parse(&text);
        }
    }
}
