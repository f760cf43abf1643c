//! Output of a repository change: what must follow.

use std::collections::BTreeSet;

use super::{EndpointId, RegenerationCause, Revision};

/// An event of the RuleReactionQueue. Reactions that wait are merged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleReaction {
    pub revision: Revision,
    /// Endpoints that the old or the new rules select.
    pub to_regenerate: BTreeSet<EndpointId>,
    /// The others: their verdicts hold for the new revision as well.
    pub to_bump: BTreeSet<EndpointId>,
    pub causes: BTreeSet<RegenerationCause>,
}

impl RuleReaction {
    /// Merges a later reaction: newest revision wins, regeneration beats bump,
    /// causes are never lost.
    pub fn merge(&mut self, later: Self) {
        self.revision = self.revision.max(later.revision);
        self.to_regenerate.extend(later.to_regenerate);
        self.to_bump.extend(later.to_bump);
        self.to_bump.retain(|id| !self.to_regenerate.contains(id));
        self.causes.extend(later.causes);
    }

    /// The same where none may wait.
    pub fn merge_into(waiting: &mut Option<Self>, later: Self) {
        match waiting {
            Some(earlier) => earlier.merge(later),
            None => *waiting = Some(later),
        }
    }
}
