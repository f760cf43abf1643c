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
use crate::policy::language::Item;
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
    let who = book.who(address);
    Listening::new(&book, subject, direction, &who).judge(packet)
}

/// The rules of a direction that speak of one peer, whatever its packets.
#[derive(Debug)]
pub struct Listening<'b, 'a> {
    book: &'b Book<'a>,
    direction: Direction,
    who: Option<&'b Who>,
    /// Whether the policies that are not in audit enforce the direction.
    pub enforced: bool,
    /// Whether only policies in audit would enforce it.
    pub watched: bool,
    /// Whether policies in audit have a word.
    audited: bool,
    /// The policies that make the direction default-deny.
    pub enforcing: Vec<ResourceKey>,
    /// The policies in audit that would.
    pub auditing: Vec<ResourceKey>,
    /// The items of which the peers match.
    items: Vec<Heard<'a>>,
}

/// An item of a rule.
#[derive(Clone, Copy, Debug)]
struct Heard<'a> {
    key: &'a ResourceKey,
    item: &'a Item,
    /// Of a policy in audit.
    audited: bool,
}

impl Heard<'_> {
    fn rule(&self) -> RuleRef {
        RuleRef {
            resource: Some(self.key.clone()),
            section: self.item.section,
            index: self.item.index,
        }
    }
}

impl<'b, 'a> Listening<'b, 'a> {
    /// Asks every item of the direction about a peer.
    #[must_use]
    pub fn new(book: &'b Book<'a>, subject: Subject, direction: Direction, who: &'b Who) -> Self {
        let mut listening = Self::of_nobody(book, subject, direction);
        listening.who = Some(who);
        if !listening.enforced && !listening.watched {
            return listening;
        }
        for RuleInUse { key, rule, audited } in book.rules.iter().copied() {
            for item in &rule.items {
                if item.section.direction() == Some(direction)
                    && peers_match(book, &item.peers, who)
                {
                    listening.items.push(Heard { key, item, audited });
                }
            }
        }
        listening
    }

    /// Who enforces the direction, without any peer.
    #[must_use]
    pub fn of_nobody(book: &'b Book<'a>, subject: Subject, direction: Direction) -> Self {
        let Subject::Host(_) = subject;
        let mode = book.snapshot.options.enforcement;
        let mut listening = Self {
            book,
            direction,
            who: None,
            enforced: mode == EnforcementMode::Always,
            watched: false,
            audited: false,
            enforcing: Vec::new(),
            auditing: Vec::new(),
            items: Vec::new(),
        };
        if mode == EnforcementMode::Never {
            return listening;
        }
        for RuleInUse { key, rule, audited } in book.rules.iter().copied() {
            if !rule.has_items(direction) {
                continue;
            }
            let denying = if audited {
                listening.audited = true;
                &mut listening.auditing
            } else {
                listening.enforced = true;
                &mut listening.enforcing
            };
            if rule.default_deny[direction as usize] != Some(false) && !denying.contains(key) {
                denying.push(key.clone());
            }
        }
        listening.watched = listening.audited && !listening.enforced;
        listening
    }

    /// How many items speak of the peer.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Whether the agent is in audit mode.
    #[must_use]
    pub fn audit(&self) -> bool {
        self.book.snapshot.options.audit
    }

    /// Judges one packet of the peer.
    #[must_use]
    pub fn judge(&self, packet: Packet) -> Judgement {
        let mut judgement = Judgement {
            enforced: self.enforced,
            watched: self.watched,
            enforcing: self.enforcing.clone(),
            auditing: self.auditing.clone(),
            ..Judgement::default()
        };
        let failsafe = self.failsafe(packet);
        // The enforced policies alone.
        if self.enforced {
            (judgement.outcome, judgement.rule) = match &failsafe {
                Some(rule) => (Outcome::Allowed, Some(rule.clone())),
                None => self.decide(packet, false),
            };
        }
        // Then those in audit with them.
        if self.audited && !judgement.outcome.is_denial() && failsafe.is_none() {
            let (outcome, rule) = self.decide(packet, true);
            if outcome.is_denial() {
                (judgement.outcome, judgement.rule) = (outcome, rule);
                judgement.audited = true;
            }
        }
        judgement
    }

    fn failsafe(&self, packet: Packet) -> Option<RuleRef> {
        let who = self.who?;
        let mut entries = self.book.snapshot.options.failsafe.iter();
        let index =
            entries.position(|entry| failsafe_matches(entry, self.direction, who, packet))?;
        Some(RuleRef {
            resource: None,
            section: Section::Failsafe,
            index,
        })
    }

    /// The verdict of the enforced policies, with those in audit or alone.
    fn decide(&self, packet: Packet, with_audited: bool) -> (Outcome, Option<RuleRef>) {
        let (mut deny, mut uncertain, mut allow) = (None, None, None);
        for heard in &self.items {
            let Some(who) = self.who.filter(|_| with_audited || !heard.audited) else {
                continue;
            };
            let is_deny = heard.item.section.is_deny();
            let first = match ports_match(self.book, &heard.item.ports, self.direction, who, packet)
            {
                PortsMatch::Yes if is_deny => &mut deny,
                PortsMatch::Yes => &mut allow,
                // An allow must be sure of its ports.
                PortsMatch::Maybe if is_deny => &mut uncertain,
                PortsMatch::Maybe | PortsMatch::No => continue,
            };
            let found = (heard.item.is_for_everyone(), heard.rule());
            if first.as_ref().is_none_or(|least| found < *least) {
                *first = Some(found);
            }
        }
        // Those that select peers stand before those for everyone.
        let [deny, uncertain, allow] =
            [deny, uncertain, allow].map(|found| found.map(|(_, rule)| rule));
        let always = self.book.snapshot.options.enforcement == EnforcementMode::Always;
        let audit_denies = with_audited && !self.auditing.is_empty();
        let open = self.enforcing.is_empty() && !audit_denies && !always;
        if deny.is_some() {
            (Outcome::Denied, deny)
        } else if uncertain.is_some() {
            (Outcome::FragmentUnknown, uncertain)
        } else if allow.is_some() {
            (Outcome::Allowed, allow)
        } else if open {
            (Outcome::AllowedByDefault, None)
        } else if packet == Packet::Fragment {
            (Outcome::FragmentUnknown, None)
        } else {
            (Outcome::NotAllowed, None)
        }
    }
}
