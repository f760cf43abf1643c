//! Who is behind an address: labels, reserved and allocated identities, ipcache.

mod labels;
mod number;

pub use labels::{Label, LabelSet};
pub use number::{Identity, IdentityIndex, IdentityNumber, Reserved};
