//! `docs/report.schema.json` and `docs/check.schema.json`: what `report.json` and `check --json` look like, made from the
//! types themselves.

use super::model::{Report, tests::sample};
use super::utc::Utc;
use crate::checks::context::side_of;
use crate::checks::judge::{Judgement, judge};
use crate::facts::pci::{Class, Id};
use crate::facts::{Fact, Facts};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A type that is written as text of a pattern.
macro_rules! written_as {
    ($type:ty, $name:literal, $pattern:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

written_as!(Id, "PciId", "^[0-9a-f]{4}$", "A PCI vendor or device ID, hexadecimal.");
written_as!(
    Class,
    "PciClass",
    "^[0-9a-f]{6,8}$",
    "A PCI class code, hexadecimal: class, subclass, interface."
);
written_as!(
    Utc,
    "Utc",
    "^[0-9]{4,}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
    "A point in time in UTC, whole seconds."
);

/// Why a fact has no value.
struct Absent;

impl JsonSchema for Absent {
    fn schema_name() -> Cow<'static, str> {
        "Absent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let state = |states: &[&str], fields: &[&str], description: &str| {
            let mut properties = serde_json::Map::new();
            properties.insert("state".into(), serde_json::json!({ "enum": states }));
            for field in fields {
                properties.insert((*field).into(), serde_json::json!({ "type": "string" }));
            }
            let required: Vec<&String> = properties.keys().collect();
            serde_json::json!({
                "type": "object", "required": required, "properties": properties, "description": description
            })
        };
        json_schema!({
            "description": "Why there is no value: `from` is where it was looked for, `why` what happened.",
            "oneOf": [
                state(&["missing", "denied"], &["from"], "It is not there, or not for this user."),
                state(&["malformed", "failed"], &["from", "why"], "It means nothing, or reading it failed."),
                state(&["not-read"], &["why"], "Nobody looked.")
            ]
        })
    }
}

impl<T: JsonSchema> JsonSchema for Fact<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Fact_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                {
                    "type": "object",
                    "required": ["state", "from", "value"],
                    "properties": {
                        "state": { "const": "known" },
                        "from": { "type": "string" },
                        "value": generator.subschema_for::<T>()
                    }
                },
                generator.subschema_for::<Absent>()
            ]
        })
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// What a program writes, so that fields which it always writes are required.
fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    generator.into_root_schema_for::<T>().into()
}

fn is_written_down(name: &str, schema: &Value) {
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    let path = path(name);
    if std::env::var_os("GDSBOOT_BLESS").is_some() {
        fs_err::write(&path, &text).unwrap();
    }
    let written = fs_err::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/{name} is old: GDSBOOT_BLESS=1 cargo test --lib schema");
}

fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn schemas_are_written_down() {
    is_written_down("report.schema.json", &schema_of::<Report>());
    is_written_down("check.schema.json", &schema_of::<Judgement>());
}

#[test]
fn what_is_written_fits_its_schema() {
    let schema = schema_of::<Report>();
    let mut bare = sample();
    bare.facts = Facts::default();
    for report in [sample(), bare] {
        let mut bytes = Vec::new();
        super::json::write(&report, &mut bytes).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(complaints(&schema, &value), [""; 0]);
    }
    let facts = sample().facts;
    let judgement = judge(&facts, side_of(&facts), None, &[], "2026-11-24");
    let value = serde_json::to_value(judgement).unwrap();
    assert_eq!(complaints(&schema_of::<Judgement>(), &value), [""; 0]);
}

/// Every state that a fact can be in.
#[test]
fn every_fact_fits() {
    let schema = schema_of::<Fact<u32>>();
    let from = || "/sys/x".to_owned();
    for fact in [
        Fact::known("/sys/x", 7),
        Fact::Missing { from: from() },
        Fact::Denied { from: from() },
        Fact::Malformed { from: from(), why: "x".into() },
        Fact::Failed { from: from(), why: "x".into() },
        Fact::default(),
    ] {
        assert_eq!(complaints(&schema, &serde_json::to_value(fact).unwrap()), [""; 0]);
    }
    let wrong = serde_json::json!({ "state": "known", "from": "/sys/x", "value": "seven" });
    assert!(!complaints(&schema, &wrong).is_empty());
}

#[test]
fn what_is_not_a_report_does_not_fit() {
    let schema = schema_of::<Report>();
    let good = serde_json::to_value(sample()).unwrap();
    for (pointer, wrong) in [
        ("/verdict", Value::from("MAYBE")),
        ("/findings/0/status", Value::from("good")),
        ("/started", Value::from("yesterday")),
        ("/facts/pci/state", Value::from("guessed")),
        ("/facts/pci/value/0/vendor", Value::from(4318)),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = wrong;
        assert!(!complaints(&schema, &value).is_empty(), "{pointer}");
    }
}
