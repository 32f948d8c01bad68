//! What of the broker's bytes is handed on to lapin, and in which form. No input or output: bytes
//! come in as the network cut them, and go out.
//!
//! - Methods and properties that lapin cannot read are put right: see [`frame_sanitizer`].
//! - Properties that do not fit into the agreed frame are shortened: see [`content_header`].
//! - A body that is longer than this connection takes ([`StreamLimits::body_max`]) is cut: its first
//!   bytes go on, the rest is dropped as it comes, and the message is marked. The prefetch counts
//!   messages and not bytes, so that otherwise whoever may publish decides over our memory.
//!
//! While nothing goes on although bytes come, as where a long body is dropped, a heartbeat is handed
//! on: lapin is to know that the broker lives.

use std::collections::HashMap;
use std::sync::Arc;

use super::content_header::{self, HEADERS_MAX, HeaderRewriter, RewrittenHeader};
use super::frame_sanitizer;
use super::frame_sanitizer::{
    BASIC_DELIVER, BASIC_GET_OK, BASIC_RETURN, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CONNECTION_TUNE,
    MethodFrame,
};
use super::server_properties::ServerVersion;

/// The frame size that we ask for, RabbitMQ's own default. lapin holds 64 times as much as was
/// agreed on for each connection.
pub(in crate::broker) const FRAME_MAX: u32 = 128 * 1024;
/// The smallest that lapin and RabbitMQ 4 agree on. AMQP itself allows for 4096.
pub(in crate::broker) const FRAME_MIN: u32 = 8192;
/// The largest that may be asked for by the URL: lapin then takes 64 MiB.
pub(in crate::broker) const FRAME_MOST: u32 = 1024 * 1024;

/// Frame type (1 byte), channel (2), size of the payload (4).
const FRAME_HEAD: usize = 7;
/// The byte after the payload.
const FRAME_END: u8 = 0xce;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];
/// A method that claims to be longer goes through unseen, so that nobody can have all memory.
const LONGEST_METHOD: usize = 4 * 1024 * 1024;

/// How much a connection takes of what the broker sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// A longer body is cut to this many bytes; none is, where this is `None`.
    pub body_max: Option<u64>,
}

impl StreamLimits {
    /// Messages come whole.
    pub const NONE: Self = Self { body_max: None };
}

pub(in crate::broker) struct FrameFilter {
    limits: StreamLimits,
    /// The frame size that we ask for.
    wanted: u32,
    /// The one that was agreed on, as soon as the broker has said its own.
    agreed: usize,
    tuned: bool,
    greeting: Arc<ServerVersion>,
    state: FilterState,
    /// A frame's beginning, or all of it, until it can be handed on.
    held: Vec<u8>,
    contents: HashMap<u16, ContentState>,
}

enum FilterState {
    /// Before and in a frame's head.
    Head,
    /// Until so many bytes are held: a frame, whole.
    Whole(usize),
    /// This many bytes go on as they come, then so many are dropped. Where both do, the frame ends
    /// between them.
    Pass { on: usize, drop: usize },
    /// The properties of a message are rewritten; so many bytes of them are to come.
    Rewrite {
        channel: u16,
        rewriter: Box<HeaderRewriter>,
        left: usize,
    },
}

/// The message that comes on a channel.
#[derive(Clone, Copy, Default)]
struct ContentState {
    /// Whether its body may be cut: one that comes back to its publisher may not.
    may_cut: bool,
    /// Where it is cut: how many bytes of the body are to come and to go on.
    to_come: u64,
    to_go: u64,
}

impl FrameFilter {
    /// For a connection on which frames of `wanted` bytes are asked for.
    pub(in crate::broker) fn new(
        limits: StreamLimits,
        wanted: u32,
        greeting: Arc<ServerVersion>,
    ) -> Self {
        let mut filter = Self {
            limits,
            wanted,
            agreed: 0,
            tuned: false,
            greeting,
            state: FilterState::Head,
            held: Vec::new(),
            contents: HashMap::new(),
        };
        filter.agree(0);
        filter
    }

    /// Takes what came from the broker, and adds to `out` what is handed on.
    pub(in crate::broker) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        let (came, before) = (!input.is_empty(), out.len());
        while !input.is_empty() {
            input = self.take(input, out);
        }
        let between_frames = !matches!(self.state, FilterState::Pass { on: 1.., .. });
        if came && out.len() == before && self.tuned && between_frames {
            out.extend_from_slice(&HEARTBEAT);
        }
    }

    /// What is held still where the connection ends in the middle of a frame.
    pub(in crate::broker) fn rest(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Takes some of it; what is left.
    fn take<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        match &mut self.state {
            FilterState::Head => {
                let (taken, rest) = split(input, FRAME_HEAD - self.held.len());
                self.held.extend_from_slice(taken);
                if let Some(&head) = self.held.first_chunk() {
                    self.begin(head, out);
                }
                rest
            }
            FilterState::Whole(size) => {
                let (taken, rest) = split(input, *size - self.held.len());
                self.held.extend_from_slice(taken);
                if self.held.len() == *size {
                    self.state = FilterState::Head;
                    self.on_whole(out);
                }
                rest
            }
            FilterState::Pass { on, drop } => {
                let (passed, rest) = split(input, *on);
                out.extend_from_slice(passed);
                *on -= passed.len();
                if !passed.is_empty() && *on == 0 && *drop > 0 {
                    out.push(FRAME_END);
                }
                if *on > 0 {
                    return rest;
                }
                let (dropped, rest) = split(rest, *drop);
                *drop -= dropped.len();
                if *on == 0 && *drop == 0 {
                    self.state = FilterState::Head;
                }
                rest
            }
            FilterState::Rewrite { rewriter, left, .. } => {
                let (taken, rest) = split(input, *left);
                rewriter.push(taken);
                *left -= taken.len();
                if *left == 0 {
                    // Of the frame's own end, which is dropped, one was put already.
                    let ended = FilterState::Pass { on: 0, drop: 1 };
                    if let FilterState::Rewrite {
                        channel, rewriter, ..
                    } = std::mem::replace(&mut self.state, ended)
                    {
                        self.on_rewritten(channel, *rewriter, out);
                    }
                }
                rest
            }
        }
    }

    /// A frame's head has come.
    fn begin(&mut self, head: [u8; FRAME_HEAD], out: &mut Vec<u8>) {
        let [kind, _, _, size @ ..] = head;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        let whole = FRAME_HEAD + size + 1;
        match kind {
            METHOD if whole <= LONGEST_METHOD => self.state = FilterState::Whole(whole),
            HEADER if whole <= self.agreed => self.state = FilterState::Whole(whole),
            HEADER => {
                self.held.clear();
                let channel = channel_of(head);
                self.state = FilterState::Rewrite {
                    channel,
                    rewriter: Box::new(self.rewriter(channel)),
                    left: size,
                };
            }
            BODY if self.is_cutting(channel_of(head)) => self.begin_cut(head, size, out),
            _ => {
                out.append(&mut self.held);
                self.state = FilterState::Pass {
                    on: size + 1,
                    drop: 0,
                };
            }
        }
    }

    /// A part of a body that is cut.
    fn begin_cut(&mut self, mut head: [u8; FRAME_HEAD], size: usize, out: &mut Vec<u8>) {
        self.held.clear();
        let channel = channel_of(head);
        let Some(content) = self.contents.get_mut(&channel) else {
            return;
        };
        let on = usize::try_from(content.to_go).map_or(size, |left| left.min(size));
        content.to_go -= on as u64;
        content.to_come = content.to_come.saturating_sub(size as u64);
        if content.to_come == 0 {
            self.contents.remove(&channel);
        }
        if on == size {
            out.extend_from_slice(&head);
            self.state = FilterState::Pass {
                on: size + 1,
                drop: 0,
            };
            return;
        }
        // The part that goes on is a frame of its own.
        if on > 0 {
            let size = u32::try_from(on).unwrap_or(u32::MAX);
            head[3..].copy_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&head);
        }
        self.state = FilterState::Pass {
            on,
            drop: size - on + 1,
        };
    }

    fn on_whole(&mut self, out: &mut Vec<u8>) {
        let Some(&head) = self.held.first_chunk::<FRAME_HEAD>() else {
            return;
        };
        let mut frame = std::mem::take(&mut self.held);
        let end = frame.len() - 1;
        let payload = &mut frame[FRAME_HEAD..end];
        let channel = channel_of(head);
        if head[0] == METHOD {
            self.greeting.parse(payload);
            frame_sanitizer::method(payload);
            self.on_method(channel, payload);
        } else if frame_sanitizer::properties(payload) > HEADERS_MAX
            || self.is_too_long(channel, payload)
            || content_header::may_have_marks(payload)
        {
            let mut rewriter = self.rewriter(channel);
            rewriter.push(payload);
            self.on_rewritten(channel, rewriter, out);
            return;
        } else {
            self.contents.remove(&channel);
        }
        out.extend_from_slice(&frame);
        // Its memory serves the next one.
        frame.clear();
        self.held = frame;
    }

    fn on_method(&mut self, channel: u16, payload: &[u8]) {
        let Some((method, arguments)) = method_of(payload) else {
            return;
        };
        match method {
            CONNECTION_TUNE => {
                // It comes after the highest number of channels, of two bytes.
                let theirs = arguments.get(2..).and_then(<[u8]>::first_chunk);
                self.agree(theirs.map_or(0, |bytes| u32::from_be_bytes(*bytes)));
                self.tuned = true;
            }
            BASIC_DELIVER | BASIC_GET_OK | BASIC_RETURN => {
                let content = ContentState {
                    may_cut: method != BASIC_RETURN,
                    ..ContentState::default()
                };
                self.contents.insert(channel, content);
            }
            CHANNEL_CLOSE | CHANNEL_CLOSE_OK => {
                self.contents.remove(&channel);
            }
            _ => {}
        }
    }

    fn on_rewritten(&mut self, channel: u16, rewriter: HeaderRewriter, out: &mut Vec<u8>) {
        let RewrittenHeader { payload, cut_from } = rewriter.finish();
        match (cut_from, self.body_max(channel)) {
            (Some(to_come), Some(to_go)) => {
                let content = self.contents.entry(channel).or_default();
                (content.to_come, content.to_go) = (to_come, to_go);
            }
            _ => {
                self.contents.remove(&channel);
            }
        }
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out.push(HEADER);
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&payload);
        out.push(FRAME_END);
    }

    /// The agreed size, where the broker asks for this one. As lapin reckons it.
    fn agree(&mut self, theirs: u32) {
        let agreed = match (self.wanted, theirs) {
            (wanted, 0) => wanted,
            (wanted, theirs) => wanted.min(theirs),
        };
        self.agreed = usize::try_from(agreed.max(FRAME_MIN)).unwrap_or(usize::MAX);
    }

    fn rewriter(&self, channel: u16) -> HeaderRewriter {
        HeaderRewriter::new(self.agreed - FRAME_HEAD - 1, self.body_max(channel))
    }

    fn body_max(&self, channel: u16) -> Option<u64> {
        let content = self.contents.get(&channel);
        let may_cut = content.is_some_and(|content| content.may_cut);
        self.limits.body_max.filter(|_| may_cut)
    }

    fn is_too_long(&self, channel: u16, payload: &[u8]) -> bool {
        let size = content_header::body_size(payload);
        self.body_max(channel).is_some_and(|max| size > max)
    }

    fn is_cutting(&self, channel: u16) -> bool {
        let content = self.contents.get(&channel);
        content.is_some_and(|content| content.to_come > 0)
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

const fn channel_of(head: [u8; FRAME_HEAD]) -> u16 {
    u16::from_be_bytes([head[1], head[2]])
}

/// The class and method, and the arguments.
fn method_of(payload: &[u8]) -> Option<(MethodFrame, &[u8])> {
    let (&[class, class_low, method, method_low], arguments) = payload.split_first_chunk()?;
    let numbers = [[class, class_low], [method, method_low]];
    let [class, method] = numbers.map(u16::from_be_bytes);
    Some(((class, method), arguments))
}

#[cfg(test)]
mod tests;
