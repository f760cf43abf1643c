//! Labels: `source:key=value`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One label. Without a value it prints as `source:key`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Label {
    pub source: String,
    pub key: String,
    pub value: String,
}

impl Label {
    /// A label of the given parts.
    pub fn new(
        source: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Self {
            source: source.into(),
            key: key.into(),
            value: value.into(),
        }
    }
    /// `reserved:<name>`.
    #[must_use]
    pub fn reserved(name: &str) -> Self {
        Self::new("reserved", name, "")
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}:{}", self.source, self.key)
        } else {
            write!(f, "{}:{}={}", self.source, self.key, self.value)
        }
    }
}

/// A set of labels, ordered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelSet(BTreeSet<Label>);

impl LabelSet {
    /// Ordered by source, key, value.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }
    /// Adds one label.
    pub fn insert(&mut self, label: Label) {
        self.0.insert(label);
    }
    /// Whether exactly this label is there.
    #[must_use]
    pub fn contains(&self, label: &Label) -> bool {
        self.0.contains(label)
    }
    /// Whether `reserved:<name>` is there.
    #[must_use]
    pub fn has_reserved(&self, name: &str) -> bool {
        self.0.contains(&Label::reserved(name))
    }
    /// `source:key=value` of each.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Self(labels.into_iter().collect())
    }
}
