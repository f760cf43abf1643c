//! The YAML config file: the same keys as the flags, without the dashes.
//!
//! Its values become defaults of the flags, so that one parser reads all.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use super::ConfigError;

/// The values of a config file, by key, as the flags would take them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileOptions {
    /// Every value of every key.
    pub values: BTreeMap<String, Vec<String>>,
}

impl FileOptions {
    /// Reads the text of a config file. `known` are the keys that exist.
    ///
    /// # Errors
    /// Every unknown key (with the nearest known one) and every value of a
    /// wrong type.
    pub fn parse(file: &str, text: &str, known: &[String]) -> Result<Self, Vec<ConfigError>> {
        let place = |key: &str| format!("{file}: {key}");
        let document: Value = serde_yaml_ng::from_str(text)
            .map_err(|error| vec![ConfigError::new(file, "", &error.to_string())])?;
        let mapping = match document {
            Value::Null => return Ok(Self::default()),
            Value::Mapping(mapping) => mapping,
            _ => {
                return Err(vec![ConfigError::new(
                    file,
                    "",
                    "the file must be a mapping of option names to values",
                )]);
            }
        };
        let mut options = Self::default();
        let mut errors = Vec::new();
        for (key, value) in &mapping {
            let Some(key) = key.as_str() else {
                errors.push(ConfigError::new(file, "", "a key must be a string"));
                continue;
            };
            if key == "config" || !known.iter().any(|name| name == key) {
                errors.push(ConfigError::new(&place(key), "", &unknown_key(key, known)));
                continue;
            }
            match scalars(value) {
                Ok(values) => {
                    options.values.insert(key.to_owned(), values);
                }
                Err(reason) => errors.push(ConfigError::new(&place(key), "", reason)),
            }
        }
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(errors)
        }
    }
}

fn unknown_key(key: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .filter(|name| *name != "config")
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((score, name)) if score > 0.8 => format!("unknown key; did you mean `{name}`?"),
        _ => "unknown key; `palisade agent --help` lists them all".to_owned(),
    }
}

/// A scalar, a list of scalars, or a mapping (`key=value` each) as text.
fn scalars(value: &Value) -> Result<Vec<String>, &'static str> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Sequence(items) => items.iter().map(scalar).collect(),
        Value::Mapping(entries) => entries
            .iter()
            .map(|(key, value)| Ok(format!("{}={}", scalar(key)?, scalar(value)?)))
            .collect(),
        single => scalar(single).map(|text| vec![text]),
    }
}

fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err("expected a plain value, or a list of plain values")
        }
    }
}
