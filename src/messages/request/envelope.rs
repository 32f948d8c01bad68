//! What a request comes in: which content types are taken, and CloudEvents opened.
//!
//! Of an envelope only what is needed to find the request is checked; its other attributes may be
//! anything.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::super::headers::{CLOUD_EVENT_PREFIXES, HeaderSource};
use super::{parse, text_of, violations};
use crate::core::model::request::RenameRequest;
use crate::messages::strict_object;
use crate::messages::strict_object::BoundedText;

/// How the request lies in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloudEventMode {
    /// It is the body. A CloudEvent's attributes may be in the headers.
    Plain,
    /// It is the `data` of a CloudEvent.
    Structured,
}

/// Tells the mode by content type and headers, or what is wrong with them.
pub(super) fn mode(
    content_type: Option<&str>,
    headers: &(impl HeaderSource + ?Sized),
) -> Result<CloudEventMode, String> {
    let kind = content_type.map_or("", media_type);
    if kind.eq_ignore_ascii_case("application/cloudevents+json") {
        return Ok(CloudEventMode::Structured);
    }
    if !kind.is_empty() && !is_json(kind) {
        return Err(format!(
            "the content type{} is not taken: it is application/json, \
             application/cloudevents+json, or absent",
            quoted(kind)
        ));
    }
    let binary = CLOUD_EVENT_PREFIXES
        .iter()
        .find_map(|prefix| headers.text(&format!("{prefix}specversion")));
    match binary {
        None | Some("1.0") => Ok(CloudEventMode::Plain),
        Some(_) => Err("the header cloudEvents:specversion is not 1.0".into()),
    }
}

/// Reads the request where the mode says it lies, or lists everything that is wrong.
pub(super) fn open(text: &str, mode: CloudEventMode) -> Result<RenameRequest, Vec<String>> {
    match mode {
        CloudEventMode::Plain => parse(text).ok_or_else(|| violations::violations(text, "")),
        CloudEventMode::Structured => structured(text),
    }
}

const NAMES: [&str; 4] = ["specversion", "datacontenttype", "data", "data_base64"];

fn structured(text: &str) -> Result<RenameRequest, Vec<String>> {
    let Ok(values) = strict_object::read::<&RawValue, 4>(text, NAMES) else {
        return Err(violations::envelope_violations(text, &NAMES));
    };
    let [version, kind, data, base64] = values;
    let mut violations = Vec::new();
    match version.map(string) {
        Some(Some(BoundedText(version))) if version == "1.0" => {}
        Some(_) => violations.push("/specversion: is not \"1.0\"".into()),
        None => violations.push("/specversion: is missing".into()),
    }
    if let Some(kind) = kind
        && !string(kind).is_some_and(|kind| is_json(media_type(&kind.0)))
    {
        violations.push("/datacontenttype: is not application/json".into());
    }
    let request = match (data, base64) {
        (Some(data), None) => {
            parse(data.get()).ok_or_else(|| violations::violations(data.get(), "/data"))
        }
        (None, Some(base64)) => data_bytes(base64),
        (Some(_), Some(_)) => Err(vec!["/data_base64: is given beside /data".into()]),
        (None, None) => Err(vec!["/data: is missing".into()]),
    };
    match request {
        Ok(request) if violations.is_empty() => Ok(request),
        Ok(_) => Err(violations),
        Err(further) => {
            violations.extend(further);
            Err(violations)
        }
    }
}

fn data_bytes(base64: &RawValue) -> Result<RenameRequest, Vec<String>> {
    const AT: &str = "/data_base64";
    let bytes = string(base64).and_then(|text| BASE64_STANDARD.decode(text.0.as_bytes()).ok());
    let bytes = bytes.ok_or_else(|| vec![format!("{AT}: is no base64")])?;
    let text = text_of(&bytes).map_err(|_| vec![format!("{AT}: holds no UTF-8 text")])?;
    parse(text).ok_or_else(|| violations::violations(text, AT))
}

/// The value as text, if it is text.
fn string(value: &RawValue) -> Option<BoundedText<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// The type itself, without its parameters: JSON is UTF-8 whatever they say.
fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_json(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    // A batch is a list of events; it could not end in one outcome.
    kind != "application/cloudevents-batch+json"
        && (kind == "application/json" || kind == "text/json" || has_json_suffix(&kind))
}

fn has_json_suffix(kind: &str) -> bool {
    let subtype = kind.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype
        .strip_suffix("+json")
        .is_some_and(|rest| !rest.is_empty())
}

/// The type in quotes, when it is short and plain enough to hold no one's name.
fn quoted(kind: &str) -> String {
    /// The longest registered types are about this long, in bytes.
    const QUOTED_MAX: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.+-".contains(c);
    if kind.len() <= QUOTED_MAX && kind.chars().all(plain) {
        format!(" \"{kind}\"")
    } else {
        String::new()
    }
}
