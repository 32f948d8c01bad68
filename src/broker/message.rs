//! A message as plain data, for review: everything that AMQP carries with it, losslessly to JSON
//! and back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::BasicProperties;
use lapin::types::{
    AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString,
};
use serde::{Deserialize, Serialize};

/// Header names and values.
pub type Table = BTreeMap<String, Field>;

/// The properties of a message; absent ones are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `None` and empty are told apart, as on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// One value of a header, of exactly the type it was sent as. In JSON `{"text": "…"}`,
/// `{"i64": 7}` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Void,
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal {
        scale: u8,
        value: u32,
    },
    /// Seconds since 1970.
    Timestamp(u64),
    Text(String),
    ShortText(String),
    /// A text that is no UTF-8, in base64.
    RawText(String),
    /// Bytes, in base64.
    Bytes(String),
    List(Vec<Field>),
    Table(Table),
}

/// A field that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("a property or a header's name is longer than 255 bytes")]
    TooLong,
    #[error("a header's bytes are no base64")]
    NoBase64,
}

impl Properties {
    /// Whether AMQP can carry them; [`super::Publication::Lost`] is the answer if not.
    pub fn check(&self) -> Result<(), Unsendable> {
        write_properties(self).map(|_| ())
    }
}

impl Field {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::ShortText(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        Some(match self {
            Self::I8(n) => i64::from(*n),
            Self::U8(n) => i64::from(*n),
            Self::I16(n) => i64::from(*n),
            Self::U16(n) => i64::from(*n),
            Self::I32(n) => i64::from(*n),
            Self::U32(n) => i64::from(*n),
            Self::I64(n) => *n,
            Self::Timestamp(n) => i64::try_from(*n).ok()?,
            _ => return None,
        })
    }
}

impl From<&AMQPValue> for Field {
    fn from(value: &AMQPValue) -> Self {
        match value {
            AMQPValue::Boolean(flag) => Self::Bool(*flag),
            AMQPValue::ShortShortInt(n) => Self::I8(*n),
            AMQPValue::ShortShortUInt(n) => Self::U8(*n),
            AMQPValue::ShortInt(n) => Self::I16(*n),
            AMQPValue::ShortUInt(n) => Self::U16(*n),
            AMQPValue::LongInt(n) => Self::I32(*n),
            AMQPValue::LongUInt(n) => Self::U32(*n),
            AMQPValue::LongLongInt(n) => Self::I64(*n),
            AMQPValue::Float(n) => Self::F32(*n),
            AMQPValue::Double(n) => Self::F64(*n),
            AMQPValue::DecimalValue(DecimalValue { scale, value }) => Self::Decimal {
                scale: *scale,
                value: *value,
            },
            AMQPValue::ShortString(text) => Self::ShortText(text.to_string()),
            AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::RawText(BASE64.encode(text.as_bytes())),
            },
            AMQPValue::FieldArray(list) => {
                Self::List(list.as_slice().iter().map(Self::from).collect())
            }
            AMQPValue::Timestamp(seconds) => Self::Timestamp(*seconds),
            AMQPValue::FieldTable(table) => Self::Table(read_table(table)),
            AMQPValue::ByteArray(bytes) => Self::Bytes(BASE64.encode(bytes.as_slice())),
            AMQPValue::Void => Self::Void,
        }
    }
}

fn write_field(field: &Field) -> Result<AMQPValue, Unsendable> {
    let bytes = |text: &str| BASE64.decode(text).map_err(|_| Unsendable::NoBase64);
    Ok(match field {
        Field::Void => AMQPValue::Void,
        Field::Bool(flag) => AMQPValue::Boolean(*flag),
        Field::I8(n) => AMQPValue::ShortShortInt(*n),
        Field::U8(n) => AMQPValue::ShortShortUInt(*n),
        Field::I16(n) => AMQPValue::ShortInt(*n),
        Field::U16(n) => AMQPValue::ShortUInt(*n),
        Field::I32(n) => AMQPValue::LongInt(*n),
        Field::U32(n) => AMQPValue::LongUInt(*n),
        Field::I64(n) => AMQPValue::LongLongInt(*n),
        Field::F32(n) => AMQPValue::Float(*n),
        Field::F64(n) => AMQPValue::Double(*n),
        Field::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue {
            scale: *scale,
            value: *value,
        }),
        Field::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        Field::Text(text) => AMQPValue::LongString(text.as_str().into()),
        Field::ShortText(text) => AMQPValue::ShortString(short(text)?),
        Field::RawText(text) => AMQPValue::LongString(LongString::from(bytes(text)?)),
        Field::Bytes(text) => AMQPValue::ByteArray(ByteArray::from(bytes(text)?)),
        Field::List(list) => {
            let list: Result<Vec<_>, _> = list.iter().map(write_field).collect();
            AMQPValue::FieldArray(FieldArray::from(list?))
        }
        Field::Table(table) => AMQPValue::FieldTable(write_table(table)?),
    })
}

pub(super) fn read_table(table: &FieldTable) -> Table {
    let fields = table.inner().iter();
    fields
        .map(|(name, value)| (name.to_string(), Field::from(value)))
        .collect()
}

pub(super) fn write_table(table: &Table) -> Result<FieldTable, Unsendable> {
    let mut written = FieldTable::default();
    for (name, field) in table {
        written.insert(short(name)?, write_field(field)?);
    }
    Ok(written)
}

pub(super) fn read_properties(properties: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Properties {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        headers: properties.headers().as_ref().map(read_table),
        delivery_mode: *properties.delivery_mode(),
        priority: *properties.priority(),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        expiration: text(properties.expiration()),
        message_id: text(properties.message_id()),
        timestamp: *properties.timestamp(),
        kind: text(properties.kind()),
        user_id: text(properties.user_id()),
        app_id: text(properties.app_id()),
        cluster_id: text(properties.cluster_id()),
    }
}

pub(super) fn write_properties(properties: &Properties) -> Result<BasicProperties, Unsendable> {
    let mut written = BasicProperties::default();
    macro_rules! texts {
        ($($field:ident => $with:ident),+ $(,)?) => {$(
            if let Some(text) = &properties.$field {
                written = written.$with(short(text)?);
            }
        )+};
    }
    texts!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        expiration => with_expiration,
        message_id => with_message_id,
        kind => with_type,
        user_id => with_user_id,
        app_id => with_app_id,
        cluster_id => with_cluster_id,
    );
    if let Some(headers) = &properties.headers {
        written = written.with_headers(write_table(headers)?);
    }
    if let Some(mode) = properties.delivery_mode {
        written = written.with_delivery_mode(mode);
    }
    if let Some(priority) = properties.priority {
        written = written.with_priority(priority);
    }
    if let Some(timestamp) = properties.timestamp {
        written = written.with_timestamp(timestamp);
    }
    Ok(written)
}

fn short(text: &str) -> Result<ShortString, Unsendable> {
    ShortString::try_new(text).map_err(|_| Unsendable::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_survives_json_and_the_wire() {
        let all = [
            AMQPValue::Void,
            AMQPValue::Boolean(true),
            AMQPValue::ShortShortInt(-1),
            AMQPValue::ShortShortUInt(255),
            AMQPValue::ShortInt(-2),
            AMQPValue::ShortUInt(65_535),
            AMQPValue::LongInt(-3),
            AMQPValue::LongUInt(u32::MAX),
            AMQPValue::LongLongInt(i64::MIN),
            AMQPValue::Float(1.5),
            AMQPValue::Double(-0.1),
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 314,
            }),
            AMQPValue::Timestamp(u64::MAX),
            AMQPValue::ShortString("short".into()),
            AMQPValue::LongString("l\u{f6}ng".into()),
            AMQPValue::LongString(vec![0xff, 0].into()),
            AMQPValue::ByteArray(vec![1, 2, 3].into()),
        ];
        let mut table = FieldTable::default();
        table.insert("list".into(), AMQPValue::FieldArray(all.to_vec().into()));
        let mut nested = FieldTable::default();
        nested.insert("deep".into(), AMQPValue::FieldTable(table));
        let sent = BasicProperties::default()
            .with_type("rename".into())
            .with_timestamp(7)
            .with_headers(nested);
        let json = serde_json::to_string(&read_properties(&sent)).unwrap();
        let read: Properties = serde_json::from_str(&json).unwrap();
        assert_eq!(write_properties(&read), Ok(sent));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let long = Properties {
            app_id: Some("a".repeat(256)),
            ..Properties::default()
        };
        assert_eq!(long.check(), Err(Unsendable::TooLong));
        let no_base64 = Field::Bytes("?".to_owned());
        assert_eq!(write_field(&no_base64), Err(Unsendable::NoBase64));
    }
}
