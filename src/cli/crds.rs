//! `palisade crds`: the definitions for clusters that lack them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::CliError;
use super::args::CrdsOptions;
use super::output::Output;

/// Palisade's own.
const OWN: &str = include_str!("../../deploy/crds/palisadenodes.yaml");

/// Cilium's, without those of pods and nodes, which only Cilium writes: where
/// they are, the agent counts on them.
const CILIUMS: [&str; 3] = [
    include_str!("../../deploy/crds/ciliumclusterwidenetworkpolicies.yaml"),
    include_str!("../../deploy/crds/ciliumnetworkpolicies.yaml"),
    include_str!("../../deploy/crds/ciliumcidrgroups.yaml"),
];

/// YAML documents, or one list for `-o json` and `-o yaml`.
pub(super) fn run(out: Output, options: &CrdsOptions) -> Result<(), CliError> {
    let mut texts = vec![OWN];
    if !options.own {
        texts.extend(CILIUMS);
    }
    let documents: Result<Vec<Value>, _> = texts
        .iter()
        .map(|text| Value::deserialize(serde_yaml_ng::Deserializer::from_str(text)))
        .collect();
    let documents = documents.map_err(|error| CliError::Failed(error.to_string()))?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
    out.print(&list, |_| texts.join("---\n"))
}
