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
//!
//! These forms are the same in every version: `takeover` reads those of others.

use std::fs;
use std::path::PathBuf;

use crate::policy::Direction;

/// The directory of the pins, seen by one layout version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PinDir {
    pub(crate) dir: PathBuf,
    pub(crate) version: u32,
}

impl PinDir {
    /// The same directory, seen by another version.
    pub(crate) fn of_version(&self, version: u32) -> Self {
        Self {
            dir: self.dir.clone(),
            version,
        }
    }

    pub(crate) fn display(&self) -> std::path::Display<'_> {
        self.dir.display()
    }
}

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
        version: u32,
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

/// The layout version in a name that some version of ours gives.
fn version_of(file: &str) -> Option<u32> {
    let kinds = [
        palisade_abi::NAME_PREFIX,
        "prog_",
        "link_",
        "filter_",
        "qdisc_",
    ];
    let (_, version) = file.rsplit_once("_v")?;
    let ours = kinds.iter().any(|kind| file.starts_with(kind));
    version.parse().ok().filter(|_| ours)
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
    pub(crate) fn file(&self, of: &PinDir) -> String {
        let version = format!("_v{}", of.version);
        match self {
            Self::Map { name } => format!("{name}{version}"),
            Self::Program { name, hash } => format!("prog_{name}_{hash}{version}"),
            Self::Link(at) => format!("link_{}{version}", at.middle()),
            Self::Filter(at) => format!("filter_{}{version}", at.middle()),
            Self::Qdisc { ifindex, device } => {
                format!("qdisc_{ifindex}_{}{version}", escape(device))
            }
            Self::OtherVersion { file, .. } | Self::Foreign { file } => file.clone(),
        }
    }

    pub(crate) fn path(&self, of: &PinDir) -> PathBuf {
        of.dir.join(self.file(of))
    }

    /// The pin behind a file's name, as `version` sees it.
    pub(crate) fn parse(file: &str, version: u32) -> Self {
        let file = file.to_owned();
        match version_of(&file) {
            Some(found) if found != version => Self::OtherVersion {
                file,
                version: found,
            },
            Some(_) => Self::parse_ours(&file).unwrap_or(Self::Foreign { file }),
            None => Self::Foreign { file },
        }
    }

    /// The pin as the version sees it that made it.
    pub(crate) fn of_its_version(&self) -> Self {
        match self {
            Self::OtherVersion { file, version } => Self::parse(file, *version),
            other => other.clone(),
        }
    }

    fn parse_ours(file: &str) -> Option<Self> {
        let (stem, _) = file.rsplit_once("_v")?;
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

/// Everything pinned in `of`, in order of name; empty where there is no such directory.
pub(crate) fn list(of: &PinDir) -> std::io::Result<Vec<Pin>> {
    let entries = match fs::read_dir(&of.dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut pins = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        pins.push(Pin::parse(&file.to_string_lossy(), of.version));
    }
    pins.sort();
    Ok(pins)
}

/// Versions other than that of `of` that have pins there, in order.
pub(crate) fn other_versions(of: &PinDir) -> std::io::Result<Vec<u32>> {
    let versions = list(of)?.into_iter().filter_map(|pin| match pin {
        Pin::OtherVersion { version, .. } => Some(version),
        Pin::Map { .. }
        | Pin::Program { .. }
        | Pin::Link(_)
        | Pin::Filter(_)
        | Pin::Qdisc { .. }
        | Pin::Foreign { .. } => None,
    });
    let versions: std::collections::BTreeSet<u32> = versions.collect();
    Ok(versions.into_iter().collect())
}

/// Removes a pin; false where it was gone already.
pub(crate) fn remove(of: &PinDir, pin: &Pin) -> std::io::Result<bool> {
    match fs::remove_file(pin.path(of)) {
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
        let of = PinDir {
            dir: PathBuf::new(),
            version: 2,
        };
        for pin in pins {
            let file = pin.file(&of);
            assert!(!file.contains('.'), "a bpffs refuses dots: {file}");
            assert_eq!(Pin::parse(&file, 2), pin, "{file}");
            let other = pin.file(&of.of_version(31));
            assert_eq!(Pin::parse(&other, 31), pin, "{other}");
            let seen = Pin::parse(&other, 2);
            assert!(matches!(seen, Pin::OtherVersion { version: 31, .. }));
            assert_eq!(seen.of_its_version(), pin);
        }
        assert_eq!(
            Pin::parse("maps.debug", 2),
            Pin::Foreign {
                file: "maps.debug".into()
            }
        );
    }
}
