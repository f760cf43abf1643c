//! What the feed of one kind tells the intake.

use crate::events::ResourceKind;

use super::needs::Order;
use super::trim::Trimmed;

/// One thing that was heard about a kind.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Heard {
    pub(super) kind: ResourceKind,
    pub(super) what: What,
}

/// What was heard.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum What {
    /// A list begins; one that had begun before came to no end.
    Begins,
    /// An object of the list, or a new version of one.
    Object(Trimmed),
    /// The server said that it is gone.
    Gone(Trimmed),
    /// The list is whole, as it was ordered: what it does not hold is gone.
    Whole(Order),
    /// The watch runs.
    Follows,
    /// There is nothing to watch, for this reason; what was held is gone.
    Absent(&'static str),
    /// Nothing of it was ordered; what was held is gone.
    Unneeded,
    /// Something failed; it is tried again. What is held stays.
    Trouble(String),
    /// Time went by.
    Tick,
}
