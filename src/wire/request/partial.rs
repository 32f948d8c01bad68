//! What can be read of a body that is no valid request: for its failed event, and for review.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::super::object::Name;
use super::uuid;
use crate::core::request::AccountId;

/// The parts of a request as they were given, valid or not. They may be anyone's words, so `Debug`
/// hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartialRequest {
    pub request_id: Option<Box<str>>,
    pub account_id: Option<Box<str>>,
    pub username: Option<Box<str>>,
    pub new_username: Option<Box<str>>,
    /// The same for the same bytes, and for no others: it stands in for a request id that is
    /// missing or no UUID.
    pub fingerprint: Uuid,
}

/// What is read of an oversized body, in bytes; the broker may let through a thousand times more.
const LOOKED_AT_MAX: usize = 1024 * 1024;
/// Longer parts are left out: four times the longest username, in bytes.
const PART_MAX: usize = 1024;
/// Fingerprints' own namespace, so that they never meet another UUID's; chosen at random.
const FINGERPRINTS: Uuid = Uuid::from_u128(0x62e0_85a9_3dd8_48d1_b4ba_1c13_11a2_de80);

impl PartialRequest {
    /// Reads until something stops it, and keeps what it has by then.
    pub(super) fn gather(body: &[u8], in_envelope: bool) -> Self {
        let front = &body[..body.len().min(LOOKED_AT_MAX)];
        let mut partial = Self {
            fingerprint: Uuid::new_v5(&FINGERPRINTS, front),
            ..Self::default()
        };
        let seed = Gather {
            into: &mut partial,
            in_envelope,
        };
        // An error only says where it stopped; what is wrong is told by the second look.
        let _ = seed.deserialize(&mut serde_json::Deserializer::from_slice(front));
        partial
    }

    /// The request's id, if it is one.
    #[must_use]
    pub fn request_uuid(&self) -> Option<Uuid> {
        self.request_id.as_deref().and_then(uuid)
    }

    /// The account, if it is one.
    #[must_use]
    pub fn account(&self) -> Option<AccountId> {
        self.account_id
            .as_deref()
            .and_then(|text| AccountId::parse(text).ok())
    }
}

impl fmt::Debug for PartialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialRequest")
            .field("request_id", &self.request_uuid())
            .field("account_id", &self.account())
            .finish_non_exhaustive()
    }
}

const NAMES: [&str; 5] = [
    "request_id",
    "account_id",
    "username",
    "new_username",
    "data",
];

struct Gather<'a> {
    into: &'a mut PartialRequest,
    in_envelope: bool,
}

impl<'de> DeserializeSeed<'de> for Gather<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Gather<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Name(&NAMES))? {
            let part = match (place, self.in_envelope) {
                (Some(4), true) => {
                    map.next_value_seed(Gather {
                        into: &mut *self.into,
                        in_envelope: false,
                    })?;
                    continue;
                }
                (Some(0), false) => &mut self.into.request_id,
                (Some(1), false) => &mut self.into.account_id,
                (Some(2), false) => &mut self.into.username,
                (Some(3), false) => &mut self.into.new_username,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value::<Part>()?.0;
            // Of two, the first: it is what a reader that stops early would have seen.
            *part = part.take().or(value);
        }
        Ok(())
    }
}

/// Text of a sensible length, or nothing.
struct Part(Option<Box<str>>);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self(None))
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        Ok(Self((text.len() <= PART_MAX).then(|| text.into())))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

/// Which of the names an object says more than once; none when it cannot be read.
pub(super) fn duplicates(text: &str, names: &[&'static str]) -> Vec<&'static str> {
    let seed = Count(names);
    seed.deserialize(&mut serde_json::Deserializer::from_str(text))
        .unwrap_or_default()
}

struct Count<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = Vec<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = Vec<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut times = vec![0_usize; self.0.len()];
        while let Some(place) = map.next_key_seed(Name(self.0))? {
            map.next_value::<IgnoredAny>()?;
            if let Some(place) = place {
                times[place] += 1;
            }
        }
        let names = self.0.iter().zip(times);
        Ok(names
            .filter(|(_, n)| *n > 1)
            .map(|(name, _)| *name)
            .collect())
    }
}
