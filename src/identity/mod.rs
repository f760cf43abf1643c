//! Who is behind an address: labels, reserved and allocated identities, ipcache.

mod allocator;
mod ipcache;
mod labels;
mod number;
mod table;

pub use allocator::{Allocated, AllocatorRecord, IdentityAllocator, IdentityKey};
pub use ipcache::{Ipcache, IpcacheClaim, IpcacheEntry, IpcacheSource, longest_match};
pub use labels::{Label, LabelSet};
pub use number::{IdentityIndex, IdentityNumber, Reserved};
pub use table::{Identity, IdentityKind, IdentityTable, LiveIdentity};
