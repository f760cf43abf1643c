//! Which devices are protected, and why not the others. Pure.

use super::list::Device;
use crate::datapath::kernel::WantedDevice;

/// A `--device` option: a name, or a prefix that ends in `+` or `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePattern {
    text: String,
}

impl DevicePattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }

    /// Whether a device of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.text.strip_suffix(['+', '*']) {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.text,
        }
    }
}

impl std::fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

/// One device and whether it is protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    pub device: Device,
    pub protected: bool,
    /// For the operator, in a few words.
    pub reason: String,
    /// VLAN ids of its sub-devices.
    pub vlans: Vec<u16>,
}

impl Selection {
    /// The device as [`crate::datapath::kernel::Attachments`] takes it.
    #[must_use]
    pub fn wanted(&self) -> Option<WantedDevice> {
        self.protected.then(|| WantedDevice {
            ifindex: self.device.ifindex,
            name: self.device.name.clone(),
            ethernet: self.device.ethernet,
            vlans: self.vlans.clone(),
        })
    }
}

/// Judges every device. `named` empty means: detect.
#[must_use]
pub fn select(devices: &[Device], named: &[DevicePattern]) -> Vec<Selection> {
    devices
        .iter()
        .map(|device| {
            let (protected, reason) = if named.is_empty() {
                detect(device)
            } else {
                look_up(device, named)
            };
            let is_child = |other: &&Device| other.parent == Some(device.ifindex);
            Selection {
                vlans: devices
                    .iter()
                    .filter(is_child)
                    .filter_map(|child| child.vlan_id)
                    .collect(),
                device: device.clone(),
                protected,
                reason,
            }
        })
        .collect()
}

fn look_up(device: &Device, named: &[DevicePattern]) -> (bool, String) {
    let Some(pattern) = named.iter().find(|pattern| pattern.matches(&device.name)) else {
        return (false, "not named by --device".to_owned());
    };
    if device.loopback {
        return (false, "loopback is never protected".to_owned());
    }
    (true, format!("named by --device {pattern}"))
}

fn detect(device: &Device) -> (bool, String) {
    let no = |reason: &str| (false, reason.to_owned());
    if device.loopback {
        no("loopback")
    } else if device.kind == "veth" && !device.default_route {
        no("veth without a default route; name it with --device if it is an uplink")
    } else if device.master.is_some() {
        no("port of another device")
    } else if !device.up {
        no("down")
    } else if !device.has_global_unicast() {
        no("no global unicast address")
    } else {
        (true, "up, with a global unicast address".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::devices::{DeviceAddress, Scope};

    fn device(name: &str, kind: &str, scope: Option<Scope>) -> Device {
        Device {
            ifindex: 7,
            name: name.to_owned(),
            kind: kind.to_owned(),
            up: true,
            loopback: name == "lo",
            ethernet: true,
            master: None,
            parent: None,
            vlan_id: None,
            default_route: false,
            addresses: scope
                .map(|scope| DeviceAddress {
                    address: [10, 0, 0, 1].into(),
                    prefix_len: 24,
                    scope,
                })
                .into_iter()
                .collect(),
        }
    }

    fn protected(device: Device, named: &[&str]) -> bool {
        let named: Vec<_> = named.iter().map(|text| DevicePattern::new(text)).collect();
        select(&[device], &named)[0].protected
    }

    #[test]
    fn detection_takes_what_others_can_reach() {
        let global = Some(Scope::Global);
        assert!(protected(device("eth0", "", global), &[]));
        assert!(protected(device("br0", "bridge", global), &[]));
        assert!(!protected(device("lo", "", global), &[]));
        assert!(!protected(device("veth1", "veth", global), &[]));
        let uplink = Device {
            default_route: true,
            ..device("eth0", "veth", global)
        };
        assert!(protected(uplink, &[]));
        assert!(!protected(device("eth1", "", Some(Scope::Link)), &[]));
        assert!(!protected(device("eth2", "", None), &[]));
        let down = Device {
            up: false,
            ..device("eth0", "", global)
        };
        assert!(!protected(down, &[]));
        let port = Device {
            master: Some(3),
            ..device("eth0", "", global)
        };
        assert!(!protected(port, &[]));
    }

    #[test]
    fn named_devices_are_taken_as_they_are_and_no_others() {
        assert!(protected(device("veth1", "veth", None), &["veth1"]));
        assert!(protected(device("eth12", "", None), &["eth+"]));
        assert!(protected(device("eth12", "", None), &["wg0", "eth*"]));
        assert!(!protected(
            device("eth12", "", Some(Scope::Global)),
            &["eth1"]
        ));
        assert!(!protected(device("lo", "", None), &["*"]));
    }

    #[test]
    fn a_parent_knows_the_ids_of_its_vlans() {
        let parent = device("eth0", "", Some(Scope::Global));
        let vlan = Device {
            ifindex: 8,
            parent: Some(7),
            vlan_id: Some(100),
            ..device("eth0.100", "vlan", Some(Scope::Global))
        };
        let all = select(&[parent, vlan], &[]);
        assert_eq!(all[0].vlans, [100]);
        assert_eq!(all[1].vlans, [0u16; 0]);
    }
}
