//! What lasts: the journal of events, snapshots and records, in sled.
//!
//! The only crate that names sled. It knows records and bytes, not policies.
//! Acknowledged means on the disk: [`Store::flush`] ends in fdatasync.
//!
//! Reading order: `store` (the API) with `journal`, `snapshots`, `retention`
//! (what is kept of the past) and `notes`; `records` (typed records), `envelope`
//! and `key` (bytes of a record), `schema` (versions), `backend` with `disk`
//! (sled) and `memory` (simulation); `compact` (space), `lock`, `beside` (what
//! must outlive the database).
#![forbid(unsafe_code)]

mod backend;
mod beside;
mod compact;
mod disk;
mod envelope;
mod journal;
mod key;
mod lock;
mod memory;
mod notes;
mod records;
mod retention;
mod schema;
mod snapshots;
mod store;

pub use envelope::{ENVELOPE_BYTES, EnvelopeError, RecordKind, decode, encode};
pub use journal::Replay;
pub use lock::is_in_use;
pub use memory::{DiskCall, DiskFate, MemoryDisk};
pub use records::{
    AuditFlag, AuditRecord, BootRecord, EndpointRecord, GenerationRecord, GenerationsRecord,
    StoreIdentity,
};
pub use retention::{Kept, Retention};
pub use schema::SCHEMA_VERSION;
pub use snapshots::{NewSnapshot, Snapshot};
pub use store::{Store, StoreError};
