//! The JSON Schemas (2020-12) of what enters and leaves, made from the wire types.
//!
//! `schemas/` holds them as files for upstream and downstream; a test compares.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::event::{
    EventEnvelope, FailedData, RENAME_FAILED, RENAME_FAILED_DATA_SCHEMA, RENAMED,
    RENAMED_DATA_SCHEMA, RenamedData,
};
use super::request::RequestBody;

/// A message that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageSchema {
    RenameRequest,
    UserRenamed,
    UserRenameFailed,
}

impl MessageSchema {
    pub const ALL: [Self; 3] = [
        Self::RenameRequest,
        Self::UserRenamed,
        Self::UserRenameFailed,
    ];

    /// Its name, as it begins its file's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RenameRequest => "rename-request",
            Self::UserRenamed => "user-renamed",
            Self::UserRenameFailed => "user-rename-failed",
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schema| schema.name() == name)
    }

    /// The schema.
    #[must_use]
    pub fn value(self) -> Value {
        let settings = SchemaSettings::draft2020_12();
        let mut schema = match self {
            // Requests are read, so an optional field may be absent.
            Self::RenameRequest => {
                generate::<RequestBody<'_>>(settings.for_deserialize().into_generator())
            }
            // Events are written, so every field is there.
            Self::UserRenamed => generate::<EventEnvelope<'_, RenamedData<'_>>>(
                settings.for_serialize().into_generator(),
            ),
            Self::UserRenameFailed => generate::<EventEnvelope<'_, FailedData<'_>>>(
                settings.for_serialize().into_generator(),
            ),
        };
        schema["$id"] = self.uri().into();
        schema["examples"] = Value::Array(self.examples());
        if let Some((event_type, data_schema, description)) = self.event() {
            schema["title"] = event_type.into();
            schema["description"] = description.into();
            schema["properties"]["type"]["const"] = event_type.into();
            schema["properties"]["dataschema"]["const"] = data_schema.into();
        }
        tidy(&mut schema);
        schema
    }

    /// The schema as its file holds it.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = serde_json::to_string_pretty(&self.value()).expect("a schema is JSON");
        text.push('\n');
        text
    }

    const fn uri(self) -> &'static str {
        match self {
            Self::RenameRequest => "urn:rename-worker:schema:rename-request",
            Self::UserRenamed => "urn:rename-worker:schema:user-renamed",
            Self::UserRenameFailed => "urn:rename-worker:schema:user-rename-failed",
        }
    }

    /// Of an event: its type, its `dataschema`, its description.
    const fn event(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::RenameRequest => None,
            Self::UserRenamed => Some((
                RENAMED,
                RENAMED_DATA_SCHEMA,
                "A rename took effect. A CloudEvent 1.0 in structured mode, published to the \
                 exchange `rename.events` with its type as the routing key.",
            )),
            Self::UserRenameFailed => Some((
                RENAME_FAILED,
                RENAME_FAILED_DATA_SCHEMA,
                "A request failed; it lies in `rename.dead-letters` as well. A CloudEvent 1.0 in \
                 structured mode, published to the exchange `rename.events` with its type as the \
                 routing key.",
            )),
        }
    }

    fn examples(self) -> Vec<Value> {
        let texts: &[&str] = match self {
            Self::RenameRequest => &[
                include_str!("../../examples/rename-request.minimal.json"),
                include_str!("../../examples/rename-request.full.json"),
            ],
            Self::UserRenamed => &[include_str!("../../examples/user-renamed.json")],
            Self::UserRenameFailed => &[
                include_str!("../../examples/user-rename-failed.json"),
                include_str!("../../examples/user-rename-failed.unreadable.json"),
            ],
        };
        let example = |text: &&str| serde_json::from_str(text).expect("an example is JSON");
        texts.iter().map(example).collect()
    }
}

fn generate<T: JsonSchema>(generator: SchemaGenerator) -> Value {
    json!(generator.into_root_schema_for::<T>())
}

/// Takes out what is Rust's: the line breaks of its comments, the widths of its integers.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let paragraphs: Vec<_> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
                *text = paragraphs.join("\n\n");
            }
            if let Some(Value::String(format)) = fields.get("format")
                && format.starts_with("uint")
            {
                fields.remove("format");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
