//! A case: options of an agent, and manifests that come, change and go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use palisade::policy::{FailsafeEntry, PolicyOptions};
use serde_json::Value;

/// The name of the node under test.
pub(crate) const NODE: &str = "self";

/// One change of the manifests.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Change {
    /// The object is new, or replaces the one of its kind and name.
    Put(Value),
    /// The object of this kind and name is gone.
    Delete(Value),
}

impl Change {
    pub(crate) fn object(&self) -> &Value {
        match self {
            Self::Put(object) | Self::Delete(object) => object,
        }
    }
}

/// Everything that follows from a seed, but for the packets.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) options: PolicyOptions,
    /// The audit switch of the endpoint.
    pub(crate) audit: bool,
    /// Addresses of the devices.
    pub(crate) local: Vec<IpAddr>,
    /// Whether flows live, from one generation to the next; else each packet
    /// is a flow's first.
    pub(crate) flows: bool,
    /// Each step is one generation of the datapath.
    pub(crate) steps: Vec<Vec<Change>>,
}

/// Objects in force, by kind, namespace and name.
pub(crate) type Objects = BTreeMap<String, Value>;

/// Kind, namespace and name.
pub(crate) fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!(
        "{}/{}/{}",
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"])
    )
}

/// Applies a step to the objects in force.
pub(crate) fn apply(objects: &mut Objects, step: &[Change]) {
    for change in step {
        match change {
            Change::Put(object) => objects.insert(key(object), object.clone()),
            Change::Delete(object) => objects.remove(&key(object)),
        };
    }
}

impl Case {
    /// The same objects, all in one step: what is in force after all steps.
    pub(crate) fn flattened(&self) -> Self {
        let mut objects = Objects::new();
        for step in &self.steps {
            apply(&mut objects, step);
        }
        Self {
            steps: vec![objects.into_values().map(Change::Put).collect()],
            ..self.clone()
        }
    }

    /// Rules in the policies of all steps.
    pub(crate) fn rules(&self) -> usize {
        let of = |object: &Value| {
            usize::from(object.get("spec").is_some())
                + object["specs"].as_array().map_or(0, Vec::len)
        };
        let policies = self.steps.iter().flatten().map(Change::object);
        policies
            .filter(|object| {
                object["kind"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("Policy")
            })
            .map(of)
            .sum()
    }

    /// As YAML, with the options of the agent in front.
    pub(crate) fn to_yaml(&self) -> String {
        let mut text = format!(
            "# policy-enforcement {:?}, policy-audit-mode {}, PolicyAuditMode {}\n",
            self.options.enforcement, self.options.audit, self.audit
        );
        let options = &self.options;
        text.push_str(&format!(
            "# policy-cidr-match-mode nodes: {}, named ports {:?}\n",
            options.cidr_match_nodes, options.named_ports
        ));
        for entry in &self.options.failsafe {
            text.push_str(&format!("# failsafe {}\n", failsafe(entry)));
        }
        text.push_str(&format!(
            "# node {NODE} with labels {:?}, own addresses {:?}; flows live: {}\n",
            self.options.node_labels, self.local, self.flows
        ));
        for (number, step) in self.steps.iter().enumerate() {
            text.push_str(&format!("# step {number}\n"));
            for change in step {
                text.push_str("---\n");
                match change {
                    Change::Put(object) => {
                        text.push_str(&serde_yaml_ng::to_string(object).unwrap_or_default());
                    }
                    Change::Delete(object) => {
                        text.push_str(&format!("# deleted: {}\n", key(object)));
                    }
                }
            }
        }
        text
    }
}

/// As on the command line.
fn failsafe(entry: &FailsafeEntry) -> String {
    let side = if entry.direction == 0 { "in" } else { "out" };
    let (proto, port) = (entry.proto, entry.port);
    let peer = entry.peer.map_or(String::new(), |peer| format!("@{peer}"));
    format!("{side}:{proto}/{port}{peer}")
}
