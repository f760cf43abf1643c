//! The agent's own traffic in its two maps, which belong to no generation: pinned,
//! so that a restart finds its way to the sources before its first commit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use palisade_abi::control::{ENDPOINTS_MAX, EndpointKey, EndpointValue};
use parking_lot::Mutex;

use super::datapath::Shared;
use super::failsafe::{octets, words};
use super::maps::{Map, MapName};
use crate::datapath::{ControlDoor, ControlEndpoint, ControlFlows, ControlMark, DatapathError};

/// The list in the kernel. Any thread; one writes at a time.
#[derive(Clone, Debug)]
pub struct ControlList {
    shared: Arc<Shared>,
    /// The mark, once it was said; held while the list is written.
    mark: Arc<Mutex<Option<ControlMark>>>,
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
        Self {
            shared,
            mark: Arc::default(),
        }
    }

    fn map(&self) -> &Map {
        self.shared.maps.of(MapName::Endpoints)
    }

    /// Says which packets are the agent's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mark(&self, mark: ControlMark) -> Result<(), DatapathError> {
        *self.mark.lock() = Some(mark);
        self.write_mark(mark)
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
        let mark = self.mark.lock();
        if let Some(mark) = *mark {
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
        let held: BTreeMap<ControlEndpoint, u64> = self
            .list()?
            .into_iter()
            .map(|held| (held.endpoint, held.flows))
            .collect();
        // What goes makes room first: the map may be full.
        for gone in held.keys() {
            if !wanted.iter().any(|wanted| key(wanted) == key(gone)) {
                self.map().remove(&key(gone))?;
            }
        }
        for new in wanted.iter().filter(|wanted| !held.contains_key(wanted)) {
            let value = EndpointValue {
                unmarked_while_degraded: u32::from(new.unmarked_while_degraded),
                ..EndpointValue::default()
            };
            self.map().put(&key(new), &value)?;
        }
        Ok(())
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
