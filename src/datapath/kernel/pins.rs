//! Names of the pins. Every name carries the layout version, so that an agent
//! never opens what it does not understand; program pins also carry the hash of
//! the object they came from.
//!
//! | pin | name |
//! |---|---|
//! | map | `<map>_v2` |
//! | program | `prog_<program>_<hash>_v2` |
//! | TCX link | `link_<ifindex>_<device>_<ingress or egress>_v2` |
//! | clsact filter (a pin of its program, as a record) | `filter_<ifindex>_<device>_<direction>_v2` |
//! | clsact qdisc that we added (a pin of a map, as a record) | `qdisc_<ifindex>_<device>_v2` |

use std::fs;
use std::path::{Path, PathBuf};

use palisade_abi::ABI_VERSION;

use crate::policy::Direction;

/// A pin of ours, by its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Pin {
    Map {
        name: String,
    },
    Program {
        name: String,
        hash: String,
    },
    Link(AttachPin),
    Filter(AttachPin),
    Qdisc {
        ifindex: u32,
        device: String,
    },
    /// Of another layout version.
    OtherVersion {
        file: String,
    },
    /// None of ours: never touched.
    Foreign {
        file: String,
    },
}

/// Where something is attached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct AttachPin {
    pub(crate) ifindex: u32,
    pub(crate) device: String,
    pub(crate) direction: Direction,
}

/// Whether a name is one that some version of ours gives.
fn is_versioned(file: &str) -> bool {
    let kinds = [
        palisade_abi::NAME_PREFIX,
        "prog_",
        "link_",
        "filter_",
        "qdisc_",
    ];
    let version = file.rsplit_once("_v").map(|(_, version)| version);
    kinds.iter().any(|kind| file.starts_with(kind))
        && version.is_some_and(|version| version.parse::<u32>().is_ok())
}

fn version() -> String {
    format!("_v{ABI_VERSION}")
}

/// A device name in the characters that a bpffs allows ('.' is reserved there).
fn escape(device: &str) -> String {
    let mut out = String::new();
    for byte in device.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Pin {
    /// The file's name.
    pub(crate) fn file(&self) -> String {
        let version = version();
        match self {
            Self::Map { name } => format!("{name}{version}"),
            Self::Program { name, hash } => format!("prog_{name}_{hash}{version}"),
            Self::Link(at) => format!("link_{}{version}", at.middle()),
            Self::Filter(at) => format!("filter_{}{version}", at.middle()),
            Self::Qdisc { ifindex, device } => {
                format!("qdisc_{ifindex}_{}{version}", escape(device))
            }
            Self::OtherVersion { file } | Self::Foreign { file } => file.clone(),
        }
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.file())
    }

    /// The pin behind a file's name.
    pub(crate) fn parse(file: &str) -> Self {
        let ours = Self::parse_ours(file);
        ours.unwrap_or_else(|| {
            let file = file.to_owned();
            if is_versioned(&file) {
                Self::OtherVersion { file }
            } else {
                Self::Foreign { file }
            }
        })
    }

    fn parse_ours(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(version().as_str())?;
        if let Some(rest) = stem.strip_prefix("prog_") {
            let (name, hash) = rest.rsplit_once('_')?;
            return Some(Self::Program {
                name: name.to_owned(),
                hash: hash.to_owned(),
            });
        }
        if let Some(rest) = stem.strip_prefix("link_") {
            return AttachPin::parse(rest).map(Self::Link);
        }
        if let Some(rest) = stem.strip_prefix("filter_") {
            return AttachPin::parse(rest).map(Self::Filter);
        }
        if let Some(rest) = stem.strip_prefix("qdisc_") {
            let (ifindex, device) = rest.split_once('_')?;
            return Some(Self::Qdisc {
                ifindex: ifindex.parse().ok()?,
                device: unescape(device),
            });
        }
        stem.starts_with(palisade_abi::NAME_PREFIX)
            .then(|| Self::Map {
                name: stem.to_owned(),
            })
    }
}

impl AttachPin {
    fn middle(&self) -> String {
        format!(
            "{}_{}_{}",
            self.ifindex,
            escape(&self.device),
            self.direction.as_str()
        )
    }

    fn parse(middle: &str) -> Option<Self> {
        let (ifindex, rest) = middle.split_once('_')?;
        let (device, direction) = rest.rsplit_once('_')?;
        Some(Self {
            ifindex: ifindex.parse().ok()?,
            device: unescape(device),
            direction: Direction::BOTH
                .into_iter()
                .find(|it| it.as_str() == direction)?,
        })
    }
}

/// Everything pinned in `dir`, in order of name; empty where there is no such directory.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<Pin>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut pins = Vec::new();
    for entry in entries {
        pins.push(Pin::parse(&entry?.file_name().to_string_lossy()));
    }
    pins.sort();
    Ok(pins)
}

/// Removes a pin; false where it was gone already.
pub(crate) fn remove(dir: &Path, pin: &Pin) -> std::io::Result<bool> {
    match fs::remove_file(pin.path(dir)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_found_again_by_its_name() {
        let at = |device: &str| AttachPin {
            ifindex: 7,
            device: device.to_owned(),
            direction: Direction::Egress,
        };
        let pins = [
            Pin::Map {
                name: "pal_ct4".into(),
            },
            Pin::Program {
                name: "pal_in4".into(),
                hash: "00ff".into(),
            },
            Pin::Link(at("eth0.100")),
            Pin::Link(at("a_b_ingress")),
            Pin::Filter(at("br-%41")),
            Pin::Qdisc {
                ifindex: 3,
                device: "wg_0".into(),
            },
        ];
        for pin in pins {
            assert!(
                !pin.file().contains('.'),
                "a bpffs refuses dots: {}",
                pin.file()
            );
            assert_eq!(Pin::parse(&pin.file()), pin, "{}", pin.file());
        }
        assert_eq!(
            Pin::parse("pal_ct4_v999"),
            Pin::OtherVersion {
                file: "pal_ct4_v999".into()
            }
        );
        assert_eq!(
            Pin::parse("maps.debug"),
            Pin::Foreign {
                file: "maps.debug".into()
            }
        );
    }
}
