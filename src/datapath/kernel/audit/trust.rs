//! What the owner of the datapath remembers of the last commit, to be compared
//! with what the kernel says.

use std::sync::Arc;

use palisade_abi::commit::CommitWord;

use crate::datapath::DatapathSettings;
use crate::datapath::kernel::meta::SlotMeta;

/// What the kernel should hold beside tables and ipcaches, of which
/// `known`, `ipcache4` and `views` know what they wrote.
#[derive(Debug)]
pub(crate) struct Trust {
    /// As it was stored last, or found at the start.
    pub(crate) word: CommitWord,
    /// The record of the current slot; None where it was not of the word's
    /// generation.
    pub(crate) record: Option<SlotMeta>,
    /// Settings of the current slot; None before a policy was seen to be in force.
    pub(crate) settings: Option<Arc<DatapathSettings>>,
    /// The current slot was found wrong: what is enforced must be made anew, and
    /// every flow be judged again, even if it looks right by then.
    pub(crate) must_renew: bool,
}

impl Trust {
    /// As an agent finds it.
    pub(crate) fn at_start(word: CommitWord, record: SlotMeta) -> Self {
        Self {
            word,
            record: (word.generation() != 0 && record.generation == word.generation())
                .then_some(record),
            settings: None,
            must_renew: false,
        }
    }

    /// A generation became current.
    pub(crate) fn committed(
        &mut self,
        word: CommitWord,
        record: SlotMeta,
        settings: Option<Arc<DatapathSettings>>,
    ) {
        *self = Self {
            word,
            record: Some(record),
            settings,
            must_renew: false,
        };
    }
}
