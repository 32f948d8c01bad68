use std::path::{Path, PathBuf};

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .expect("a valid schema")
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for schema in MessageSchema::ALL {
        let path = root().join(format!("schemas/{}.schema.json", schema.name()));
        let expected = schema.text();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "{} is out of date; regenerate it with: make schemas",
            path.display()
        );
    }
}

#[test]
fn the_schemas_are_schemas() {
    for schema in MessageSchema::ALL {
        jsonschema::draft202012::meta::validate(&schema.value()).unwrap();
    }
}

#[test]
fn every_example_keeps_to_its_schema() {
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        if name == "rename-request.cloudevent.json" {
            value = value["data"].take();
        }
        let schema = MessageSchema::named(name.split('.').next().unwrap());
        let schema = schema.unwrap_or_else(|| panic!("{name} begins with no schema's name"));
        let errors: Vec<String> = validator(&schema.value())
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        checked += 1;
    }
    assert_eq!(checked, 6);
}
