//! A message whole: address, properties, headers with their types, bytes. For review, where
//! nothing of a message may be lost, and as JSON, where nothing may be lost either.
//!
//! `broker` turns it into AMQP's own types and back. What the broker only counts on the side, such
//! as `x-delivery-count`, is no part of it.

mod json;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::headers::HeaderSource;

/// One message. `Debug` shows no content, which may name a person.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageView {
    pub exchange: String,
    pub routing_key: String,
    pub properties: MessageProperties,
    pub headers: BTreeMap<String, MessageField>,
    #[serde(with = "json::bytes")]
    pub body: Vec<u8>,
}

/// AMQP's properties, but the headers.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
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

/// A header's value, in each of AMQP's types. In JSON each is an object that names its type.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageField {
    Bool(bool),
    Int8(i8),
    UInt8(u8),
    Int16(i16),
    UInt16(u16),
    Int32(i32),
    UInt32(u32),
    Int64(i64),
    #[serde(with = "json::float")]
    Float(f32),
    #[serde(with = "json::float")]
    Double(f64),
    Decimal {
        scale: u8,
        value: u32,
    },
    ShortText(String),
    /// AMQP's long string.
    Text(String),
    /// A long string that is no UTF-8.
    #[serde(with = "json::bytes")]
    RawText(Vec<u8>),
    #[serde(with = "json::bytes")]
    Bytes(Vec<u8>),
    /// Seconds since 1970.
    Timestamp(u64),
    List(Vec<Self>),
    Table(BTreeMap<String, Self>),
    Void,
}

/// Bytes that a header costs beside its name and value: a node of a tree and an allocation or two.
const FIELD_WEIGHT: usize = 64;

impl MessageView {
    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.body.len() + table_weight(&self.headers)
    }
}

fn table_weight(table: &BTreeMap<String, MessageField>) -> usize {
    let fields = table.iter();
    fields
        .map(|(name, field)| name.len() + field.weight())
        .sum()
}

impl MessageField {
    fn weight(&self) -> usize {
        FIELD_WEIGHT
            + match self {
                Self::ShortText(text) | Self::Text(text) => text.len(),
                Self::RawText(bytes) | Self::Bytes(bytes) => bytes.len(),
                Self::List(items) => items.iter().map(Self::weight).sum(),
                Self::Table(table) => table_weight(table),
                _ => 0,
            }
    }

    /// Text, of either kind.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::ShortText(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, of any width.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        Some(match self {
            Self::Int8(n) => i64::from(*n),
            Self::UInt8(n) => i64::from(*n),
            Self::Int16(n) => i64::from(*n),
            Self::UInt16(n) => i64::from(*n),
            Self::Int32(n) => i64::from(*n),
            Self::UInt32(n) => i64::from(*n),
            Self::Int64(n) => *n,
            Self::Timestamp(n) => i64::try_from(*n).ok()?,
            _ => return None,
        })
    }

    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    #[must_use]
    pub const fn as_table(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl From<&str> for MessageField {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for MessageField {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl HeaderSource for BTreeMap<String, MessageField> {
    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_int()
    }

    fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            MessageField::Bool(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl fmt::Debug for MessageView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MessageProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Properties").finish_non_exhaustive()
    }
}

impl fmt::Debug for MessageField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[header]")
    }
}

#[cfg(test)]
mod tests;
