//! Reads manifest files: bytes to objects, each with its place.
//!
//! Files come from anywhere: never panics, never recurses or grows without
//! bound (limits.rs), and one broken document does not hide the others.

mod types;

mod cost;
mod expand;
mod header;
mod json;
mod positions;
mod reader;
mod reasons;
mod split;
#[cfg(test)]
mod tests;
mod yaml;

pub use positions::Positions;
pub use reader::read;
pub use types::{Document, DocumentError, FileReading, Skipped};
