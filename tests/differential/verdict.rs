//! One packet, three verdicts.

use std::net::IpAddr;

use palisade::events::EndpointId;
use palisade::identity::{IdentityNumber, longest_match};
use palisade::policy::oracle::{Book, Judgement, Listening, Outcome, Side};
use palisade::policy::{
    Direction, EndpointPolicy, Packet, PolicySnapshot, RuleNumber, RuleRef, Subject,
};
use palisade_abi::event::{Event, kind};
use palisade_abi::reason;
use palisade_abi::table::{Cell, action, class};

use crate::probes::Probe;

pub(crate) const HOST: Subject = Subject::Host(EndpointId(1));

/// Whether a direction's rules count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Nothing is asked.
    Open,
    /// Policies in audit are asked, nothing is dropped.
    Watched,
    Enforced,
}

/// The end of a judgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Allow,
    Deny,
    /// No rule allows.
    NoRule,
    /// A fragment without ports that no L3-only rule decides about.
    Fragment,
}

/// A verdict with what decided it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) mode: Mode,
    pub(crate) what: What,
    /// A denial is reported and passed.
    pub(crate) audit: bool,
    pub(crate) rule: Option<RuleRef>,
}

/// What the plain reading says of a packet.
pub(crate) struct Plain {
    pub(crate) answer: Answer,
    /// Whether the peer's address is one of this node.
    pub(crate) own: bool,
}

/// The plain reading of some packets. `audit`: the switch of endpoint or agent.
pub(crate) fn of_oracle(snapshot: &PolicySnapshot, audit: bool, probes: &[Probe]) -> Vec<Plain> {
    let book = Book::new(snapshot);
    let mut plain = Vec::new();
    let together =
        |one: &Probe, other: &Probe| one.peer == other.peer && one.direction == other.direction;
    for group in probes.chunk_by(together) {
        let who = book.who(group[0].peer);
        let listening = Listening::new(&book, HOST, group[0].direction, &who);
        plain.extend(group.iter().map(|probe| Plain {
            answer: answer(&listening.judge(probe.packet), audit),
            own: who.side == Side::Host,
        }));
    }
    plain
}

fn answer(judgement: &Judgement, audit: bool) -> Answer {
    let what = match judgement.outcome {
        Outcome::NotEnforced | Outcome::Allowed | Outcome::AllowedByDefault => What::Allow,
        Outcome::Denied => What::Deny,
        Outcome::NotAllowed => What::NoRule,
        Outcome::FragmentUnknown => What::Fragment,
    };
    Answer {
        mode: mode(judgement.enforced, judgement.watched),
        what,
        audit: judgement.audited || denies(what) && audit,
        rule: judgement.rule.clone(),
    }
}

fn mode(enforced: bool, watched: bool) -> Mode {
    match (enforced, watched) {
        (true, _) => Mode::Enforced,
        (false, true) => Mode::Watched,
        (false, false) => Mode::Open,
    }
}

fn denies(what: What) -> bool {
    match what {
        What::Allow => false,
        What::Deny | What::NoRule | What::Fragment => true,
    }
}

/// The cell of a packet, read as the programs read it.
pub(crate) fn of_table(
    snapshot: &PolicySnapshot,
    endpoint: &EndpointPolicy,
    probe: &Probe,
) -> Answer {
    let policy = endpoint.direction(probe.direction);
    let mode = mode(policy.enforced, policy.watched);
    if mode == Mode::Open {
        return Answer {
            mode,
            what: What::Allow,
            audit: false,
            rule: None,
        };
    }
    let entry = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, probe.peer);
    let index = entry.map(|(_, entry)| entry.index).unwrap_or_default();
    let (class, key) = key_of(probe.packet);
    let cell = policy.table.lookup(index, class, key);
    Answer {
        mode,
        what: what_of(cell),
        audit: cell.audit(),
        rule: rule_of(snapshot, cell.rule()),
    }
}

fn what_of(cell: Cell) -> What {
    match cell.action() {
        action::ALLOW => What::Allow,
        action::DENY => What::Deny,
        action::FRAGMENT => What::Fragment,
        _ => What::NoRule,
    }
}

fn rule_of(snapshot: &PolicySnapshot, number: u32) -> Option<RuleRef> {
    let entry = snapshot.rules.get(&RuleNumber(number))?;
    Some(entry.rule.clone())
}

/// Class and key of a packet.
pub(crate) fn key_of(packet: Packet) -> (u32, u16) {
    let other = |base: u32, value: u8| {
        let base = u16::try_from(base).expect("keys of OTHER are small");
        (class::OTHER, base + u16::from(value))
    };
    match packet {
        Packet::Port { proto: 6, port } => (class::TCP, port),
        Packet::Port { proto: 17, port } => (class::UDP, port),
        Packet::Port { proto: 132, port } => (class::SCTP, port),
        Packet::Port { proto, .. } => panic!("protocol {proto} has no ports"),
        Packet::Icmp { icmp_type } => other(class::OTHER_ICMP, icmp_type),
        Packet::Icmpv6 { icmp_type } => other(class::OTHER_ICMPV6, icmp_type),
        Packet::Other { proto } => other(class::OTHER_PROTOCOL, proto),
        Packet::Fragment => other(class::OTHER_FRAGMENT, 0),
    }
}

/// What the programs did with one frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Seen {
    pub(crate) passes: bool,
    pub(crate) event: Option<Event>,
}

/// What they should do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// Goes on without a word.
    Silent,
    Reported {
        passes: bool,
        kind: u8,
        reason: u8,
        rule: Option<RuleRef>,
    },
}

impl Expected {
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::Reported { passes, .. } => *passes,
        }
    }
}

/// What a verdict means at the device, with what is beyond policy.
pub(crate) fn expected(answer: &Answer, probe: &Probe, is_own: bool) -> Expected {
    if answer.mode == Mode::Open {
        return Expected::Silent;
    }
    let dropped = |reason| match answer.mode {
        Mode::Enforced => Expected::Reported {
            passes: false,
            kind: kind::DROP,
            reason,
            rule: None,
        },
        Mode::Open | Mode::Watched => Expected::Silent,
    };
    match beyond_policy(probe) {
        Beyond::Passes => return Expected::Silent,
        Beyond::Forbidden => return dropped(reason::FORBIDDEN_ICMPV6),
        Beyond::No => {}
    }
    if probe.direction == Direction::Ingress && is_own {
        return dropped(reason::INVALID_SOURCE);
    }
    let reason = match answer.what {
        What::Allow => 0,
        What::Deny => reason::POLICY_DENY,
        What::NoRule => reason::POLICY,
        What::Fragment => reason::FRAGMENT_NOT_FOUND,
    };
    let (passes, kind) = match (reason, answer.audit) {
        (0, _) => (true, kind::ALLOW),
        (_, true) => (true, kind::AUDIT),
        (_, false) => (false, kind::DROP),
    };
    Expected::Reported {
        passes,
        kind,
        reason,
        rule: answer.rule.clone(),
    }
}

/// Whether policy is asked about a packet at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    No,
    Passes,
    Forbidden,
}

/// ICMP that policy is not asked about: path MTU, and the table of ICMPv6.
pub(crate) fn beyond_policy(probe: &Probe) -> Beyond {
    match probe.packet {
        Packet::Icmp { icmp_type: 3 } if probe.shape.icmp_code == 4 => Beyond::Passes,
        Packet::Icmpv6 { icmp_type } => match icmp_type {
            128 | 129 => Beyond::No,
            1..=4 | 130..=136 | 141..=143 | 148 | 149 | 151..=153 => Beyond::Passes,
            _ => Beyond::Forbidden,
        },
        Packet::Port { .. } | Packet::Icmp { .. } | Packet::Other { .. } | Packet::Fragment => {
            Beyond::No
        }
    }
}

/// Whether the programs did what they should. `Ok(false)`: a report is missing,
/// which the budget of events must account for.
pub(crate) fn holds(
    snapshot: &PolicySnapshot,
    probe: &Probe,
    expected: &Expected,
    seen: &Seen,
) -> Result<bool, String> {
    let (passes, report) = match expected {
        Expected::Silent => (true, None),
        Expected::Reported {
            passes,
            kind,
            reason,
            rule,
        } => (*passes, Some((*kind, *reason, rule))),
    };
    if seen.passes != passes {
        return Err("the packet's fate".to_owned());
    }
    match (report, &seen.event) {
        (None, None) => Ok(true),
        (Some(_), None) => Ok(false),
        (None, Some(_)) => Err("an event where none is due".to_owned()),
        (Some(report), Some(event)) => {
            let about = (event.kind, event.reason, &rule_of(snapshot, event.rule));
            if about != report {
                return Err("the event's verdict".to_owned());
            }
            if event.direction != u8::from(probe.direction == Direction::Egress) {
                return Err("the event's direction".to_owned());
            }
            if IdentityNumber(event.peer_identity) != identity(snapshot, probe.peer) {
                return Err("the event's identity".to_owned());
            }
            Ok(true)
        }
    }
}

fn identity(snapshot: &PolicySnapshot, address: IpAddr) -> IdentityNumber {
    longest_match(&snapshot.ipcache4, &snapshot.ipcache6, address)
        .map_or(IdentityNumber(0), |(_, entry)| entry.identity)
}

/// For people.
pub(crate) fn show(snapshot: &PolicySnapshot, seen: &Seen) -> String {
    let fate = if seen.passes { "passes" } else { "dropped" };
    match &seen.event {
        None => format!("{fate}, no event"),
        Some(event) => format!(
            "{fate}, event kind {} reason {} ({}) rule {:?} identity {}",
            event.kind,
            event.reason,
            reason::label(event.reason),
            rule_of(snapshot, event.rule),
            event.peer_identity
        ),
    }
}

impl Answer {
    /// Whether policy lets the packet through.
    pub(crate) fn passes(&self) -> bool {
        self.audit || !denies(self.what)
    }
}
