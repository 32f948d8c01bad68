//! Messages between AMQP's own types and ours, with nothing lost on the way.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, ShortString};

use super::delivery::{ACQUIRED_COUNT, DELIVERY_COUNT, truncated_headers};
use crate::messages::headers::{
    HeaderSource as _, LEFT_OUT_HEADERS, TRUNCATED_BODY, TRUNCATED_HEADERS,
};
use crate::messages::message::{MessageField, MessageProperties, MessageView};

/// A message as it was delivered, without the broker's counts of deliveries. Headers that are missing
/// are counted in [`LEFT_OUT_HEADERS`].
pub(super) fn message_of(delivery: lapin::message::Delivery) -> MessageView {
    let properties = &delivery.properties;
    let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    let mut headers = properties
        .headers()
        .as_ref()
        .map_or_else(BTreeMap::new, |table| {
            let not_its_own = [
                DELIVERY_COUNT,
                ACQUIRED_COUNT,
                TRUNCATED_HEADERS,
                TRUNCATED_BODY,
            ];
            let kept = table.inner().iter();
            kept.filter(|(name, _)| !not_its_own.contains(&name.as_str()))
                .map(|(name, value)| (name.to_string(), field_of(value)))
                .collect()
        });
    let missing = truncated_headers(properties.headers().as_ref());
    if missing > 0 {
        let before = headers.int(LEFT_OUT_HEADERS).unwrap_or(0).max(0);
        let all = before.saturating_add_unsigned(missing);
        headers.insert(LEFT_OUT_HEADERS.to_owned(), MessageField::Int64(all));
    }
    MessageView {
        exchange: delivery.exchange.into(),
        routing_key: delivery.routing_key.into(),
        properties: MessageProperties {
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
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
        },
        headers,
        body: delivery.data,
    }
}

/// The properties to publish it with; none if a text is longer than AMQP's short strings.
pub(super) fn properties_of(message: &MessageView) -> Option<BasicProperties> {
    let from = &message.properties;
    let mut to = BasicProperties::default();
    macro_rules! texts {
        ($($name:ident => $with:ident),+ $(,)?) => {$(
            if let Some(text) = &from.$name {
                to = to.$with(short(text)?);
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
    if let Some(mode) = from.delivery_mode {
        to = to.with_delivery_mode(mode);
    }
    if let Some(priority) = from.priority {
        to = to.with_priority(priority);
    }
    if let Some(timestamp) = from.timestamp {
        to = to.with_timestamp(timestamp);
    }
    if !message.headers.is_empty() {
        to = to.with_headers(table_of(&message.headers)?);
    }
    Some(to)
}

fn field_of(value: &AMQPValue) -> MessageField {
    match value {
        AMQPValue::Boolean(flag) => MessageField::Bool(*flag),
        AMQPValue::ShortShortInt(n) => MessageField::Int8(*n),
        AMQPValue::ShortShortUInt(n) => MessageField::UInt8(*n),
        AMQPValue::ShortInt(n) => MessageField::Int16(*n),
        AMQPValue::ShortUInt(n) => MessageField::UInt16(*n),
        AMQPValue::LongInt(n) => MessageField::Int32(*n),
        AMQPValue::LongUInt(n) => MessageField::UInt32(*n),
        AMQPValue::LongLongInt(n) => MessageField::Int64(*n),
        AMQPValue::Float(n) => MessageField::Float(*n),
        AMQPValue::Double(n) => MessageField::Double(*n),
        AMQPValue::DecimalValue(n) => MessageField::Decimal {
            scale: n.scale,
            value: n.value,
        },
        AMQPValue::ShortString(text) => MessageField::ShortText(text.to_string()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => MessageField::Text(text.to_owned()),
            Err(_) => MessageField::RawText(text.as_bytes().into()),
        },
        AMQPValue::ByteArray(bytes) => MessageField::Bytes(bytes.as_slice().into()),
        AMQPValue::Timestamp(seconds) => MessageField::Timestamp(*seconds),
        AMQPValue::FieldArray(items) => {
            MessageField::List(items.as_slice().iter().map(field_of).collect())
        }
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter();
            MessageField::Table(
                fields
                    .map(|(name, value)| (name.to_string(), field_of(value)))
                    .collect(),
            )
        }
        AMQPValue::Void => MessageField::Void,
    }
}

fn value_of(field: &MessageField) -> Option<AMQPValue> {
    Some(match field {
        MessageField::Bool(flag) => AMQPValue::Boolean(*flag),
        MessageField::Int8(n) => AMQPValue::ShortShortInt(*n),
        MessageField::UInt8(n) => AMQPValue::ShortShortUInt(*n),
        MessageField::Int16(n) => AMQPValue::ShortInt(*n),
        MessageField::UInt16(n) => AMQPValue::ShortUInt(*n),
        MessageField::Int32(n) => AMQPValue::LongInt(*n),
        MessageField::UInt32(n) => AMQPValue::LongUInt(*n),
        MessageField::Int64(n) => AMQPValue::LongLongInt(*n),
        // RabbitMQ closes the connection for a number that is none, or infinite.
        MessageField::Float(n) if !n.is_finite() => AMQPValue::LongString(n.to_string().into()),
        MessageField::Double(n) if !n.is_finite() => AMQPValue::LongString(n.to_string().into()),
        MessageField::Float(n) => AMQPValue::Float(*n),
        MessageField::Double(n) => AMQPValue::Double(*n),
        MessageField::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue {
            scale: *scale,
            value: *value,
        }),
        // The type of a short text is that of a number for RabbitMQ, which then closes the connection.
        MessageField::ShortText(text) | MessageField::Text(text) => {
            AMQPValue::LongString(text.as_str().into())
        }
        MessageField::RawText(bytes) => AMQPValue::LongString(bytes.as_slice().into()),
        MessageField::Bytes(bytes) => AMQPValue::ByteArray(ByteArray::from(bytes.as_slice())),
        MessageField::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        MessageField::List(items) => {
            let values = items.iter().map(value_of).collect::<Option<Vec<_>>>()?;
            AMQPValue::FieldArray(FieldArray::from(values))
        }
        MessageField::Table(table) => AMQPValue::FieldTable(table_of(table)?),
        MessageField::Void => AMQPValue::Void,
    })
}

fn table_of(fields: &BTreeMap<String, MessageField>) -> Option<FieldTable> {
    let mut table = FieldTable::default();
    for (name, field) in fields {
        table.insert(short(name)?, value_of(field)?);
    }
    Some(table)
}

/// AMQP's short strings hold 255 bytes.
pub(super) fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_field_comes_back_the_same() {
        let all = vec![
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
            AMQPValue::LongString("löng".into()),
            AMQPValue::LongString([0xff, 0][..].into()),
            AMQPValue::ByteArray(vec![1, 2, 3].into()),
        ];
        let mut table = FieldTable::default();
        table.insert("list".into(), AMQPValue::FieldArray(all.into()));
        let nested = AMQPValue::FieldTable(table);
        assert_eq!(value_of(&field_of(&nested)), Some(nested));
    }

    #[test]
    fn what_rabbitmq_closes_the_connection_for_is_sent_as_text() {
        for (field, text) in [
            (MessageField::ShortText("short".into()), "short"),
            (MessageField::Float(f32::NAN), "NaN"),
            (MessageField::Double(f64::NEG_INFINITY), "-inf"),
        ] {
            let nested = MessageField::List(vec![field]);
            let expected = vec![AMQPValue::LongString(text.into())];
            assert_eq!(
                value_of(&nested),
                Some(AMQPValue::FieldArray(expected.into()))
            );
        }
    }

    #[test]
    fn what_amqp_cannot_carry_is_told() {
        let mut message = MessageView::default();
        assert!(properties_of(&message).is_some());
        message.properties.app_id = Some("a".repeat(256));
        assert!(properties_of(&message).is_none());
        message.properties.app_id = None;
        message.headers.insert("h".repeat(256), MessageField::Void);
        assert!(properties_of(&message).is_none());
    }
}
