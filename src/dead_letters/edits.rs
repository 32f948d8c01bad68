//! Requests put right before they are sent again: a field set for all, fields set for each by a
//! file, whole bodies by hand.
//!
//! What is not touched stays as it was, byte by byte: unknown fields, their order, long numbers.

mod object;

use std::collections::HashMap;
use std::io::BufRead;
use std::str::FromStr;

use serde::Deserialize;

pub use object::editable;

use self::object::OrderedObject;
use super::dead_letter::{DeadLetter, LetterId};
use crate::config::text_without_bom;
use crate::messages::request;
use crate::messages::request::FIELDS;

/// Digits of a letter's id that a file has to name at least; as many as lists show.
const ID_DIGITS_MIN: usize = 12;

/// One field's new value; an empty one removes the field.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldEdit {
    field: &'static str,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is FIELD=VALUE, where FIELD is one of {}; an empty VALUE removes the field", FIELDS.join(", "))]
pub struct BadSet;

impl FromStr for FieldEdit {
    type Err = BadSet;

    fn from_str(text: &str) -> Result<Self, BadSet> {
        let (field, value) = text.split_once('=').ok_or(BadSet)?;
        Self::new(field, value).ok_or(BadSet)
    }
}

impl std::fmt::Debug for FieldEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set")
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}

impl FieldEdit {
    fn new(field: &str, value: &str) -> Option<Self> {
        let field = FIELDS.into_iter().find(|known| *known == field)?;
        Some(Self {
            field,
            value: value.to_owned(),
        })
    }
}

/// How letters are to be changed: first what a file says, then what is said for all. A body by hand
/// is the last word.
#[derive(Default)]
pub struct LetterEdits {
    for_all: Vec<FieldEdit>,
    content_type: Option<String>,
    by_file: Option<ByFile>,
    by_hand: HashMap<LetterId, Vec<u8>>,
}

/// What a file says, by the first digits of letters' ids or by requests' ids.
#[derive(Default)]
struct ByFile {
    letters: HashMap<String, (String, Vec<FieldEdit>)>,
    requests: HashMap<String, Vec<FieldEdit>>,
}

impl std::fmt::Debug for LetterEdits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Amendments").finish_non_exhaustive()
    }
}

impl LetterEdits {
    #[must_use]
    pub fn new(for_all: Vec<FieldEdit>, content_type: Option<String>) -> Self {
        Self {
            for_all,
            content_type,
            ..Self::default()
        }
    }

    /// Adds what a file says: a JSON object a line, each with `letter` (an id, 12 digits at least)
    /// or else `request_id` to say of which, and the fields to set.
    pub fn read_file(&mut self, file: impl BufRead) -> Result<(), String> {
        let by_file = self.by_file.get_or_insert_default();
        for (nth, line) in file.lines().enumerate() {
            let told = |what: String| format!("line {}: {what}", nth + 1);
            let line = line.map_err(|error| told(error.to_string()))?;
            let line = if nth == 0 {
                text_without_bom(&line)
            } else {
                &line
            };
            if !line.trim().is_empty() {
                by_file.add(line).map_err(told)?;
            }
        }
        Ok(())
    }

    /// Replaces a letter's body.
    pub fn set_body(&mut self, id: LetterId, body: Vec<u8>) {
        self.by_hand.insert(id, body);
    }

    /// Whether a file was read and does not name this letter.
    #[must_use]
    pub fn omits(&self, letter: &DeadLetter) -> bool {
        self.by_file
            .as_ref()
            .is_some_and(|file| file.of(letter).is_none())
    }

    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The letter's body as it is to be sent, or why that cannot be said.
    pub fn body(&self, letter: &DeadLetter) -> Result<Vec<u8>, String> {
        if let Some(by_hand) = self.by_hand.get(&letter.id) {
            return Ok(by_hand.clone());
        }
        let body = &letter.message.body;
        let file = self.by_file.as_ref();
        let by_file = file.and_then(|file| file.of(letter)).unwrap_or_default();
        if by_file.is_empty() && self.for_all.is_empty() {
            return Ok(body.clone());
        }
        let kind = self.content_type();
        let kind = kind.or(letter.message.properties.content_type.as_deref());
        let enveloped = request::is_enveloped(kind, &letter.message.headers);
        let text = std::str::from_utf8(body).map_err(|_| BODY_NOT_AN_OBJECT.to_owned())?;
        let sets = by_file.iter().chain(&self.for_all);
        set_fields(text, enveloped, sets).map(String::into_bytes)
    }
}

impl ByFile {
    fn add(&mut self, line: &str) -> Result<(), String> {
        /// Only text can be set: that is all a request has.
        #[derive(Deserialize)]
        struct EditRecord(HashMap<String, Option<String>>);

        let EditRecord(mut fields) = serde_json::from_str(line)
            .map_err(|_| "it is to be a JSON object of texts".to_owned())?;
        let letter = fields.remove("letter").flatten();
        let request = match letter {
            None => fields.remove("request_id").flatten(),
            Some(_) => None,
        };
        let sets: Vec<FieldEdit> = fields
            .into_iter()
            .map(|(field, value)| {
                FieldEdit::new(&field, &value.unwrap_or_default())
                    .ok_or_else(|| format!("{field} is no field of a request"))
            })
            .collect::<Result<_, _>>()?;
        if sets.is_empty() {
            return Err("it sets nothing".to_owned());
        }
        let before = match (letter, request) {
            (Some(id), _) => {
                let id = id.to_ascii_lowercase();
                let Some(digits) = id.get(..ID_DIGITS_MIN) else {
                    return Err(format!(
                        "a letter is named by {ID_DIGITS_MIN} digits at least"
                    ));
                };
                let key = digits.to_owned();
                self.letters.insert(key, (id, sets)).is_some()
            }
            (None, Some(id)) => {
                let id = id.to_ascii_lowercase();
                self.requests.insert(id, sets).is_some()
            }
            (None, None) => return Err("it names no letter and no request_id".to_owned()),
        };
        if before {
            return Err("it names what a line before it named".to_owned());
        }
        Ok(())
    }

    fn of(&self, letter: &DeadLetter) -> Option<&[FieldEdit]> {
        let id = letter.id.full();
        if let Some((digits, sets)) = self.letters.get(&id[..ID_DIGITS_MIN])
            && id.starts_with(digits)
        {
            return Some(sets);
        }
        if self.requests.is_empty() {
            return None;
        }
        let request = letter.request_id()?.to_ascii_lowercase();
        self.requests.get(&request).map(Vec::as_slice)
    }
}

const BODY_NOT_AN_OBJECT: &str =
    "its body is no JSON object, so no field of it can be set; --edit can";
const NO_DATA: &str = "its request is in no field `data`, so no field of it can be set";

fn set_fields<'s>(
    text: &str,
    enveloped: bool,
    sets: impl Iterator<Item = &'s FieldEdit>,
) -> Result<String, String> {
    let no_object = |_| BODY_NOT_AN_OBJECT.to_owned();
    let mut object: OrderedObject = serde_json::from_str(text).map_err(no_object)?;
    let change = |object: &mut OrderedObject| {
        for FieldEdit { field, value } in sets {
            if value.is_empty() {
                object.remove(field);
            } else {
                object.set(field, value);
            }
        }
    };
    if enveloped {
        let changed = object.change_within("data", change);
        changed.ok_or(NO_DATA)?.map_err(no_object)?;
    } else {
        change(&mut object);
    }
    Ok(object.written())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dead_letters::dead_letter::tests::{BODY, letter};
    use crate::messages::message::MessageView;

    const AT: &str = "2026-11-24T09:00:00.000Z";

    fn set(text: &str) -> FieldEdit {
        text.parse().unwrap()
    }

    fn amended(body: &str, kind: Option<&str>, sets: &[&str]) -> Result<String, String> {
        let mut message = letter("username_taken", AT).message;
        message.body = body.into();
        message.properties.content_type = kind.map(Into::into);
        let sets = sets.iter().map(|text| set(text)).collect();
        let body = LetterEdits::new(sets, None).body(&DeadLetter::new(message, 0))?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_field_is_set_and_the_rest_stays_as_it_was() {
        for (body, sets, wanted) in [
            (
                r#"{"b": 1e400, "new_username" : "x", "a":[ 1, 2 ]}"#,
                &["new_username=y\"z"][..],
                r#"{"b":1e400,"new_username":"y\"z","a":[ 1, 2 ]}"#,
            ),
            (r#"{"a":1}"#, &["user_id=u"], r#"{"a":1,"user_id":"u"}"#),
            (
                r#"{"not_after":"t","username":1,"username":2}"#,
                &["not_after=", "username=o=p"],
                r#"{"username":"o=p"}"#,
            ),
        ] {
            assert_eq!(amended(body, None, sets).unwrap(), wanted);
        }
    }

    #[test]
    fn in_a_cloud_event_the_data_s_field_is_set() {
        let kind = Some("application/cloudevents+json; charset=utf-8");
        let body = r#"{"specversion":"1.0","data":{"new_username":"x"},"username":"no"}"#;
        let wanted = r#"{"specversion":"1.0","data":{"new_username":"y"},"username":"no"}"#;
        assert_eq!(amended(body, kind, &["new_username=y"]).unwrap(), wanted);
        let told = amended(r#"{"data_base64":""}"#, kind, &["new_username=y"]).unwrap_err();
        assert!(told.contains("no field `data`"), "{told}");
    }

    #[test]
    fn what_is_no_object_cannot_be_set() {
        for body in ["", "[]", "{", "\"x\"", "{} {}"] {
            assert_eq!(
                amended(body, None, &["username=a"]).unwrap_err(),
                BODY_NOT_AN_OBJECT
            );
        }
        // But where nothing is set, it stays.
        assert_eq!(amended("[]", None, &[]).unwrap(), "[]");
    }

    #[test]
    fn a_set_names_a_field_of_a_request() {
        assert_eq!(set("not_after=").value, "");
        for bad in ["", "username", "colour=red", "=x"] {
            assert_eq!(bad.parse::<FieldEdit>(), Err(BadSet));
        }
    }

    #[test]
    fn a_file_says_each_letter_s_own_change() {
        let one = letter("username_taken", AT);
        let other = letter("username_taken", "2026-11-24T09:00:01.000Z");
        let mut elsewhere = one.message.clone();
        elsewhere.body = BODY.replace("3c90c3cc", "4c90c3cc").into();
        elsewhere.headers.clear();
        let elsewhere = DeadLetter::new(elsewhere, 0);
        let file = format!(
            "{{\"letter\":\"{}\",\"new_username\":\"a\"}}\n\n{}\n",
            one.id,
            r#"{"request_id":"4C90C3CC-0d44-4b50-8888-8dd25736052a","new_username":"b","not_after":null}"#
        );
        let mut amendments = LetterEdits::new(vec![set("requested_by=me")], None);
        assert!(!amendments.omits(&other));
        amendments.read_file(file.as_bytes()).unwrap();
        assert!(amendments.omits(&other));
        for (letter, name) in [(&one, "a"), (&elsewhere, "b")] {
            assert!(!amendments.omits(letter));
            let body = amendments.body(letter).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["new_username"], name);
            assert_eq!(body["requested_by"], "me");
            assert_eq!(body["username"], "ola");
        }
    }

    #[test]
    fn mistakes_in_a_file_are_told_by_their_line() {
        for (line, told) in [
            ("{", "line 1: it is to be a JSON object of texts"),
            (r#"{"letter":1}"#, "line 1: it is to be"),
            (
                r#"{"letter":"abc","username":"a"}"#,
                "line 1: a letter is named",
            ),
            (r#"{"username":"a"}"#, "line 1: it names no letter"),
            (r#"{"request_id":"a"}"#, "line 1: it sets nothing"),
            (
                r#"{"request_id":"a","colour":"red"}"#,
                "line 1: colour is no",
            ),
            (
                "{\"request_id\":\"a\",\"username\":\"b\"}\n{\"request_id\":\"A\",\"username\":\"c\"}",
                "line 2: it names what",
            ),
        ] {
            let wrong = LetterEdits::default()
                .read_file(line.as_bytes())
                .unwrap_err();
            assert!(wrong.starts_with(told), "{wrong}");
        }
    }

    #[test]
    fn a_body_by_hand_is_the_last_word() {
        let letter = letter("username_taken", AT);
        let mut amendments = LetterEdits::new(vec![set("username=kari")], None);
        assert!(amendments.body(&letter).unwrap() != letter.message.body);
        amendments.set_body(letter.id, b"{\"username\":1}".to_vec());
        assert_eq!(amendments.body(&letter).unwrap(), b"{\"username\":1}");
    }

    proptest! {
        #[test]
        fn any_value_can_be_set_and_read_back(value in ".+", other in ".*") {
            let body = serde_json::json!({"other": other, "username": "x"}).to_string();
            let mut message = MessageView { body: body.into(), ..MessageView::default() };
            message.properties.content_type = Some("application/json".into());
            let set = FieldEdit::new("username", &value).unwrap();
            let body = LetterEdits::new(vec![set], None).body(&DeadLetter::new(message, 0)).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&body["username"], &value);
            prop_assert_eq!(&body["other"], &other);
        }
    }
}
