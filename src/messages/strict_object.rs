//! A JSON object read into an array by known names, strictly and without building a tree.
//!
//! serde's derive would also take an array for a struct; this takes objects only, and refuses a known
//! name said twice. Values of other names are skipped by JSON's grammar alone, without being turned
//! into numbers or text: what is in them is nobody's business here, be it a number beyond a double,
//! half a character, or lists within lists (they are skipped without recursion).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The values of those names, in their order; none where it is absent or null.
pub(super) fn read<'de, V: Deserialize<'de>, const N: usize>(
    text: &'de str,
    names: [&'static str; N],
) -> Result<[Option<V>; N], serde_json::Error> {
    let seed = StrictObject {
        names,
        value: PhantomData,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let values = seed.deserialize(&mut json)?;
    json.end()?;
    Ok(values)
}

struct StrictObject<V, const N: usize> {
    names: [&'static str; N],
    value: PhantomData<V>,
}

impl<'de, V: Deserialize<'de>, const N: usize> DeserializeSeed<'de> for StrictObject<V, N> {
    type Value = [Option<V>; N];

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, V: Deserialize<'de>, const N: usize> Visitor<'de> for StrictObject<V, N> {
    type Value = [Option<V>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [const { None }; N];
        let mut seen = [false; N];
        while let Some(place) = map.next_key_seed(FieldName(&self.names))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(A::Error::duplicate_field(self.names[place]));
            }
            values[place] = map.next_value()?;
        }
        Ok(values)
    }
}

/// The place of a known name, or none.
pub(super) struct FieldName<'n>(pub &'n [&'static str]);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        // As bytes, since a name that is none of ours may hold half a character.
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        self.visit_bytes(name.as_bytes())
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known.as_bytes() == name))
    }
}

/// Text, borrowed where it holds no escapes.
#[derive(Clone)]
pub(super) struct BoundedText<'de>(pub Cow<'de, str>);

impl<'de> Deserialize<'de> for BoundedText<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StrictVisitor;

        impl<'de> Visitor<'de> for StrictVisitor {
            type Value = BoundedText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(BoundedText(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BoundedText(Cow::Owned(text.into())))
            }
        }

        from.deserialize_str(StrictVisitor)
    }
}
