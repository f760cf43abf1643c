//! A checksum of one revision of everything, to tell whether two of them are
//! the same to the bit: one that lived on in memory, one replayed from a journal.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::PolicySnapshot;

/// SHA-256 of a snapshot: revision, options, policies, objects, labels and
/// addresses of the node, identities with their numbers and indexes, the ipcache,
/// rule numbers. Refused versions are left out: they come without a revision.
#[must_use]
pub fn fingerprint(snapshot: &PolicySnapshot) -> String {
    let mut hash = Sha256::new();
    let mut part = |name: &str, lines: &mut dyn Iterator<Item = String>| {
        hash.update(name.as_bytes());
        for line in lines {
            hash.update((line.len() as u64).to_le_bytes());
            hash.update(line.as_bytes());
        }
        // No line is that long.
        hash.update(u64::MAX.to_le_bytes());
    };
    part("revision", &mut one(snapshot.revision.to_string()));
    part("options", &mut one(json(&*snapshot.options)));
    part("labels", &mut snapshot.host_labels.to_strings().into_iter());
    let addresses = snapshot.local_addresses.iter();
    part("addresses", &mut addresses.map(ToString::to_string));
    let policies = snapshot.policies.values();
    part(
        "policies",
        &mut policies.map(|stored| {
            let selects = stored.selects_host;
            format!("{} {selects} {:?}", json(&*stored.resource), stored.numbers)
        }),
    );
    let objects = snapshot.objects.values();
    part(
        "objects",
        &mut objects.map(|stored| json(&*stored.resource)),
    );
    let mut identities: Vec<_> = snapshot.identities.iter().collect();
    identities.sort_by_key(|identity| identity.number);
    let identities = identities.iter();
    part(
        "identities",
        &mut identities.map(|identity| {
            let labels = identity.labels.to_strings().join(" ");
            format!("{} {} {labels}", identity.number.0, identity.index.0)
        }),
    );
    let entry = |prefix: &dyn std::fmt::Display, entry: &crate::identity::IpcacheEntry| {
        format!("{prefix} {} {}", entry.identity.0, entry.index.0)
    };
    let ipcache4 = snapshot.ipcache4.iter();
    part(
        "ipcache4",
        &mut ipcache4.map(|(prefix, is)| entry(prefix, is)),
    );
    let ipcache6 = snapshot.ipcache6.iter();
    part(
        "ipcache6",
        &mut ipcache6.map(|(prefix, is)| entry(prefix, is)),
    );
    let rules = snapshot.rules.iter();
    part(
        "rules",
        &mut rules.map(|(number, entry)| format!("{} {entry:?}", number.0)),
    );
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn one(line: String) -> impl Iterator<Item = String> {
    std::iter::once(line)
}

/// What is journaled can be written as JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
