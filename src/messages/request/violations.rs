//! The second look at what is no valid request: every violation with its JSON pointer.
//!
//! The texts are made here from pointer and keyword. A validator's own would quote the value, and
//! values are usernames. Line and column are left out too, so that like failures group together.

use std::sync::LazyLock;

use jsonschema::error::{ValidationError, ValidationErrorKind};
use jsonschema::{Draft, Validator};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::schema::MessageSchema;
use super::NAMES;
use super::partial::KnownField;

/// Details end up in headers and group dead letters; more would help nobody, in bytes.
const DETAIL_MAX: usize = 1000;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&MessageSchema::RenameRequest.value())
        .expect("our own schema is valid")
});

/// What is wrong with a request that lies at a pointer; empty stands for the whole body.
pub(super) fn violations(text: &str, at: &str) -> Vec<String> {
    if let Some(violation) = no_json(text, at) {
        return vec![violation];
    }
    let Some(listed) = KnownField::of(text, &NAMES) else {
        return vec![format!("{}: is no object", named(at))];
    };
    let mut details: Vec<String> = listed
        .repeated(&NAMES)
        .map(|name| format!("{at}/{name}: is given more than once"))
        .collect();
    let mut object = Map::new();
    let mut broken = Vec::new();
    for (name, raw) in NAMES.iter().zip(&listed.values) {
        let Some(raw) = raw else { continue };
        let value = value(raw).unwrap_or_else(|what| {
            broken.push(format!("{at}/{name}: {what}"));
            Value::Null
        });
        object.insert((*name).into(), value);
    }
    let object = Value::Object(object);
    let further = VALIDATOR
        .iter_errors(&object)
        .map(|error| describe(&error, at));
    // What stands in for a broken value is wrong in ways of its own, which are nobody's mistake.
    let of_broken = |violation: &String| {
        let pointers = broken.iter().map(|told| pointer(told));
        pointers.into_iter().any(|at| at == pointer(violation))
    };
    details.extend(further.filter(|violation| !of_broken(violation)));
    details.extend(broken);
    // In the order of the fields, so that like failures read alike.
    let place = |violation: &String| {
        let pointer = violation.strip_prefix(at).unwrap_or(violation);
        let field = pointer
            .strip_prefix('/')
            .and_then(|rest| rest.split(':').next());
        NAMES.iter().position(|name| Some(*name) == field)
    };
    details.sort_by_cached_key(|violation| (place(violation), violation.clone()));
    details.dedup();
    if at.is_empty() && is_cloud_event(text) {
        details.push(
            "it looks like a CloudEvent; its content type is application/cloudevents+json".into(),
        );
    }
    join_alternatives(details, at)
}

fn is_cloud_event(text: &str) -> bool {
    KnownField::of(text, &["specversion", "data"])
        .is_some_and(|listed| listed.values.iter().all(Option::is_some))
}

/// What is wrong with an envelope that cannot be opened.
pub(super) fn envelope_violations(text: &str, names: &[&'static str]) -> Vec<String> {
    if let Some(violation) = no_json(text, "") {
        return vec![violation];
    }
    let Some(listed) = KnownField::of(text, names) else {
        return vec!["the body: is no object".into()];
    };
    let details = listed
        .repeated(names)
        .map(|name| format!("/{name}: is given more than once"));
    join_alternatives(details.collect(), "")
}

/// One text of all violations, bounded.
pub(super) fn join(violations: &[String]) -> Box<str> {
    let mut detail = String::new();
    for (told, violation) in violations.iter().enumerate() {
        let more = format!("; and {} more", violations.len() - told);
        if detail.len() + violation.len() + 2 + more.len() > DETAIL_MAX {
            detail.push_str(&more);
            break;
        }
        if told > 0 {
            detail.push_str("; ");
        }
        detail.push_str(violation);
    }
    detail.into()
}

/// By JSON's grammar alone, which is all that is asked of fields that are not listed.
fn no_json(text: &str, at: &str) -> Option<String> {
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    let what = error.to_string();
    // Where anything is taken, only the syntax can be wrong, and then nothing is quoted.
    let what = what.split(" at line ").next().unwrap_or_default();
    Some(format!("{}: is no JSON: {what}", named(at)))
}

/// The value of a listed field, or what keeps it from being one.
fn value(raw: &RawValue) -> Result<Value, &'static str> {
    serde_json::from_str(raw.get()).map_err(|_| {
        if raw.get().starts_with('"') {
            "holds half a character (a surrogate without its other half)"
        } else {
            "is no text"
        }
    })
}

/// The pointer that a violation begins with.
fn pointer(violation: &str) -> &str {
    violation.split(':').next().unwrap_or_default()
}

/// Something must be said even where the fast way and the schema should ever disagree.
fn join_alternatives(details: Vec<String>, at: &str) -> Vec<String> {
    if details.is_empty() {
        vec![format!("{}: is no request", named(at))]
    } else {
        details
    }
}

fn describe(error: &ValidationError<'_>, at: &str) -> String {
    let pointer = format!("{at}{}", error.instance_path());
    let what = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            return format!("{pointer}/{property}: is missing");
        }
        ValidationErrorKind::Type { .. } => match error.instance_path().as_str() {
            "" => "is no object",
            _ => "is no text",
        },
        ValidationErrorKind::MinLength { .. } => "is empty",
        ValidationErrorKind::MaxLength { limit } => {
            return format!("{pointer}: has more than {limit} characters");
        }
        ValidationErrorKind::Not { .. } => "is . or .., which cannot be carried in a URL path",
        ValidationErrorKind::Format { format } if format == "uuid" => "is no UUID",
        ValidationErrorKind::Pattern { .. } if error.instance_path().as_str() == "/account_id" => {
            "is not P or T and eight digits"
        }
        // The times have both, and one text tells of either.
        ValidationErrorKind::Format { .. } | ValidationErrorKind::Pattern { .. } => {
            "is no RFC 3339 time such as 2026-11-24T10:00:00Z"
        }
        other => return format!("{}: violates {}", named(&pointer), other.keyword()),
    };
    format!("{}: {what}", named(&pointer))
}

fn named(pointer: &str) -> &str {
    if pointer.is_empty() {
        "the body"
    } else {
        pointer
    }
}
