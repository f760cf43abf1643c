//! Why a packet passes or not: the answer of `palisade policy explain`.

use std::net::IpAddr;

use serde::Serialize;

use super::oracle::{Book, Judgement, Listening, Outcome, misses};
use super::{Direction, PolicySnapshot, RuleRef, Section, Subject};
use crate::events::{ResourceKey, Revision};
use crate::identity::{IdentityNumber, longest_match};
use crate::limits::EXPLAIN_MISSES_MAX;

/// The part of a packet that policy looks at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Packet {
    /// TCP, UDP or SCTP to a destination port.
    Port { proto: u8, port: u16 },
    /// ICMP of a type.
    Icmp { icmp_type: u8 },
    /// ICMPv6 of a type.
    Icmpv6 { icmp_type: u8 },
    /// Any other protocol.
    Other { proto: u8 },
    /// A fragment whose first one has not been seen.
    Fragment,
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    pub direction: Direction,
    pub peer: IpAddr,
    pub packet: Packet,
}

/// What happens to the packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allowed,
    Denied,
    Audited,
}

impl Verdict {
    /// The word in an explanation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Audited => "audited",
        }
    }
}

/// A rule item by its names and its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExplainedRule {
    /// `Kind/name`; `failsafe` for an entry of `--failsafe`.
    pub resource: String,
    pub section: Section,
    pub index: usize,
    /// Where it was read; None for an entry of `--failsafe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The one-based line of the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Who the peer is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExplainedIdentity {
    pub id: IdentityNumber,
    pub labels: Vec<String>,
}

/// An answer; its JSON is a contract (DESIGN.md, section 8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    pub verdict: Verdict,
    pub reason: String,
    pub rule: Option<ExplainedRule>,
    /// `log.value` of the deciding rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    pub identity: ExplainedIdentity,
    pub enforced: bool,
    pub revision: Revision,
}

/// A rule that did not decide, and what stood in its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WhyNot {
    pub resource: String,
    pub section: Section,
    pub index: usize,
    /// `ports`, `peers`, `subject`, or `precedence` where it matches.
    pub term: &'static str,
    pub reason: String,
}

impl std::fmt::Display for RuleRef {
    /// `Kind/name ingress[0]`, `failsafe[0]`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(resource) = &self.resource {
            write!(f, "{resource} ")?;
        }
        write!(f, "{}[{}]", self.section.as_str(), self.index)
    }
}

/// Judges one packet by the plain reading of the rules. `audit`: the endpoint's
/// own audit switch.
#[must_use]
pub fn explain(
    snapshot: &PolicySnapshot,
    subject: Subject,
    audit: bool,
    query: &Query,
) -> Explanation {
    let book = Book::new(snapshot);
    let who = book.who(query.peer);
    let judgement = Listening::new(&book, subject, query.direction, &who).judge(query.packet);
    let entry = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, query.peer);
    let id = entry.map_or(IdentityNumber(0), |(_, entry)| entry.identity);
    let labels = snapshot.identities.get(id);
    let audit = audit || snapshot.options.audit;
    let (verdict, decided) = verdict(&judgement, query.packet, audit);
    let reason = match link_control(query.packet) {
        Some(passes) if judgement.enforced => link_words(passes, query),
        Some(_) => in_words(&Judgement::default(), query.direction, audit),
        None => in_words(&judgement, query.direction, audit),
    };
    let (rule, log) = match decided {
        Some(rule) => described(snapshot, rule),
        None => (None, None),
    };
    Explanation {
        verdict,
        reason,
        rule,
        log,
        identity: ExplainedIdentity {
            id,
            labels: labels.map_or_else(Vec::new, |identity| identity.labels.to_strings()),
        },
        enforced: judgement.enforced,
        revision: snapshot.revision,
    }
}

/// The rules of the direction that did not decide, the nearest first.
#[must_use]
pub fn why_not(snapshot: &PolicySnapshot, subject: Subject, query: &Query) -> Vec<WhyNot> {
    let book = Book::new(snapshot);
    let who = book.who(query.peer);
    let judgement = Listening::new(&book, subject, query.direction, &who).judge(query.packet);
    misses(
        &book,
        query.direction,
        &who,
        query.packet,
        judgement.rule.as_ref(),
        EXPLAIN_MISSES_MAX,
    )
    .into_iter()
    .map(|miss| WhyNot {
        resource: resource_name(&miss.rule),
        section: miss.rule.section,
        index: miss.rule.index,
        term: miss.term.as_str(),
        reason: miss.reason,
    })
    .collect()
}

/// The verdict on a packet and the rule that decides. `audit`: the endpoint or
/// the agent is in audit mode.
pub(super) fn verdict(
    judgement: &Judgement,
    packet: Packet,
    audit: bool,
) -> (Verdict, Option<&RuleRef>) {
    let denial = judgement.outcome.is_denial();
    let rule = judgement.rule.as_ref();
    match link_control(packet) {
        Some(false) if judgement.enforced => return (Verdict::Denied, rule.filter(|_| denial)),
        Some(_) => return (Verdict::Allowed, rule.filter(|_| !denial)),
        None => {}
    }
    let verdict = match (denial, audit || judgement.audited) {
        (false, _) => Verdict::Allowed,
        (true, true) => Verdict::Audited,
        (true, false) => Verdict::Denied,
    };
    (verdict, rule)
}

/// Where policy is enforced, the datapath itself decides about ICMPv6 but for
/// echo: what a link cannot live without passes, everything else never does.
pub(super) fn link_control(packet: Packet) -> Option<bool> {
    let Packet::Icmpv6 { icmp_type } = packet else {
        return None;
    };
    match icmp_type {
        128 | 129 => None,
        1..=4 | 130..=136 | 141..=143 | 148 | 149 | 151..=153 => Some(true),
        _ => Some(false),
    }
}

/// The ICMPv6 types at which the answer of [`link_control`] may change.
pub(super) const LINK_CONTROL_STARTS: [u8; 12] =
    [0, 1, 5, 128, 130, 137, 141, 144, 148, 150, 151, 154];

fn link_words(passes: bool, query: &Query) -> String {
    let Packet::Icmpv6 { icmp_type } = query.packet else {
        return String::new();
    };
    if passes {
        return format!("ICMPv6 type {icmp_type} always passes: errors and link control");
    }
    let direction = query.direction.as_str();
    format!("ICMPv6 type {icmp_type} is dropped where {direction} is enforced, whatever rules say")
}

/// A rule with its place, and its `log.value`.
fn described(snapshot: &PolicySnapshot, rule: &RuleRef) -> (Option<ExplainedRule>, Option<String>) {
    let mut told = ExplainedRule {
        resource: resource_name(rule),
        section: rule.section,
        index: rule.index,
        file: None,
        line: None,
    };
    let mut log = None;
    let resource = rule.resource.as_ref();
    if let Some(stored) = resource.and_then(|key| snapshot.policies.get(key)) {
        let origin = &stored.resource.origin;
        told.file = Some(origin.file.clone()).filter(|file| !file.is_empty());
        for written in &stored.policy.rules {
            let mut items = written.items.iter();
            if let Some(item) =
                items.find(|item| item.section == rule.section && item.index == rule.index)
            {
                told.line = origin.item_lines.get(&item.path).copied();
                log.clone_from(&written.log);
            }
        }
    }
    (Some(told), log)
}

fn names(keys: &[ResourceKey]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn in_words(judgement: &Judgement, direction: Direction, audit: bool) -> String {
    let direction = direction.as_str();
    let rule = judgement.rule.as_ref().map(ToString::to_string);
    let rule = rule.unwrap_or_default();
    let denied = match judgement.outcome {
        Outcome::NotEnforced => return format!("{direction} is not enforced: nothing is dropped"),
        Outcome::Allowed => return format!("allowed by {rule}"),
        Outcome::AllowedByDefault => {
            let reason = "no rule denies it, and no policy makes the direction default-deny";
            return reason.to_owned();
        }
        Outcome::Denied => format!("denied by {rule}"),
        Outcome::NotAllowed => no_rule_allows(judgement, direction),
        Outcome::FragmentUnknown if judgement.rule.is_some() => {
            format!("a fragment without ports, and {rule} might deny it")
        }
        Outcome::FragmentUnknown => {
            "a fragment without ports, and no rule allows every port of its peer".to_owned()
        }
    };
    match (judgement.audited, audit) {
        (true, _) => format!("{denied}; it passes, since that policy is in audit"),
        (false, true) => format!("{denied}; it passes, since audit mode is on"),
        (false, false) => denied,
    }
}

fn no_rule_allows(judgement: &Judgement, direction: &str) -> String {
    if judgement.audited {
        let auditing = names(&judgement.auditing);
        return format!("no rule allows it, and {direction} would be default-deny by {auditing}");
    }
    if judgement.enforcing.is_empty() {
        return format!("no rule allows it, and {direction} is always enforced");
    }
    let enforcing = names(&judgement.enforcing);
    format!("no rule allows it, and {direction} is default-deny by {enforcing}")
}

fn resource_name(rule: &RuleRef) -> String {
    rule.resource
        .as_ref()
        .map_or_else(|| "failsafe".to_owned(), ToString::to_string)
}
