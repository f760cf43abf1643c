//! Who is behind an address: labels, reserved and allocated identities, ipcache.

mod allocator;
mod dense;
mod filter;
mod ipcache;
mod key;
mod labels;
mod number;
mod table;

pub use allocator::{AllocatorRecord, Full};
pub use dense::{DenseKey, DenseMap, Difference};
pub use filter::is_identity_label;
pub use ipcache::{Ipcache, IpcacheEntry, IpcacheSource, longest_match};
pub use key::{Allocated, IdentityKey, KeyRecord};
pub use labels::{Label, LabelSet};
pub use number::{IdentityIndex, IdentityNumber, Reserved};
pub use table::{CIDR_GROUP_KEY, Identity, IdentityTable, LiveIdentity, OfPrefix, ancestors};
