//! Who is behind an address: labels, reserved and allocated identities, ipcache.

mod ipcache;
mod labels;
mod number;
mod table;

pub use ipcache::IpcacheEntry;
pub use labels::{Label, LabelSet};
pub use number::{IdentityIndex, IdentityNumber, Reserved};
pub use table::{Identity, IdentityTable};
