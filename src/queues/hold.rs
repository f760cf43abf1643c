//! A start after lives that were all cut off in their first build, for instance by
//! the kernel's out-of-memory killer.

use std::sync::Arc;

use super::shared::Shared;
use crate::datapath::Realized;
use crate::endpoint::HOST_ENDPOINT;
use crate::limits::BUILDS_CUT_OFF_MAX;

/// Where the lives before this one ended within their first build, it is not begun
/// once more by itself: the kernel enforces, and an agent that stays can be told
/// what to do. Where the kernel enforces nothing, it is tried for ever.
pub(super) fn hold(shared: &Shared, realized: Option<Realized>) -> bool {
    let count = shared.store.builds_cut_off();
    let Some(realized) = realized.filter(|_| count >= BUILDS_CUT_OFF_MAX) else {
        return false;
    };
    let newest = {
        let mut snapshots = shared.snapshots.write();
        snapshots.hold();
        Arc::clone(&snapshots.newest)
    };
    let by_size = newest.policies.iter();
    let largest = by_size.max_by_key(|(_, stored)| stored.resource.body.text().len());
    let largest = largest.map_or_else(String::new, |(key, stored)| {
        let kib = stored.resource.body.text().len() >> 10;
        format!(" (the largest policy is {key}, {kib} KiB)")
    });
    let message = format!(
        "revision {} is not applied, revision {} stays in force: the last {count} starts ended while \
         they built it, perhaps for lack of memory{largest}; delete or replace a policy that came \
         since (`palisade history`) or give the agent more memory and run `palisade endpoint \
         regenerate {HOST_ENDPOINT}`",
        newest.revision, realized.revision
    );
    shared
        .published
        .record("held", newest.revision, "agent", message.as_str());
    shared.published.refuse(message);
    true
}
