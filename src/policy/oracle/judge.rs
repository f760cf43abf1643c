//! The verdict: every item of every rule is asked, one after another.
//!
//! A policy in audit is staged: the enforced policies decide alone; where they
//! let pass what both together would deny, it passes and is told.

use std::net::IpAddr;

use super::book::{Book, RuleInUse};
use super::peers::peers_match;
use super::ports::{PortsMatch, failsafe_matches, ports_match};
use super::who::Who;
use crate::events::ResourceKey;
use crate::policy::{
    Direction, EnforcementMode, Packet, PolicySnapshot, RuleRef, Section, Subject,
};

/// What the rules say about a packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    pub outcome: Outcome,
    /// The outcome is the word of policies in audit: a denial that passes.
    pub audited: bool,
    /// The item that decided.
    pub rule: Option<RuleRef>,
    /// Whether the policies that are not in audit enforce the direction.
    pub enforced: bool,
    /// Whether only policies in audit would enforce it.
    pub watched: bool,
    /// The policies that make the direction default-deny.
    pub enforcing: Vec<ResourceKey>,
    /// The policies in audit that would.
    pub auditing: Vec<ResourceKey>,
}

/// The end of a judgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Outcome {
    /// The direction is not enforced.
    #[default]
    NotEnforced,
    /// A rule allows.
    Allowed,
    /// No rule denies, and none makes the direction default-deny.
    AllowedByDefault,
    /// A deny rule matches.
    Denied,
    /// No rule allows.
    NotAllowed,
    /// A fragment without ports that the ports of some rule decide about.
    FragmentUnknown,
}

impl Outcome {
    /// Whether the packet is not to pass.
    #[must_use]
    pub fn is_denial(self) -> bool {
        match self {
            Self::NotEnforced | Self::Allowed | Self::AllowedByDefault => false,
            Self::Denied | Self::NotAllowed | Self::FragmentUnknown => true,
        }
    }
}

/// Judges one packet from or to `address`.
#[must_use]
pub fn judge(
    snapshot: &PolicySnapshot,
    subject: Subject,
    direction: Direction,
    address: IpAddr,
    packet: Packet,
) -> Judgement {
    let book = Book::new(snapshot);
    judge_by(&book, subject, direction, &book.who(address), packet)
}

/// Judges one packet of a peer, for who asks often.
#[must_use]
pub fn judge_by(
    book: &Book<'_>,
    subject: Subject,
    direction: Direction,
    who: &Who,
    packet: Packet,
) -> Judgement {
    let mode = book.snapshot.options.enforcement;
    if mode == EnforcementMode::Never {
        return Judgement::default();
    }
    let always = mode == EnforcementMode::Always;
    let Subject::Host(_) = subject;
    let asked = ask(book, direction, who, packet);
    let enforced = always || asked.items_enforced;
    let mut judgement = Judgement {
        enforced,
        watched: !enforced && asked.items_audited,
        ..Judgement::default()
    };
    let failsafe = book.snapshot.options.failsafe.iter();
    let failsafe = failsafe
        .enumerate()
        .find(|(_, entry)| failsafe_matches(entry, direction, who, packet))
        .map(|(index, _)| RuleRef {
            resource: None,
            section: Section::Failsafe,
            index,
        });
    // The enforced policies alone.
    if enforced {
        let open = asked.enforcing.is_empty() && !always;
        (judgement.outcome, judgement.rule) = match &failsafe {
            Some(rule) => (Outcome::Allowed, Some(rule.clone())),
            None => asked.decide(false, open, packet),
        };
    }
    // Then the audited ones with them.
    let failsafe_passes = failsafe.is_some();
    if asked.items_audited && !judgement.outcome.is_denial() && !failsafe_passes {
        let open = asked.enforcing.is_empty() && asked.auditing.is_empty() && !always;
        let (outcome, rule) = asked.decide(true, open, packet);
        if outcome.is_denial() {
            (judgement.outcome, judgement.rule) = (outcome, rule);
            judgement.audited = true;
        }
    }
    judgement.enforcing = asked.enforcing;
    judgement.auditing = asked.auditing;
    judgement
}

/// Everything that the items of a direction say about one packet.
#[derive(Default)]
struct Asked {
    /// Whether enforced policies, policies in audit have an item for it.
    items_enforced: bool,
    items_audited: bool,
    enforcing: Vec<ResourceKey>,
    auditing: Vec<ResourceKey>,
    /// The items that match.
    matching: Vec<Matching>,
}

struct Matching {
    rule: RuleRef,
    /// Of a policy in audit.
    audited: bool,
    /// A deny item that may be meant for a fragment.
    uncertain: bool,
}

impl Asked {
    /// The verdict of the enforced policies, with those in audit or alone.
    fn decide(&self, with_audited: bool, open: bool, packet: Packet) -> (Outcome, Option<RuleRef>) {
        let first = |deny: bool, uncertain: bool| {
            self.matching
                .iter()
                .filter(|one| with_audited || !one.audited)
                .filter(|one| one.rule.section.is_deny() == deny && one.uncertain == uncertain)
                .map(|one| one.rule.clone())
                .min()
        };
        if let Some(rule) = first(true, false) {
            (Outcome::Denied, Some(rule))
        } else if let Some(rule) = first(true, true) {
            (Outcome::FragmentUnknown, Some(rule))
        } else if let Some(rule) = first(false, false) {
            (Outcome::Allowed, Some(rule))
        } else if open {
            (Outcome::AllowedByDefault, None)
        } else if packet == Packet::Fragment {
            (Outcome::FragmentUnknown, None)
        } else {
            (Outcome::NotAllowed, None)
        }
    }
}

/// Asks every item of the direction in the rules that select the host.
fn ask(book: &Book<'_>, direction: Direction, who: &Who, packet: Packet) -> Asked {
    let mut asked = Asked::default();
    for RuleInUse { key, rule, audited } in book.rules.iter().copied() {
        if !rule.has_items(direction) {
            continue;
        }
        let (items, denying) = if audited {
            (&mut asked.items_audited, &mut asked.auditing)
        } else {
            (&mut asked.items_enforced, &mut asked.enforcing)
        };
        *items = true;
        if rule.default_deny[direction as usize] != Some(false) && !denying.contains(key) {
            denying.push(key.clone());
        }
        for item in &rule.items {
            if item.section.direction() != Some(direction) || !peers_match(book, &item.peers, who) {
                continue;
            }
            let uncertain = match ports_match(book, &item.ports, direction, who, packet) {
                PortsMatch::Yes => false,
                // An allow must be sure of its ports.
                PortsMatch::Maybe if item.section.is_deny() => true,
                PortsMatch::Maybe | PortsMatch::No => continue,
            };
            asked.matching.push(Matching {
                rule: RuleRef {
                    resource: Some(key.clone()),
                    section: item.section,
                    index: item.index,
                },
                audited,
                uncertain,
            });
        }
    }
    asked
}
