//! Why a rule did not decide, in words, the nearest rule first.

use super::book::Book;
use super::labels::failing;
use super::peers::peers_match;
use super::ports::{PortsMatch, ports_match};
use super::who::Who;
use super::words;
use crate::events::ResourceKey;
use crate::policy::language::{Item, Rule, RuleSubject};
use crate::policy::{Direction, Packet, RuleRef};

/// The part of a rule that stood in its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Term {
    /// It matches, but another rule decides.
    Precedence,
    Ports,
    Peers,
    Subject,
}

impl Term {
    /// The word in an explanation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Precedence => "precedence",
            Self::Ports => "ports",
            Self::Peers => "peers",
            Self::Subject => "subject",
        }
    }
}

/// A rule that did not decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Miss {
    pub rule: RuleRef,
    pub term: Term,
    pub reason: String,
}

/// At most `most` of the rules that did not decide about a packet, those that
/// failed in the fewest terms first. `decided`: the rule that did.
#[must_use]
pub fn misses(
    book: &Book<'_>,
    direction: Direction,
    who: &Who,
    packet: Packet,
    decided: Option<&RuleRef>,
    most: usize,
) -> Vec<Miss> {
    let mut found: Vec<(usize, Term, RuleRef, Candidate<'_>)> = Vec::new();
    for (key, stored) in &book.snapshot.policies {
        for rule in &stored.policy.rules {
            for item in &rule.items {
                if item.section.direction() != Some(direction) {
                    continue;
                }
                let reference = RuleRef {
                    resource: Some(key.clone()),
                    section: item.section,
                    index: item.index,
                };
                if decided == Some(&reference) {
                    continue;
                }
                let candidate = Candidate {
                    key,
                    rule,
                    item,
                    audited: stored.policy.audit,
                };
                let failed = candidate.failed(book, direction, who, packet);
                let worst = failed.iter().max().copied().unwrap_or(Term::Precedence);
                found.push((failed.len(), worst, reference, candidate));
            }
        }
    }
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    found.truncate(most);
    let told = found.into_iter().map(|(_, term, rule, candidate)| Miss {
        rule,
        term,
        reason: candidate.reason(term, book, direction, who, packet, decided),
    });
    told.collect()
}

/// An item that did not decide.
struct Candidate<'a> {
    key: &'a ResourceKey,
    rule: &'a Rule,
    item: &'a Item,
    audited: bool,
}

impl Candidate<'_> {
    /// The terms that do not hold.
    fn failed(
        &self,
        book: &Book<'_>,
        direction: Direction,
        who: &Who,
        packet: Packet,
    ) -> Vec<Term> {
        let mut failed = Vec::new();
        if ports_match(book, &self.item.ports, direction, who, packet) != PortsMatch::Yes {
            failed.push(Term::Ports);
        }
        if !peers_match(book, &self.item.peers, who) {
            failed.push(Term::Peers);
        }
        let selects = match &self.rule.subject {
            RuleSubject::Node(selector) => failing(selector, &book.host_labels).is_none(),
            RuleSubject::Endpoint(_) => false,
        };
        if !selects {
            failed.push(Term::Subject);
        }
        failed
    }

    fn reason(
        &self,
        term: Term,
        book: &Book<'_>,
        direction: Direction,
        who: &Who,
        packet: Packet,
        decided: Option<&RuleRef>,
    ) -> String {
        match term {
            Term::Precedence => self.outranked(decided),
            Term::Ports => words::ports(book, &self.item.ports, direction, who, packet),
            Term::Peers => words::peers(book, self.item, who),
            Term::Subject => words::subject(&self.rule.subject, &book.host_labels),
        }
    }

    fn outranked(&self, decided: Option<&RuleRef>) -> String {
        if self.audited && !self.item.section.is_deny() {
            return format!(
                "it matches, but {} is in audit: it grants nothing",
                self.key
            );
        }
        match decided {
            Some(rule) if rule.resource.is_none() => {
                format!("it matches, but {rule} lets the flow pass before any rule is asked")
            }
            Some(rule) if rule.section.is_deny() && !self.item.section.is_deny() => {
                format!("it matches, but {rule} denies, and deny beats allow")
            }
            Some(rule) => format!("it matches as well; {rule} comes first"),
            None => "it matches, but does not decide here".to_owned(),
        }
    }
}
