//! A JSON object with nothing of it lost, and how it is laid out for a person to edit.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object whose values are kept as they are written, repeated names included.
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
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

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        from.deserialize_map(Visit)
    }
}

/// A body as a person edits it: one field a line, where it is a JSON object; else as it is.
#[must_use]
pub fn editable(body: &str) -> String {
    const INDENT: &str = "  ";

    fn lay_out(text: &str, margin: &str) -> Option<String> {
        let object: Object = serde_json::from_str(text).ok()?;
        if object.0.is_empty() {
            return None;
        }
        let inner = format!("{margin}{INDENT}");
        let fields = object.0.iter().map(|(name, value)| {
            let name = serde_json::Value::from(name.as_str());
            let value = lay_out(value.get(), &inner).unwrap_or_else(|| value.get().to_owned());
            format!("{inner}{name}: {value}")
        });
        let fields = fields.collect::<Vec<_>>().join(",\n");
        Some(format!("{{\n{fields}\n{margin}}}"))
    }

    let mut text = lay_out(body, "").unwrap_or_else(|| body.to_owned());
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
}
