//! A JSON object with nothing of it lost, and how it is laid out for a person to edit.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::messages::visible::escaped_for_editor;

/// A JSON object whose values are kept as they are written, repeated names included.
pub(super) struct OrderedObject(Vec<(String, Box<RawValue>)>);

impl OrderedObject {
    /// Sets a field to a text, where it stands; a name given twice is what may have been wrong, so
    /// only one is left.
    pub(super) fn set(&mut self, field: &str, text: &str) {
        let value = serde_json::value::to_raw_value(text).expect("text is JSON");
        let place = self.remove(field).unwrap_or(self.0.len());
        self.0.insert(place, (field.to_owned(), value));
    }

    /// Where it stood, if it was there.
    pub(super) fn remove(&mut self, field: &str) -> Option<usize> {
        let place = self.0.iter().position(|(name, _)| name == field);
        self.0.retain(|(name, _)| name != field);
        place
    }

    /// Changes the object in that field; `None` where there is no such field.
    pub(super) fn change_within(
        &mut self,
        field: &str,
        change: impl FnOnce(&mut Self),
    ) -> Option<serde_json::Result<()>> {
        let (_, value) = self.0.iter_mut().find(|(name, _)| name == field)?;
        Some(
            serde_json::from_str(value.get()).and_then(|mut inner: Self| {
                change(&mut inner);
                *value = RawValue::from_string(inner.written())?;
                Ok(())
            }),
        )
    }

    pub(super) fn written(&self) -> String {
        let fields = self.0.iter().map(|(name, value)| {
            let name = serde_json::Value::from(name.as_str());
            format!("{name}:{}", value.get())
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

impl<'de> Deserialize<'de> for OrderedObject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OrderedVisitor;

        impl<'de> Visitor<'de> for OrderedVisitor {
            type Value = OrderedObject;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedObject, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(OrderedObject(fields))
            }
        }
        from.deserialize_map(OrderedVisitor)
    }
}

/// A body as a person edits it: one field a line, where it is a JSON object; else as it is.
#[must_use]
pub fn editable(body: &str) -> String {
    const INDENT: &str = "  ";

    fn pretty_print(text: &str, margin: &str) -> Option<String> {
        let object: OrderedObject = serde_json::from_str(text).ok()?;
        if object.0.is_empty() {
            return None;
        }
        let inner = format!("{margin}{INDENT}");
        let fields = object.0.iter().map(|(name, value)| {
            let name = serde_json::Value::from(name.as_str());
            let value = pretty_print(value.get(), &inner).unwrap_or_else(|| value.get().to_owned());
            format!("{inner}{name}: {value}")
        });
        let fields = fields.collect::<Vec<_>>().join(",\n");
        Some(format!("{{\n{fields}\n{margin}}}"))
    }

    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
    let text = pretty_print(body, "").unwrap_or_else(|| body.to_owned());
    let text = if is_json {
        // In JSON these two can only stand between values.
        text.replace("\r\n", "\n").replace(['\r', '\t'], " ")
    } else {
        text.replace("\r\n", "\n")
    };
    // An editor is on a terminal as well. Within JSON it is the same text.
    let mut text = escaped_for_editor(&text).into_owned();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_laid_out_for_editing() {
        insta::assert_snapshot!(editable(
            r#"{"specversion":"1.0","data":{"a":1e400,"a":[1, 2],"b":{}}}"#
        ));
        assert_eq!(editable("no JSON"), "no JSON\n");
    }

    #[test]
    fn nothing_in_a_body_acts_on_the_editor_s_terminal_and_json_stays_the_same() {
        let hostile = "a\u{9b}2J\u{202e}b\u{200b}\u{e0041}";
        let value = serde_json::json!({"name": hostile, hostile: [hostile]});
        let body = value.to_string().replace('[', "[\r\n\t");
        let text = editable(&body);
        assert!(
            text.chars().all(|c| matches!(c, '\n' | ' '..='~')),
            "{text}"
        );
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, value);
        let text = editable(&format!("{{\r\n\t\"name\": \"{hostile}\u{1b}[2J\r"));
        let wanted = r"a\u009b2J\u202eb\u200b\udb40\udc41\u001b[2J\r";
        assert_eq!(text, format!("{{\n\t\"name\": \"{wanted}\n"));
    }
}
