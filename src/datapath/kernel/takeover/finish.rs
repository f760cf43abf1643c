//! After the first commit: the hooks change hands, and nothing old is left.

use std::sync::atomic::Ordering;

use palisade_abi::commit::CommitWord;

use super::flows::Conflict;
use super::{Other, Takeover, find};
use crate::datapath::DatapathError;
use crate::datapath::kernel::attach::Attachments;
use crate::datapath::kernel::commit::Grace;
use crate::datapath::kernel::shared::Shared;

impl Takeover {
    /// Every step may be the last one of this life: the next start of either
    /// version goes on from there. After an error it is to be called again.
    pub(crate) fn finish(
        &mut self,
        shared: &Shared,
        attachments: &Attachments,
        grace: &Grace,
    ) -> Result<(), DatapathError> {
        let steps = self.steps.clone();
        let replaced = attachments.take_hooks(&steps)?;
        // Filters were replaced where nothing of ours ran beside them.
        self.carry_flows(shared, Conflict::Ours)?;
        for other in &self.others {
            if !other.shares_flows && attachments.has_leftovers_of(&other.of) {
                steps.next()?;
                other.enforce_nothing();
            }
        }
        grace.wait();
        let ended = attachments.drop_leftovers(&steps)?;
        // A packet inside of one of its programs still needs the next one.
        grace.wait();
        let mut pins = 0;
        for other in &self.others {
            attachments.take_qdiscs(other, &steps)?;
            pins += find::remove_all(&other.of, &steps)?;
        }
        tracing::info!(
            versions = ?self.versions(),
            replaced,
            ended,
            flows_shared = self.others.iter().all(|other| other.shares_flows),
            flows_entered = self.flows.entered,
            flows_known = self.flows.known,
            pins_removed = pins,
            "took over from another version"
        );
        Ok(())
    }
}

impl Other {
    /// Its programs drop nothing more; ours enforce. Its hooks go one by one, so
    /// from here on it does not see all packets: by generation 0 its flows are
    /// known not to be relied on.
    fn enforce_nothing(&self) {
        let (Some(word), Some(cell)) = (self.word(), &self.word) else {
            return;
        };
        let quiet = CommitWord::new(word.slot(), [false; 2], [false; 2], true, word.epoch(), 0);
        cell.long(0).store(quiet.0, Ordering::Release);
    }
}
