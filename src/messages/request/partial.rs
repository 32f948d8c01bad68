//! What can be read of a body that is no valid request: for its failed event, and for review.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{uuid, without_mark};
use crate::core::model::request::AccountId;
use crate::messages::strict_object::FieldName;

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
        let json = without_mark(front);
        let mut partial = Self {
            fingerprint: Uuid::new_v5(&FINGERPRINTS, front),
            ..Self::default()
        };
        let seed = PartialVisitor {
            into: &mut partial,
            in_envelope,
        };
        // An error only says where it stopped; what is wrong is told by the second look.
        let _ = seed.deserialize(&mut serde_json::Deserializer::from_slice(json));
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

struct PartialVisitor<'a> {
    into: &'a mut PartialRequest,
    in_envelope: bool,
}

impl<'de> DeserializeSeed<'de> for PartialVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PartialVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(FieldName(&NAMES))? {
            let part = match (place, self.in_envelope) {
                (Some(4), true) => {
                    map.next_value_seed(PartialVisitor {
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
            let value = map.next_value::<FieldPart>()?.0;
            // Of two, the first: it is what a reader that stops early would have seen.
            *part = part.take().or(value);
        }
        Ok(())
    }
}

/// Text of a sensible length, or nothing.
struct FieldPart(Option<Box<str>>);

impl<'de> Deserialize<'de> for FieldPart {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(from)?;
        let text = serde_json::from_str::<Cow<'_, str>>(value.get()).ok();
        let text = text.filter(|text| text.len() <= PART_MAX);
        Ok(Self(text.map(Into::into)))
    }
}

/// The values of some names, as they stand in an object, and how often each name is there.
pub(super) struct KnownField<'de> {
    /// Of several values of one name, the last.
    pub values: Vec<Option<&'de RawValue>>,
    times: Vec<usize>,
}

impl<'de> KnownField<'de> {
    /// Nothing where the text is no object.
    pub fn of(text: &'de str, names: &[&'static str]) -> Option<Self> {
        let seed = NameSeed(names);
        seed.deserialize(&mut serde_json::Deserializer::from_str(text))
            .ok()
    }

    /// Which of the names are there more than once.
    pub fn repeated<'n>(
        &self,
        names: &'n [&'static str],
    ) -> impl Iterator<Item = &'n &'static str> {
        let times = self.times.iter();
        let names = names.iter().zip(times);
        names.filter(|(_, times)| **times > 1).map(|(name, _)| name)
    }
}

struct NameSeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = KnownField<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NameSeed<'_> {
    type Value = KnownField<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut listed = KnownField {
            values: vec![None; self.0.len()],
            times: vec![0; self.0.len()],
        };
        while let Some(place) = map.next_key_seed(FieldName(self.0))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            listed.values[place] = Some(map.next_value()?);
            listed.times[place] += 1;
        }
        Ok(listed)
    }
}
