//! The plain reading of rules and packet: who is the peer, and does any item of
//! any rule speak of it?
//!
//! Slow and obvious. It answers `palisade policy explain`, and the tests hold
//! the tables against it; so it shares no code with them beyond the rules and
//! the objects: no identity numbers, no ipcache, no selections.
//! In reading order: book (what the objects say), labels, who (whose address),
//! peers, ports, judge, misses (why a rule did not match).

mod book;
mod judge;
mod labels;
mod misses;
mod peers;
mod ports;
#[cfg(test)]
pub(in crate::policy) mod tests;
mod who;
mod words;

pub use book::Book;
pub use judge::{Judgement, Listening, Outcome, judge};
pub use misses::{Miss, Term, misses};
pub use who::{Side, Who};
