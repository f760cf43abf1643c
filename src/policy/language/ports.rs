//! `toPorts` and `icmps`.

use serde_json::{Map, Value};

use super::item::Around;
use super::l7::{self, WrittenPort};
use super::names;
use super::types::{L4Match, PortProtocol};
use crate::limits::{ICMP_FIELDS_PER_ITEM_MAX, PORTS_PER_ITEM_MAX};
use crate::policy::checker::{At, Checker, Fault, field};
use crate::policy::nearest::nearest;

/// Reads `toPorts`; its list is not empty.
pub(super) fn read_to_ports(
    checker: &mut Checker,
    at: &At<'_>,
    list: &[Value],
    around: Around<'_>,
) -> Vec<L4Match> {
    let mut matches = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = checker.object(&at, value) else {
            continue;
        };
        let written = read_ports(checker, &at, object, &mut matches);
        l7::check(checker, &at, object, &written, around);
    }
    matches.sort();
    matches.dedup();
    matches
}

fn read_ports(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    matches: &mut Vec<L4Match>,
) -> Vec<WrittenPort> {
    let at = at.key("ports");
    let Some(ports) = field(object, "ports").and_then(|value| checker.list(&at, value)) else {
        return Vec::new();
    };
    if ports.len() > PORTS_PER_ITEM_MAX {
        let reason = format!(
            "{} ports, at most {PORTS_PER_ITEM_MAX} in one element of toPorts",
            ports.len()
        );
        checker.error(&at, Fault::missing(reason).suggest("use several elements"));
    }
    let mut written = Vec::new();
    for (index, value) in ports.iter().enumerate() {
        let at = at.index(index);
        if let Some(object) = checker.object(&at, value) {
            written.extend(read_port(checker, &at, object, matches));
        }
    }
    written
}

/// What a `port` field says.
enum Port {
    Number(u16),
    /// Lower-case.
    Name(String),
}

fn read_port(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    matches: &mut Vec<L4Match>,
) -> Option<WrittenPort> {
    checker.known_fields(at, object, &["port", "endPort", "protocol"]);
    let protocol = read_protocol(checker, at, object);
    let port = read_port_number(checker, at, object);
    let end = read_end_port(checker, at, object);
    let (protocol, port, end) = (protocol?, port?, end?);
    let protocols = match protocol {
        Protocol::Ports(protocols) => protocols,
        Protocol::Portless(number) => {
            match port {
                None | Some(Port::Number(0)) => matches.push(L4Match::Protocol(number)),
                Some(Port::Number(_) | Port::Name(_)) => {
                    let value = object.get("port").unwrap_or(&Value::Null);
                    let reason = "the protocol has no ports: port must be empty or 0";
                    checker.error(&at.key("port"), Fault::new(value, reason));
                }
            }
            return Some(WrittenPort {
                tcp_only: false,
                zero: true,
                range: false,
            });
        }
    };
    note_end_port(checker, at, object, port.as_ref(), end);
    if let None | Some(Port::Number(0)) = port {
        let reason = if port.is_none() {
            "no port is written: this is every port"
        } else {
            "port 0 is every port"
        };
        checker.warn(at, Fault::missing(reason));
    }
    let tcp_only = matches!(protocols, [PortProtocol::Tcp]);
    let (first, last) = match port {
        Some(Port::Name(name)) => {
            matches.extend(protocols.iter().map(|protocol| L4Match::Named {
                protocol: *protocol,
                name: name.clone(),
            }));
            return Some(WrittenPort {
                tcp_only,
                zero: false,
                range: false,
            });
        }
        None | Some(Port::Number(0)) => (0, u16::MAX),
        Some(Port::Number(first)) => (first, end.unwrap_or(first).max(first)),
    };
    matches.extend(protocols.iter().map(|protocol| L4Match::Ports {
        protocol: *protocol,
        first,
        last,
    }));
    Some(WrittenPort {
        tcp_only,
        zero: first == 0,
        range: first != 0 && first != last,
    })
}

/// Warns where `endPort` is ignored, as Cilium ignores it.
fn note_end_port(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
    port: Option<&Port>,
    end: Option<u16>,
) {
    let Some(end) = end.filter(|end| *end != 0) else {
        return;
    };
    let reason = match port {
        None | Some(Port::Number(0)) => {
            "ignored, since the port is 0: this is every port".to_owned()
        }
        Some(Port::Name(_)) => "ignored, since the port is a name".to_owned(),
        Some(Port::Number(first)) if end < *first => {
            format!("ignored, since {end} is less than port {first}")
        }
        Some(Port::Number(_)) => return,
    };
    let value = object.get("endPort").unwrap_or(&Value::Null);
    checker.warn(&at.key("endPort"), Fault::new(value, reason));
}

enum Protocol {
    Ports(&'static [PortProtocol]),
    Portless(u8),
}

fn read_protocol(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Protocol> {
    let Some(value) = field(object, "protocol") else {
        return Some(Protocol::Ports(&PortProtocol::ALL));
    };
    let at = at.key("protocol");
    let upper = checker.string(&at, value)?.to_ascii_uppercase();
    let found = match upper.as_str() {
        "" | "ANY" => Some(Protocol::Ports(&PortProtocol::ALL)),
        "TCP" => Some(Protocol::Ports(&[PortProtocol::Tcp])),
        "UDP" => Some(Protocol::Ports(&[PortProtocol::Udp])),
        "SCTP" => Some(Protocol::Ports(&[PortProtocol::Sctp])),
        _ => names::PORTLESS
            .iter()
            .find(|(name, _)| *name == upper)
            .map(|(_, number)| Protocol::Portless(*number)),
    };
    if found.is_none() {
        let suggestion = if upper.starts_with("ICMP") {
            "use icmps"
        } else {
            "TCP, UDP, SCTP, ANY, VRRP, IGMP, GRE, IPIP, IPv6, ESP or AH"
        };
        checker.error(
            &at,
            Fault::new(value, "unknown protocol").suggest(suggestion),
        );
    }
    found
}

/// The outer None: an error; the inner one: no port is written.
fn read_port_number(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Option<Port>> {
    let Some(value) = field(object, "port") else {
        return Some(None);
    };
    let at = at.key("port");
    let outside =
        || Fault::new(value, "not a port").suggest("a number from 0 to 65535 (0 is every port)");
    if let Some(number) = value.as_u64() {
        let port = u16::try_from(number).ok();
        match port {
            Some(port) => {
                let fault = Fault::new(value, "a number; the Kubernetes API wants a string");
                checker.warn(&at, fault.suggest(format!("write \"{port}\"")));
            }
            None => checker.error(&at, outside()),
        }
        return port.map(|port| Some(Port::Number(port)));
    }
    if value.is_number() {
        checker.error(&at, outside());
        return None;
    }
    let text = checker.string(&at, value)?;
    if text.is_empty() {
        return Some(None);
    }
    if is_service_name(text) {
        return Some(Some(Port::Name(text.to_ascii_lowercase())));
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // As Go's base detection does: a leading zero makes it octal.
    let octal = digits && text.len() > 1 && text.starts_with('0');
    let port = if !digits {
        None
    } else if octal {
        u16::from_str_radix(text, 8).ok()
    } else {
        text.parse().ok()
    };
    match port {
        Some(port) => {
            if octal {
                let reason = format!("a leading zero makes it octal: this is port {port}");
                checker.warn(&at, Fault::new(value, reason));
            }
            Some(Some(Port::Number(port)))
        }
        None => {
            checker.error(&at, outside());
            None
        }
    }
}

fn read_end_port(
    checker: &mut Checker,
    at: &At<'_>,
    object: &Map<String, Value>,
) -> Option<Option<u16>> {
    let Some(value) = field(object, "endPort") else {
        return Some(None);
    };
    let end = value.as_u64().and_then(|end| u16::try_from(end).ok());
    if end.is_none() {
        let fault = Fault::new(value, "not a port").suggest("a number from 1 to 65535");
        checker.error(&at.key("endPort"), fault);
    }
    end.map(Some)
}

/// IANA's grammar of service names: 1 to 15 letters, digits and single
/// hyphens, with a letter.
pub(crate) fn is_service_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=15).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// Reads `icmps`; its list is not empty.
pub(super) fn read_icmps(checker: &mut Checker, at: &At<'_>, list: &[Value]) -> Vec<L4Match> {
    let mut matches = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = checker.object(&at, value) else {
            continue;
        };
        checker.known_fields(&at, object, &["fields"]);
        let at = at.key("fields");
        let Some(fields) = field(object, "fields").and_then(|value| checker.list(&at, value))
        else {
            continue;
        };
        if fields.len() > ICMP_FIELDS_PER_ITEM_MAX {
            let reason = format!(
                "{} fields, at most {ICMP_FIELDS_PER_ITEM_MAX} in one element of icmps",
                fields.len()
            );
            checker.error(&at, Fault::missing(reason).suggest("use several elements"));
        }
        for (index, value) in fields.iter().enumerate() {
            let at = at.index(index);
            if let Some(object) = checker.object(&at, value) {
                matches.extend(read_icmp(checker, &at, object));
            }
        }
    }
    matches.sort();
    matches.dedup();
    matches
}

fn read_icmp(checker: &mut Checker, at: &At<'_>, object: &Map<String, Value>) -> Option<L4Match> {
    checker.known_fields(at, object, &["family", "type"]);
    let v6 = match field(object, "family").map(|value| (value, value.as_str())) {
        None | Some((_, Some("" | "IPv4"))) => Some(false),
        Some((_, Some("IPv6"))) => Some(true),
        Some((value, _)) => {
            let fault = Fault::new(value, "unknown family").suggest("IPv4 or IPv6");
            checker.error(&at.key("family"), fault);
            None
        }
    };
    let Some(value) = field(object, "type") else {
        checker.error(at, Fault::missing("type: missing"));
        return None;
    };
    let at = at.key("type");
    if let Some(number) = value.as_u64().and_then(|number| u8::try_from(number).ok()) {
        return v6.map(|v6| icmp(v6, number));
    }
    let Some(name) = value.as_str() else {
        let fault = Fault::new(value, "not an ICMP type");
        checker.error(&at, fault.suggest("a number from 0 to 255, or a name"));
        return None;
    };
    let names: &[(&str, u8)] = if v6? { &names::ICMPV6 } else { &names::ICMP };
    if let Some((_, number)) = names.iter().find(|(known, _)| *known == name) {
        return v6.map(|v6| icmp(v6, *number));
    }
    // Kubernetes' int-or-string: a number in quotes.
    if let Ok(number) = name.parse::<u8>() {
        return v6.map(|v6| icmp(v6, number));
    }
    let family = if v6? { "IPv6" } else { "IPv4" };
    let mut fault = Fault::new(value, format!("not an ICMP type of {family}"));
    if let Some(meant) = nearest(name, names.iter().map(|(name, _)| *name)) {
        fault = fault.suggest(format!("did you mean {meant:?}?"));
    }
    checker.error(&at, fault);
    None
}

fn icmp(v6: bool, number: u8) -> L4Match {
    if v6 {
        L4Match::Icmpv6(number)
    } else {
        L4Match::Icmp(number)
    }
}
