//! What the node itself says: its addresses and its labels.
//!
//! Owner: thread `local`.
