//! What lasts: the journal of events, snapshots and records, in sled.
//!
//! The only crate that names sled. It knows records and bytes, not policies.
//! Acknowledged means on the disk: [`Store::flush`] ends in fdatasync.
//!
//! Reading order: `store` (the API) with `journal`, `snapshots`, `retention`
//! (what is kept of the past) and `notes`; `records` (typed records), `envelope`
//! and `key` (bytes of a record), `schema` (versions), `backend` with `disk`
//! (sled) and `memory` (simulation); `room` (space reserved ahead), `mend` with
//! `behind` (a medium that fails and comes back), `scratch` (one that cannot be
//! written), `compact` (space), `lock`, `beside` and `imports`
//! (what must outlive the database).
#![forbid(unsafe_code)]

mod backend;
mod behind;
mod beside;
mod compact;
mod disk;
mod envelope;
mod imports;
mod journal;
mod key;
mod lock;
mod memory;
mod mend;
mod notes;
mod records;
mod retention;
mod room;
mod schema;
mod scratch;
mod snapshots;
mod store;

pub use envelope::{ENVELOPE_BYTES, EnvelopeError, RecordKind, decode, encode};
pub use imports::Copies;
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
