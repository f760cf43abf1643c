//! What feed and publisher tell the intake.

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// A list begins; one that had begun before came to no end.
    Begins,
    /// A key of the list, or a new value of one.
    Entry(Entry),
    /// A key is gone.
    Gone(String),
    /// The list is whole: what it does not hold is gone.
    Whole,
    /// The watch runs.
    Follows,
    /// Reading failed; it is tried again. What is held stays.
    Trouble(String),
    /// How it goes with what this node publishes: None: well.
    Published(Option<String>),
    /// Time went by.
    Tick,
}
