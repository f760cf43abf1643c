//! What the sweeps of conntrack report as they happen.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::catalogue as names;
use crate::datapath::kernel::CtOccupancy;
use crate::endpoint::meters::outcome;

/// A sweep ended after `took`; the next one follows after `pause`. None: the
/// kernel refused.
pub fn swept(found: Option<&[CtOccupancy]>, took: Duration, pause: Duration) {
    counter!(names::CONNTRACK_GC_RUNS, "status" => outcome(found.is_some())).increment(1);
    histogram!(names::CONNTRACK_GC_DURATION).record(took.as_secs_f64());
    gauge!(names::CONNTRACK_GC_INTERVAL).set(pause.as_secs_f64());
    for map in found.unwrap_or_default() {
        counter!(names::CONNTRACK_GC_DELETED, "map_name" => map.map).increment(map.removed as u64);
    }
}
