//! The agent's own traffic in its two maps, which belong to no generation: pinned,
//! so that a restart finds its way to the sources before its first commit.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use palisade_abi::control::{ENDPOINTS_MAX, EndpointKey, EndpointValue, Mark};
use parking_lot::Mutex;

use super::audit::{AuditReport, Finding, Mending, Part};
use super::failsafe::{octets, words};
use super::maps::{Map, MapName};
use super::shared::{Said, Shared};
use crate::datapath::{ControlDoor, ControlEndpoint, ControlFlows, ControlMark, DatapathError};

/// The list in the kernel. Any thread; one writes or compares at a time.
#[derive(Clone, Debug)]
pub struct ControlList {
    shared: Arc<Shared>,
}

fn key(endpoint: &ControlEndpoint) -> EndpointKey {
    let (family, address) = match endpoint.address.ip() {
        IpAddr::V4(address) => (4, [u32::from_ne_bytes(address.octets()), 0, 0, 0]),
        IpAddr::V6(address) => (6, words(address.octets())),
    };
    EndpointKey {
        address,
        port: endpoint.address.port().to_be(),
        proto: endpoint.proto,
        family,
    }
}

fn endpoint(key: &EndpointKey, value: &EndpointValue) -> ControlEndpoint {
    let address = if key.family == 4 {
        IpAddr::V4(Ipv4Addr::from(key.address[0].to_ne_bytes()))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets(key.address)))
    };
    ControlEndpoint {
        address: SocketAddr::new(address, u16::from_be(key.port)),
        proto: key.proto,
        unmarked_while_degraded: value.unmarked_while_degraded != 0,
    }
}

impl ControlList {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn map(&self) -> &Map {
        self.shared.maps.of(MapName::Endpoints)
    }

    /// Says which packets are the agent's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mark(&self, mark: ControlMark) -> Result<(), DatapathError> {
        let mut said = self.said().lock();
        said.mark = Some(mark);
        self.write_mark(mark)
    }

    fn said(&self) -> &Mutex<Said> {
        &self.shared.control
    }

    fn write_mark(&self, mark: ControlMark) -> Result<(), DatapathError> {
        self.shared.maps.of(MapName::Mark).put(&0u32, &mark.0)
    }

    /// What the kernel holds, in order.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn list(&self) -> Result<Vec<ControlFlows>, DatapathError> {
        let mut all = Vec::new();
        for key in self.map().keys::<EndpointKey>() {
            let key = key?;
            // Removed meanwhile: it is no longer there.
            let Some(value) = self.map().get::<_, EndpointValue>(&key)? else {
                continue;
            };
            all.push(ControlFlows {
                endpoint: endpoint(&key, &value),
                flows: value.flows,
            });
        }
        all.sort_unstable_by_key(|flows| flows.endpoint);
        Ok(all)
    }
}

impl ControlDoor for ControlList {
    fn replace(&self, wanted: &[ControlEndpoint]) -> Result<(), DatapathError> {
        let mut said = self.said().lock();
        if let Some(mark) = said.mark {
            // Whoever has changed it has cut the agent off: each connection mends it.
            self.write_mark(mark)?;
        }
        if wanted.len() > ENDPOINTS_MAX as usize {
            return Err(DatapathError::DoesNotFit {
                what: "endpoints of the agent's own traffic",
                needed: wanted.len(),
                max: ENDPOINTS_MAX as usize,
            });
        }
        // Said even if the kernel refuses it: the audit tries again.
        let wanted = said.endpoints.insert(wanted.iter().copied().collect());
        self.write_endpoints(wanted).map(drop)
    }
}

impl ControlList {
    /// Makes the map hold these and no others; how many differed.
    fn write_endpoints(&self, wanted: &BTreeSet<ControlEndpoint>) -> Result<usize, DatapathError> {
        let held: BTreeSet<ControlEndpoint> =
            self.list()?.iter().map(|held| held.endpoint).collect();
        let keys = |endpoints: &BTreeSet<ControlEndpoint>| -> HashSet<EndpointKey> {
            endpoints.iter().map(key).collect()
        };
        let (wanted_keys, held_keys) = (keys(wanted), keys(&held));
        // What goes makes room first: the map may be full.
        for gone in held_keys.difference(&wanted_keys) {
            self.map().remove(gone)?;
        }
        for new in wanted.difference(&held) {
            let value = EndpointValue {
                unmarked_while_degraded: u32::from(new.unmarked_while_degraded),
                ..EndpointValue::default()
            };
            self.map().put(&key(new), &value)?;
        }
        let strangers = held_keys.difference(&wanted_keys).count();
        Ok(strangers + wanted.difference(&held).count())
    }

    /// Compares both maps with what was said, and mends them. Whether anything
    /// differed.
    pub(super) fn audit(&self, report: &mut AuditReport) -> Result<bool, DatapathError> {
        let said = self.said().lock();
        let found_before = report.findings.len();
        if let Some(want) = said.mark {
            report.compared(Part::ControlMark, 1);
            let is: Option<Mark> = self.shared.maps.of(MapName::Mark).get(&0u32)?;
            if is != Some(want.0) {
                self.write_mark(want)?;
                let is = is.map_or("nothing".to_owned(), |is| ControlMark(is).to_string());
                let what = format!("it was {is} instead of {want}");
                report.found(Finding::new(Part::ControlMark, what, Mending::Done));
            }
        }
        if let Some(want) = &said.endpoints {
            report.compared(Part::ControlEndpoints, want.len());
            let differed = self.write_endpoints(want)?;
            if differed > 0 {
                let what = "were missing, changed or not the agent's";
                let mut finding = Finding::new(Part::ControlEndpoints, what, Mending::Done);
                finding.count = differed as u64;
                report.found(finding);
            }
        }
        Ok(report.findings.len() > found_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_was_written() {
        for address in ["192.0.2.7:6443", "[2001:db8::7]:2379"] {
            let address = address.parse().expect("an address");
            for (proto, unmarked_while_degraded) in [(6, true), (17, false)] {
                let written = ControlEndpoint {
                    address,
                    proto,
                    unmarked_while_degraded,
                };
                let value = EndpointValue {
                    unmarked_while_degraded: u32::from(unmarked_while_degraded),
                    ..EndpointValue::default()
                };
                assert_eq!(endpoint(&key(&written), &value), written);
            }
        }
    }
}
