//! What lasts: the journal of events, snapshots and records, in sled.
//!
//! The only crate that names sled. It knows records and bytes, not policies.
//! Acknowledged means on the disk: [`Store::flush`] ends in fdatasync.
//!
//! Reading order: `store` (the API), `records` (typed records), `envelope`
//! (bytes of a record), `schema` (versions), `backend` with `disk` (sled) and
//! `memory` (simulation); `compact` (space); `beside`
//! (what must outlive the database).
#![forbid(unsafe_code)]

mod backend;
mod beside;
mod compact;
mod disk;
mod envelope;
mod memory;
mod records;
mod schema;
mod store;

pub use envelope::{ENVELOPE_BYTES, EnvelopeError, RecordKind, decode, encode};
pub use memory::MemoryDisk;
pub use records::{
    AuditFlag, AuditRecord, BootRecord, EndpointRecord, GenerationRecord, GenerationsRecord,
    StoreIdentity,
};
pub use schema::SCHEMA_VERSION;
pub use store::{Replay, Snapshot, Store, StoreError, is_in_use};
