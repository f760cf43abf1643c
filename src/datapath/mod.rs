//! The only room that knows aya, bpffs, netlink and maps.
//!
//! The rest of the agent sees the trait [`Datapath`]: the kernel and a fake
//! (for the simulation) stand behind it.

mod control;
pub mod devices;
#[doc(hidden)]
pub mod doors;
pub mod events;
pub mod fake;
mod generation;
pub mod kernel;
mod netlink;
pub mod netns;

pub use crate::identity::IpcacheEntry;
pub use crate::policy::FailsafeEntry;
pub use control::{ControlDoor, ControlEndpoint, ControlFlows, ControlMark};
pub use generation::{
    DatapathError, DatapathSettings, Generation, GenerationNumber, Realized, StageReport,
};

use crate::events::Revision;

/// What enforces verdicts. Single owner: the committer thread.
///
/// Call order: `stage` any number of times, then `commit` of the staged
/// generation. A failed `stage` or `commit` leaves the current one enforcing.
pub trait Datapath: Send {
    /// What the datapath enforces now; None before the first commit.
    fn realized(&self) -> Option<Realized>;

    /// Writes `generation` into the inactive slot and verifies it by reading
    /// back. Refuses as a whole what does not fit, with the numbers. Changes no
    /// verdict. `StageReport::writes` is 0 when the slot already held it.
    fn stage(&mut self, generation: &Generation) -> Result<StageReport, DatapathError>;

    /// Makes the staged generation current by one atomic store, then waits for
    /// packets in flight. Returns what is realized.
    fn commit(&mut self) -> Result<Realized, DatapathError>;

    /// Whether the current slot already holds exactly `generation`'s verdicts
    /// (then nothing needs to be staged: adopt it under the new revision).
    fn matches_current(&mut self, generation: &Generation) -> Result<bool, DatapathError>;

    /// Records that what is enforced is also right for `revision` (a bump).
    fn adopt(&mut self, revision: Revision) -> Result<Realized, DatapathError>;
}
