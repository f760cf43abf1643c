//! Reads the kernel's exact counters, for the collector and the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_abi::table::IPCACHE_MAX;
use parking_lot::RwLock;

use super::collect::{KernelCounters, KernelMap};
use crate::datapath::DatapathError;
use crate::datapath::kernel::{CtOccupancy, Inspector, RuleCounter};
use crate::policy::{RuleEntry, RuleRef};
use crate::queues::{GenerationNames, Pipeline};

/// What the last sweep of conntrack found.
pub type Occupancy = Arc<RwLock<Vec<CtOccupancy>>>;

/// Name of a rule in tables, metrics and events.
#[must_use]
pub fn rule_name(rule: &RuleRef) -> String {
    let item = format!("{}[{}]", rule.section.as_str(), rule.index);
    match &rule.resource {
        Some(resource) => format!("{resource} {item}"),
        None => item,
    }
}

/// Names of the generation that is enforced.
#[must_use]
pub fn current_names(pipeline: &Pipeline) -> Option<Arc<GenerationNames>> {
    let realized = pipeline.realized()?;
    pipeline.rules_of(realized.generation)
}

/// Hits of every rule of the generation that is enforced, with what is known of it.
///
/// # Errors
/// When the kernel refuses.
pub fn rule_hits(
    inspector: &Inspector,
    pipeline: &Pipeline,
) -> Result<Vec<(RuleCounter, Arc<RuleEntry>)>, DatapathError> {
    let Some(names) = current_names(pipeline) else {
        return Ok(Vec::new());
    };
    let hits = inspector.rules(names.rules.keys().copied())?;
    let named = hits.into_iter().filter_map(|hit| {
        let entry = names.rules.get(&hit.rule)?;
        Some((hit, Arc::clone(entry)))
    });
    Ok(named.collect())
}

/// Everything the collector wants of the kernel.
///
/// # Errors
/// When the kernel refuses.
pub fn kernel_counters(
    inspector: &Inspector,
    pipeline: &Pipeline,
    occupancy: &Occupancy,
) -> Result<KernelCounters, DatapathError> {
    let reasons = inspector.counters()?.into_iter();
    let mut rules: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (hit, entry) in rule_hits(inspector, pipeline)? {
        let sum = rules.entry(rule_name(&entry.rule)).or_default();
        *sum = (sum.0 + hit.packets, sum.1 + hit.bytes);
    }
    let control = inspector.control()?.into_iter();
    let control = control.map(|listed| (listed.endpoint.to_string(), listed.flows));
    let lost = inspector.lost_events()?;
    let evicted = inspector.evictions()?;
    let mut devices: Vec<u32> = inspector.attached().iter().map(|at| at.ifindex).collect();
    devices.sort_unstable();
    devices.dedup();
    Ok(KernelCounters {
        reasons: reasons
            .map(|it| ((it.reason, it.direction), (it.packets, it.bytes)))
            .collect(),
        rules,
        control: control.collect(),
        evictions: BTreeMap::from([
            ("one-sided".to_owned(), evicted.one_sided),
            ("answered".to_owned(), evicted.answered),
        ]),
        lost: BTreeMap::from([
            ("budget".to_owned(), lost.budget),
            ("ring full".to_owned(), lost.ring_full),
        ]),
        maps: maps(inspector, pipeline, occupancy),
        devices: devices.len(),
    })
}

/// The maps whose use is known without reading them whole.
fn maps(inspector: &Inspector, pipeline: &Pipeline, occupancy: &Occupancy) -> Vec<KernelMap> {
    let snapshot = pipeline.repository();
    let capacity = |name: &str| {
        let maps = inspector.maps();
        let found = maps.iter().find(|map| map.name == name);
        found.map_or(0, |map| u64::from(map.max_entries))
    };
    let mut maps: Vec<KernelMap> = occupancy
        .read()
        .iter()
        .map(|occupied| KernelMap {
            name: occupied.map.to_owned(),
            entries: occupied.entries as u64,
            capacity: u64::from(occupied.max),
            conntrack: true,
        })
        .collect();
    let prefixes_max = u64::from(IPCACHE_MAX);
    for (name, entries, capacity) in [
        ("pal_ipcache4", snapshot.ipcache4.len(), prefixes_max),
        ("pal_ipcache6", snapshot.ipcache6.len(), prefixes_max),
        ("pal_rules", snapshot.rules.len(), capacity("pal_rules")),
    ] {
        maps.push(KernelMap {
            name: name.to_owned(),
            entries: entries as u64,
            capacity,
            conntrack: false,
        });
    }
    maps
}
