//! The devices as the node's own source sees them: for `status`, the monitor,
//! metrics and readiness. Written by the thread `local`, read by anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::histogram;
use parking_lot::RwLock;

use super::SourceProblem;
use crate::clock::Moment;
use crate::datapath::devices::Selection;
use crate::limits::DEVICE_UNPROTECTED_MAX;

const DEVICE_PROTECTION: &str = "device_protection_seconds";

/// The devices as last seen.
#[derive(Clone, Debug, Default)]
pub struct DeviceReport {
    pub selections: Vec<Selection>,
    pub problems: Vec<SourceProblem>,
    /// Devices that are to be protected and are not, by number: since when.
    pub unprotected: BTreeMap<u32, Moment>,
    /// Since when devices cannot be looked at.
    pub blind_since: Option<Moment>,
    pub gaps: Gaps,
}

/// The times between the word that a device is to be protected (it appeared, came
/// up, got its first address) and its protection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gaps {
    pub count: u64,
    pub last: Duration,
    pub last_device: String,
    pub longest: Duration,
    pub longest_device: String,
}

impl Gaps {
    /// A device that was unprotected for so long is protected now.
    pub(super) fn closed(&mut self, device: &str, gap: Duration) {
        histogram!(DEVICE_PROTECTION).record(gap.as_secs_f64());
        self.count += 1;
        (self.last, self.last_device) = (gap, device.to_owned());
        if gap >= self.longest {
            (self.longest, self.longest_device) = (gap, device.to_owned());
        }
    }
}

impl DeviceReport {
    /// Devices that are unprotected for longer than a moment, and for how long.
    #[must_use]
    pub fn overdue(&self, now: Moment) -> Vec<(String, Duration)> {
        let waits = self.unprotected.iter();
        let blind = self.blind_since.iter();
        waits
            .map(|(ifindex, since)| (self.name(*ifindex), now.since(*since)))
            .chain(blind.map(|since| ("new devices".to_owned(), now.since(*since))))
            .filter(|(_, span)| *span > DEVICE_UNPROTECTED_MAX)
            .collect()
    }

    fn name(&self, ifindex: u32) -> String {
        let mut devices = self.selections.iter().map(|selection| &selection.device);
        devices
            .find(|device| device.ifindex == ifindex)
            .map_or_else(|| format!("if{ifindex}"), |device| device.name.clone())
    }
}

/// The devices, for `status` and the monitor.
#[derive(Debug, Default)]
pub struct DeviceBoard {
    pub(super) report: RwLock<DeviceReport>,
}

impl DeviceBoard {
    /// The devices as last seen.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        self.report.read().clone()
    }

    /// Name of a device; `if<number>` when it is gone.
    #[must_use]
    pub fn name(&self, ifindex: u32) -> String {
        self.report.read().name(ifindex)
    }

    /// Whether a device is unprotected for longer than a moment.
    #[must_use]
    pub fn is_overdue(&self, now: Moment) -> bool {
        !self.report.read().overdue(now).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_overdue_after_its_moment() {
        let since = Moment(Duration::from_secs(100));
        let report = DeviceReport {
            unprotected: BTreeMap::from([(7, since)]),
            ..DeviceReport::default()
        };
        assert!(
            report
                .overdue(since.after(DEVICE_UNPROTECTED_MAX))
                .is_empty()
        );
        let later = since.after(DEVICE_UNPROTECTED_MAX * 2);
        let overdue = report.overdue(later);
        assert_eq!(overdue, [("if7".to_owned(), DEVICE_UNPROTECTED_MAX * 2)]);
    }

    #[test]
    fn the_longest_gap_is_remembered() {
        let mut gaps = Gaps::default();
        for (device, ms) in [("eth0", 3), ("eth1", 9), ("eth2", 4)] {
            gaps.closed(device, Duration::from_millis(ms));
        }
        assert_eq!((gaps.count, gaps.last_device.as_str()), (3, "eth2"));
        assert_eq!(gaps.longest_device, "eth1");
        assert_eq!(gaps.longest, Duration::from_millis(9));
    }
}
