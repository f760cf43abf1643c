//! Taking over from another version of the layout, older or newer, which is not
//! known by its number: only what `layout` promises of every version is used.
//!
//! While another version is there, this one prepares beside it and changes
//! nothing that enforces. The first commit of this life makes our tables
//! current, with a decision epoch that no flow was judged in; then, and not
//! before, the hooks change hands and what the other version had is removed.
//! Whoever starts after an interruption, of either version, finds two versions
//! again and does the same. In reading order:
//!
//! 1. `find`: who is there, whose maps do running programs use; remains of ours
//!    that nothing uses are thrown away; maps of flows that are alike are shared:
//!    pinned under our name too, so both versions see the same flows at any time.
//! 2. `hooks`: where flows are shared, hooks stay as they are until the commit.
//!    Where conntrack values have another size, our programs are attached beside
//!    the others at once: not enforcing, they learn all flows that pass.
//! 3. `flows`: before the commit, flows that are not shared are carried over.
//! 4. `finish`: after the commit, each hook's program is replaced in one step
//!    (link update, filter replace); a version that ours run beside is told to
//!    enforce nothing, in one store, and its links go; after a grace period its
//!    programs and maps go too.
//!
//! Owner: the committer's thread, and the start before it.

mod find;
mod finish;
mod flows;
mod hooks;
mod steps;

use palisade_abi::commit::{CommitWord, EPOCH_MASK};

use super::mapping::Mapping;
use super::maps::{Map, MapName};
use super::pins::PinDir;
use super::shared::Shared;
use crate::datapath::{DatapathError, GenerationNumber, Realized};
use crate::events::Revision;

pub(crate) use find::prepare;
pub(crate) use flows::Conflict;
pub(crate) use steps::Steps;

/// What is taken over, until it is finished.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub(crate) others: Vec<Other>,
    /// How flows of the others were carried over, for the log.
    flows: flows::Carried,
    steps: Steps,
}

/// Another version.
#[derive(Debug)]
pub(crate) struct Other {
    of: PinDir,
    /// Its conntrack maps are ours too.
    shares_flows: bool,
    /// Its commit word; None where there is none.
    word: Option<Mapping>,
}

impl Takeover {
    /// Looks at the others once our maps are open; None where there are none.
    pub(crate) fn begin(
        others: Vec<PinDir>,
        shared: &Shared,
        steps: Steps,
    ) -> Result<Option<Self>, DatapathError> {
        let others = others.into_iter().map(|of| Other::open(of, shared));
        let takeover = Self {
            others: others.collect::<Result<_, _>>()?,
            flows: flows::Carried::default(),
            steps,
        };
        Ok((!takeover.others.is_empty()).then_some(takeover))
    }

    /// The versions that are taken over.
    pub(crate) fn versions(&self) -> Vec<u32> {
        self.others.iter().map(|other| other.of.version).collect()
    }

    /// The latest epoch in which any version judged flows.
    pub(crate) fn epoch(&self, own: u32) -> u32 {
        let words = self.others.iter().filter_map(Other::word);
        words.map(CommitWord::epoch).fold(own, latest)
    }

    /// What is enforced while nothing of ours is.
    pub(crate) fn realized(&self) -> Option<Realized> {
        let words = self.others.iter().filter_map(Other::word);
        let word = words.max_by_key(|word| word.generation())?;
        (word.generation() != 0).then(|| Realized {
            generation: GenerationNumber(word.generation()),
            revision: Revision(0),
            nonce: 0,
            enforced: super::shared::enforced_of(word),
            watched: super::shared::watched_of(word),
        })
    }
}

impl Other {
    fn open(of: PinDir, shared: &Shared) -> Result<Self, DatapathError> {
        let flows = find::FLOWS.map(|name| Ok((shared.maps.of(name).id, find::map(&of, name)?)));
        let flows: Vec<(u32, Option<Map>)> =
            flows.into_iter().collect::<Result<_, DatapathError>>()?;
        let is_ours = |(id, map): &(u32, Option<Map>)| map.as_ref().is_some_and(|it| it.id == *id);
        let word = match find::map(&of, MapName::Commit)? {
            Some(map) if map.value_size == size_of::<u64>() => {
                Some(Mapping::new(&map, size_of::<u64>())?)
            }
            _ => None,
        };
        Ok(Self {
            of,
            shares_flows: flows.iter().all(is_ours),
            word,
        })
    }

    fn word(&self) -> Option<CommitWord> {
        let word = self.word.as_ref()?.long(0);
        Some(CommitWord(word.load(std::sync::atomic::Ordering::Acquire)))
    }
}

/// The later one of two epochs, which wrap.
fn latest(one: u32, other: u32) -> u32 {
    let ahead = other.wrapping_sub(one) & EPOCH_MASK;
    if ahead <= EPOCH_MASK / 2 { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_epoch_is_found_across_the_wrap() {
        assert_eq!(latest(5, 6), 6);
        assert_eq!(latest(6, 5), 6);
        assert_eq!(latest(EPOCH_MASK, 0), 0);
        assert_eq!(latest(0, EPOCH_MASK), 0);
    }
}
