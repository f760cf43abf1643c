//! From a record of the programs to an event with names. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade_abi::event::{Event, flags, kind};
use palisade_abi::{direction, proto, reason};

use crate::datapath::kernel::octets;
use crate::identity::{IdentityNumber, LabelSet, Reserved};
use crate::model::{Decision, Peer, RuleName};
use crate::policy::{EnforcementMode, RuleEntry, RuleNumber, protocol_name};
use crate::queues::GenerationNames;

/// The event of a record. Without names (a generation that is forgotten) the
/// numbers stay, and no rule is named rather than a wrong one.
#[must_use]
pub fn enrich(
    event: &Event,
    names: Option<&GenerationNames>,
    device: String,
    time_ms: u64,
) -> Decision {
    let egress = u32::from(event.direction) == direction::EGRESS;
    let has_ports = matches!(event.proto, proto::TCP | proto::UDP | proto::SCTP);
    let port = |number: u16| (has_ports && event.family != 0).then_some(number);
    let peer = Peer {
        identity: event.peer_identity,
        labels: labels_of(event.peer_identity, names),
        ..Peer::default()
    };
    let host = Peer {
        identity: Reserved::Host.number().0,
        labels: names.map_or_else(
            || labels_of(Reserved::Host.number().0, None),
            |names| names.snapshot.host_labels.to_strings(),
        ),
        ..Peer::default()
    };
    let (source, destination) = if egress { (host, peer) } else { (peer, host) };
    let entry = entry_of(event, names);
    let rule = entry.map(|entry| RuleName::from(&entry.rule));
    Decision {
        time_ms,
        verdict: verdict_of(event).to_owned(),
        reason: reason_of(event).to_owned(),
        reason_code: event.reason,
        direction: if egress { "egress" } else { "ingress" }.to_owned(),
        endpoint: crate::endpoint::HOST_ENDPOINT.0,
        source: Peer {
            ip: address(event.family, event.source),
            port: port(event.source_port),
            ..source
        },
        destination: Peer {
            ip: address(event.family, event.destination),
            port: port(event.destination_port),
            ..destination
        },
        protocol: if event.family == 0 {
            "not-ip".to_owned()
        } else {
            protocol_name(event.proto)
        },
        detail: detail_of(event),
        policies: policies_of(event, rule.as_ref(), names),
        rule,
        log: entry.and_then(|entry| entry.log.clone()),
        device,
        length_bytes: event.len,
        rejudged: event.flags & flags::REJUDGED != 0,
        fragment: event.flags & flags::FRAGMENT != 0,
        generation: event.generation,
        revision: names.map_or(0, |names| names.revision.0),
    }
}

/// Whether policy decided, so that the record is a verdict as well as a drop.
#[must_use]
pub(super) fn is_policy(reason_code: u8) -> bool {
    matches!(
        reason_code,
        reason::POLICY | reason::POLICY_DENY | reason::FRAGMENT_NOT_FOUND
    )
}

fn verdict_of(event: &Event) -> &'static str {
    match event.kind {
        kind::ALLOW => "allowed",
        kind::AUDIT => "audited",
        _ if is_policy(event.reason) => "denied",
        _ => "dropped",
    }
}

fn reason_of(event: &Event) -> &'static str {
    if event.kind == kind::ALLOW {
        "Policy allowed"
    } else {
        reason::label(event.reason)
    }
}

fn entry_of<'a>(event: &Event, names: Option<&'a GenerationNames>) -> Option<&'a RuleEntry> {
    let number = RuleNumber(event.rule);
    names?.rules.get(&number).map(|entry| &**entry)
}

/// The policy of the deciding rule; where none matched, those that made the
/// direction default-deny, or those in audit that would have made it so.
fn policies_of(
    event: &Event,
    rule: Option<&RuleName>,
    names: Option<&GenerationNames>,
) -> Vec<String> {
    if let Some(rule) = rule {
        return vec![rule.resource.clone()];
    }
    let decided_by_default = event.rule == 0 && is_policy(event.reason);
    // An answer is dropped by the verdict on its flow, in the flow's direction.
    let against = u8::from(event.flags & flags::REPLY != 0);
    let judged = usize::from((event.direction ^ against) & 1);
    let Some(names) = names.filter(|_| decided_by_default) else {
        return Vec::new();
    };
    let mut policies = &names.enforcing[judged];
    let always = names.snapshot.options.enforcement == EnforcementMode::Always;
    if policies.is_empty() && !always && event.kind == kind::AUDIT {
        policies = &names.auditing[judged];
    }
    policies.iter().map(ToString::to_string).collect()
}

/// Labels of an identity; reserved ones are known without a snapshot.
pub(crate) fn labels_of(number: u32, names: Option<&GenerationNames>) -> Vec<String> {
    let known = names
        .and_then(|names| names.snapshot.identities.get(IdentityNumber(number)))
        .map(|identity| LabelSet::to_strings(&identity.labels));
    let reserved = || {
        Reserved::ALL
            .iter()
            .find(|reserved| reserved.number().0 == number)
            .map(|reserved| vec![format!("reserved:{}", reserved.name())])
    };
    known.or_else(reserved).unwrap_or_default()
}

fn address(family: u8, words: [u32; 4]) -> Option<IpAddr> {
    match family {
        4 => Some(IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(octets(words)))),
        _ => None,
    }
}

const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

fn detail_of(event: &Event) -> String {
    let (number, code) = (event.tcp_flags_or_type, event.icmp_code);
    match event.proto {
        proto::TCP => {
            let set = TCP_FLAGS
                .iter()
                .enumerate()
                .filter(|(bit, _)| number & (1 << bit) != 0)
                .map(|(_, name)| *name);
            set.collect::<Vec<_>>().join(", ")
        }
        proto::ICMP => icmp_words(icmp_name(number), number, code),
        proto::ICMPV6 => icmp_words(icmpv6_name(number), number, code),
        _ => String::new(),
    }
}

fn icmp_words(name: Option<&str>, number: u8, code: u8) -> String {
    match name {
        Some(name) if code == 0 => name.to_owned(),
        Some(name) => format!("{name} code {code}"),
        None => format!("type {number} code {code}"),
    }
}

fn icmp_name(number: u8) -> Option<&'static str> {
    match number {
        0 => Some("EchoReply"),
        3 => Some("DestinationUnreachable"),
        5 => Some("Redirect"),
        8 => Some("EchoRequest"),
        11 => Some("TimeExceeded"),
        12 => Some("ParameterProblem"),
        13 => Some("TimestampRequest"),
        14 => Some("TimestampReply"),
        _ => None,
    }
}

fn icmpv6_name(number: u8) -> Option<&'static str> {
    match number {
        1 => Some("DestinationUnreachable"),
        2 => Some("PacketTooBig"),
        3 => Some("TimeExceeded"),
        4 => Some("ParameterProblem"),
        128 => Some("EchoRequest"),
        129 => Some("EchoReply"),
        133 => Some("RouterSolicitation"),
        134 => Some("RouterAdvertisement"),
        135 => Some("NeighborSolicitation"),
        136 => Some("NeighborAdvertisement"),
        _ => None,
    }
}
