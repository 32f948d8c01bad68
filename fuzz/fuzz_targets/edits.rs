//! A dead letter's request, put right: the named fields are set or gone, all else is as it was, and
//! what comes out is JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rename_worker::dead_letters::{DeadLetter, FieldEdit, LetterEdits, editable};
use rename_worker::messages::message::MessageView;
use rename_worker::messages::request::FIELDS;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let Some((&[first, second, length], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let (value, body) = rest.split_at(usize::from(length).min(rest.len()));
    if first == u8::MAX {
        let _ = LetterEdits::default().read_file(body);
        return;
    }
    let value = String::from_utf8_lossy(value);
    // One field is set, another removed; they may be the same.
    let fields = [first, second].map(|nth| FIELDS[usize::from(nth) % FIELDS.len()]);
    let set = |field: &str, value: &str| -> FieldEdit {
        format!("{field}={value}").parse().expect("it is a field")
    };
    let sets = vec![set(fields[0], &value), set(fields[1], "")];
    let mut message = MessageView {
        body: body.to_vec(),
        ..MessageView::default()
    };
    let enveloped = second >= 128;
    if enveloped {
        message.properties.content_type = Some("application/cloudevents+json".to_owned());
    }
    let amended = LetterEdits::new(sets, None).body(&DeadLetter::new(message, 0));
    let before = std::str::from_utf8(body).ok();
    if let Some(before) = before {
        is_laid_out(before);
    }
    let Ok(amended) = amended else { return };
    let amended = std::str::from_utf8(&amended).expect("JSON is UTF-8");
    let valid = serde_json::from_str::<&RawValue>(amended);
    assert!(valid.is_ok(), "what comes out is no JSON");
    let text = before.expect("what is no text cannot be amended");
    // Numbers that `Value` cannot hold are kept as text, which cannot be compared here.
    let (Some(before), Some(after)) = (object(text), object(amended)) else {
        return;
    };
    if enveloped {
        all_else_stays(&before, &after, &["data"]);
        // Of several `data` the first is changed, and `Value` has the last: only one says for sure.
        let one = text.matches("data").count() == 1 && !text.contains('\\');
        if let (true, Some(inner)) = (one, before["data"].as_object()) {
            let changed = after["data"].as_object().expect("it is one still");
            is_amended(inner, changed, fields, &value);
        }
    } else {
        is_amended(&before, &after, fields, &value);
    }
});

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

fn is_amended(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    [set, removed]: [&str; 2],
    value: &str,
) {
    assert!(!after.contains_key(removed), "{removed} is to be gone");
    if set != removed {
        let wanted = (!value.is_empty()).then(|| Value::from(value));
        assert_eq!(after.get(set), wanted.as_ref(), "{set} is to be set");
    }
    all_else_stays(before, after, &[set, removed]);
}

fn all_else_stays(before: &Map<String, Value>, after: &Map<String, Value>, but: &[&str]) {
    let rest = |all: &Map<String, Value>| -> Map<String, Value> {
        let rest = all.iter().filter(|(name, _)| !but.contains(&name.as_str()));
        rest.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    assert_eq!(rest(before), rest(after), "something else is changed");
}

/// What a person gets to edit says the same.
fn is_laid_out(body: &str) {
    let Ok(before) = serde_json::from_str::<Value>(body) else {
        return;
    };
    let after: Value = serde_json::from_str(&editable(body)).expect("it is still JSON");
    assert_eq!(before, after, "laid out, it says something else");
}
