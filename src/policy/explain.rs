//! Why a packet passes or not: the answer of `palisade policy explain`.

use std::net::IpAddr;

use serde::Serialize;

use super::oracle::{Judgement, Outcome, judge};
use super::{Direction, PolicySnapshot, RuleRef, Section, Subject};
use crate::events::Revision;
use crate::identity::{IdentityNumber, longest_match};

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allowed,
    Denied,
    Audited,
}

/// The deciding rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExplainedRule {
    /// `Kind/name`; `failsafe` for an entry of `--failsafe`.
    pub resource: String,
    pub section: Section,
    pub index: usize,
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
    pub identity: ExplainedIdentity,
    pub enforced: bool,
    pub revision: Revision,
    /// For each rule that selects the endpoint: why it did not allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
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
    let judgement = judge(snapshot, subject, query.direction, query.peer, query.packet);
    let entry = longest_match(&snapshot.ipcache4, &snapshot.ipcache6, query.peer);
    let id = entry.map_or(IdentityNumber(0), |(_, entry)| entry.identity);
    let labels = snapshot.identities.get(id);
    let (verdict, reason) = in_words(&judgement, query.direction, audit || snapshot.options.audit);
    Explanation {
        verdict,
        reason,
        rule: judgement.rule.as_ref().map(|rule| ExplainedRule {
            resource: resource_name(rule),
            section: rule.section,
            index: rule.index,
        }),
        identity: ExplainedIdentity {
            id,
            labels: labels.map_or_else(Vec::new, |identity| identity.labels.to_strings()),
        },
        enforced: judgement.enforced,
        revision: snapshot.revision,
        why_not: judgement
            .passed_over
            .iter()
            .map(|(rule, why)| format!("{}: {why}", rule_name(rule)))
            .collect(),
    }
}

fn in_words(judgement: &Judgement, direction: Direction, audit: bool) -> (Verdict, String) {
    let direction = direction.as_str();
    let rule = judgement.rule.as_ref().map(rule_name).unwrap_or_default();
    let enforcing: Vec<String> = judgement
        .enforcing
        .iter()
        .map(ToString::to_string)
        .collect();
    let denied = match judgement.outcome {
        Outcome::NotEnforced => {
            let reason = format!("{direction} is not enforced: nothing is dropped");
            return (Verdict::Allowed, reason);
        }
        Outcome::Allowed => return (Verdict::Allowed, format!("allowed by {rule}")),
        Outcome::AllowedByDefault => {
            let reason = "no rule denies it, and no policy makes the direction default-deny";
            return (Verdict::Allowed, reason.to_owned());
        }
        Outcome::Denied => format!("denied by {rule}"),
        Outcome::NotAllowed if enforcing.is_empty() => {
            format!("no rule allows it, and {direction} is always enforced")
        }
        Outcome::NotAllowed => format!(
            "no rule allows it, and {direction} is default-deny by {}",
            enforcing.join(", ")
        ),
        Outcome::FragmentUnknown if judgement.rule.is_some() => {
            format!("a fragment without ports, and {rule} might deny it")
        }
        Outcome::FragmentUnknown => {
            "a fragment without ports, and no rule allows every port of its peer".to_owned()
        }
    };
    if audit {
        (
            Verdict::Audited,
            format!("{denied}; it passes, since audit mode is on"),
        )
    } else {
        (Verdict::Denied, denied)
    }
}

fn resource_name(rule: &RuleRef) -> String {
    rule.resource
        .as_ref()
        .map_or_else(|| "failsafe".to_owned(), ToString::to_string)
}

fn rule_name(rule: &RuleRef) -> String {
    let (section, index) = (rule.section.as_str(), rule.index);
    match &rule.resource {
        Some(resource) => format!("{resource} {section}[{index}]"),
        None => format!("{section}[{index}]"),
    }
}
