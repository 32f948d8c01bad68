//! How bytes and numbers are written in JSON so that they come back the same.

/// Bytes, as text where they are UTF-8, else in base64: `{"text": "…"}` or `{"base64": "…"}`.
pub(super) mod bytes {
    use std::borrow::Cow;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum JsonField<'a> {
        Text(Cow<'a, str>),
        Base64(Cow<'a, str>),
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => JsonField::Text(text.into()),
            Err(_) => JsonField::Base64(BASE64_STANDARD.encode(bytes).into()),
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        match JsonField::deserialize(from)? {
            JsonField::Text(text) => Ok(text.into_owned().into_bytes()),
            JsonField::Base64(text) => BASE64_STANDARD
                .decode(&*text)
                .map_err(|_| D::Error::custom("invalid base64")),
        }
    }
}

/// Floating-point numbers as text: JSON's own would lose infinities and, in many readers, bits.
pub(super) mod float {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(number: &T, to: S) -> Result<S::Ok, S::Error> {
        // Rust prints the shortest text that reads back as the same number.
        to.collect_str(number)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|_| D::Error::custom("a number that is none"))
    }
}
