//! The second look at what is no valid request: every violation with its JSON pointer.
//!
//! The texts are made here from pointer and keyword. A validator's own would quote the value, and
//! values are usernames. Line and column are left out too, so that like failures group together.

use std::sync::LazyLock;

use jsonschema::error::{ValidationError, ValidationErrorKind};
use jsonschema::{Draft, Validator};
use serde_json::Value;

use super::super::schema::Schema;
use super::NAMES;
use super::partial::duplicates;

/// Details end up in headers and group dead letters; more would help nobody, in bytes.
const DETAIL_MAX: usize = 1000;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&Schema::RenameRequest.value())
        .expect("our own schema is valid")
});

/// What is wrong with a request that lies at a pointer; empty stands for the whole body.
pub(super) fn violations(text: &str, at: &str) -> Vec<String> {
    let value = match value(text, at) {
        Ok(value) => value,
        Err(violations) => return violations,
    };
    let mut told = repeated(text, &NAMES, at);
    told.extend(VALIDATOR.iter_errors(&value).map(|error| tell(&error, at)));
    // In the order of the fields, so that like failures read alike.
    let place = |violation: &String| {
        let pointer = violation.strip_prefix(at).unwrap_or(violation);
        let field = pointer
            .strip_prefix('/')
            .and_then(|rest| rest.split(':').next());
        NAMES.iter().position(|name| Some(*name) == field)
    };
    told.sort_by_cached_key(|violation| (place(violation), violation.clone()));
    told.dedup();
    if at.is_empty() && value.get("specversion").is_some() && value.get("data").is_some() {
        told.push(
            "it looks like a CloudEvent; its content type is application/cloudevents+json".into(),
        );
    }
    or_else(told, at)
}

/// What is wrong with an envelope that cannot be opened.
pub(super) fn envelope_violations(text: &str, names: &[&'static str]) -> Vec<String> {
    match value(text, "") {
        Err(violations) => violations,
        Ok(Value::Object(_)) => or_else(repeated(text, names, ""), ""),
        Ok(_) => vec!["the body: is no object".into()],
    }
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

fn value(text: &str, at: &str) -> Result<Value, Vec<String>> {
    serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        // For a tree of any JSON only the syntax can be wrong, and then nothing is quoted.
        let what = what.split(" at line ").next().unwrap_or_default();
        vec![format!("{}: is no JSON: {what}", named(at))]
    })
}

fn repeated(text: &str, names: &[&'static str], at: &str) -> Vec<String> {
    let names = duplicates(text, names);
    let tell = |name| format!("{at}/{name}: is given more than once");
    names.into_iter().map(tell).collect()
}

/// Something must be said even where the fast way and the schema should ever disagree.
fn or_else(told: Vec<String>, at: &str) -> Vec<String> {
    if told.is_empty() {
        vec![format!("{}: is no request", named(at))]
    } else {
        told
    }
}

fn tell(error: &ValidationError<'_>, at: &str) -> String {
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
