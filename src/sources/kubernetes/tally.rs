//! What the nodes say of each policy, counted. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

/// What one node says of one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    policy: Arc<str>,
    selected: bool,
    realized: bool,
    accepted: bool,
    generation: u64,
}

/// What is heard of the nodes' objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// A list begins.
    Begins,
    Put(String, Vec<Line>),
    Gone(String),
    /// The list is whole: what it does not hold is gone.
    Whole,
}

/// What all nodes together say of one policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    pub(super) selected: u32,
    /// Of these, those whose kernel enforces it.
    pub(super) enforcing: u32,
    pub(super) refusing: u32,
    /// The oldest generation that a node enforces.
    pub(super) generation: Option<u64>,
}

impl Count {
    /// The policy's `status.palisade`. `refusal`: what the counting node itself
    /// has against its newest version.
    pub(super) fn status(&self, refusal: Option<&str>) -> Value {
        let is_valid = refusal.is_none() && self.refusing == 0;
        let mut status = json!({
            "valid": if is_valid { "True" } else { "False" },
            "nodes": {
                "selected": self.selected,
                "enforcing": self.enforcing,
                "refusing": self.refusing,
            },
        });
        // Servers of old take no empty fields here.
        if let Some(generation) = self.generation {
            status["revision"] = json!(generation);
        }
        if let Some(refusal) = refusal {
            status["message"] = json!(refusal);
        } else if !is_valid {
            status["message"] = json!("some nodes refuse it: kubectl get palisadenodes");
        }
        status
    }
}

/// The newest word of each node.
#[derive(Debug, Default)]
pub(super) struct Tally {
    nodes: BTreeMap<String, Vec<Line>>,
    /// Of a list that runs: the nodes that it held so far.
    listed: Option<BTreeSet<String>>,
    /// Each name once, however many nodes say it.
    names: BTreeSet<Arc<str>>,
    is_whole: bool,
}

impl Tally {
    /// Takes word of a node.
    pub(super) fn take(&mut self, word: Word) {
        match word {
            Word::Begins => self.listed = Some(BTreeSet::new()),
            Word::Put(node, mut lines) => {
                for line in &mut lines {
                    line.policy = self.shared(&line.policy);
                }
                if let Some(listed) = &mut self.listed {
                    listed.insert(node.clone());
                }
                self.nodes.insert(node, lines);
            }
            Word::Gone(node) => {
                self.nodes.remove(&node);
            }
            Word::Whole => {
                if let Some(listed) = self.listed.take() {
                    self.nodes.retain(|node, _| listed.contains(node));
                }
                self.is_whole = true;
            }
        }
    }

    /// Whether all nodes were heard once: before, counts say nothing.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// By policy, as `Kind/namespace/name`.
    pub(super) fn counts(&self) -> BTreeMap<&str, Count> {
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for line in self.nodes.values().flatten() {
            let count = counts.entry(&*line.policy).or_default();
            count.refusing += u32::from(!line.accepted);
            if line.selected {
                count.selected += 1;
                if line.realized {
                    count.enforcing += 1;
                    let oldest = count.generation.unwrap_or(u64::MAX);
                    count.generation = Some(oldest.min(line.generation));
                }
            }
        }
        counts
    }

    fn shared(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(name));
        Arc::clone(name)
    }
}

/// A node's name and what its object says of the cluster's policies.
pub(super) fn lines(object: &Value) -> Option<(String, Vec<Line>)> {
    let name = object["metadata"]["name"].as_str()?;
    let details = object["status"]["details"].as_array();
    let lines = details.into_iter().flatten().filter_map(|line| {
        let is = |field: &str| line[field] == true;
        // What stands in a node's own manifests is not the cluster's.
        if line["source"] != "kubernetes" {
            return None;
        }
        Some(Line {
            policy: line["policy"].as_str()?.into(),
            selected: is("selected"),
            realized: is("realized"),
            accepted: is("accepted"),
            generation: line["generation"].as_u64().unwrap_or(0),
        })
    });
    Some((name.to_owned(), lines.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, lines: &[(&str, bool, bool, u64)]) -> Word {
        let details: Vec<Value> = lines
            .iter()
            .map(|(policy, realized, accepted, generation)| {
                json!({"policy": policy, "source": "kubernetes", "selected": true,
                    "realized": realized, "accepted": accepted, "generation": generation})
            })
            .collect();
        let object = json!({"metadata": {"name": name}, "status": {"details": details}});
        let (name, lines) = lines_of(&object);
        Word::Put(name, lines)
    }

    fn lines_of(object: &Value) -> (String, Vec<Line>) {
        lines(object).expect("a node")
    }

    #[test]
    fn nodes_are_counted_and_a_whole_list_forgets_the_others() {
        let mut tally = Tally::default();
        for word in [
            Word::Begins,
            node("a", &[("P/x", true, true, 4), ("P/y", true, true, 1)]),
            node("b", &[("P/x", true, true, 3)]),
            node("c", &[("P/x", false, false, 3)]),
            Word::Whole,
        ] {
            assert!(!tally.is_whole());
            tally.take(word);
        }
        assert!(tally.is_whole());
        let counts = tally.counts();
        let expected = Count {
            selected: 3,
            enforcing: 2,
            refusing: 1,
            generation: Some(3),
        };
        assert_eq!(counts["P/x"], expected);
        assert_eq!(counts["P/x"].status(None)["valid"], "False");
        assert_eq!(counts["P/y"].status(None)["valid"], "True");
        assert_eq!(counts["P/y"].status(Some("no"))["valid"], "False");

        tally.take(node("b", &[("P/x", true, true, 4)]));
        assert_eq!(tally.counts()["P/x"].generation, Some(4));
        tally.take(Word::Gone("c".to_owned()));
        assert_eq!(tally.counts()["P/x"].refusing, 0);
        tally.take(Word::Begins);
        tally.take(node("b", &[("P/x", true, true, 4)]));
        assert_eq!(
            tally.counts()["P/x"].selected,
            2,
            "a list is not at its end"
        );
        tally.take(Word::Whole);
        assert_eq!(tally.counts()["P/x"].selected, 1);
        assert!(!tally.counts().contains_key("P/y"));
    }

    #[test]
    fn what_a_node_has_of_its_own_is_not_counted() {
        let object = json!({"metadata": {"name": "a"}, "status": {"details": [
            {"policy": "P/x", "source": "manifests", "selected": true}]}});
        assert_eq!(lines_of(&object), ("a".to_owned(), Vec::new()));
        assert_eq!(lines(&json!({"metadata": {}})), None);
    }
}
