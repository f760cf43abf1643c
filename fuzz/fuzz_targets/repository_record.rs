//! Fuzz target `repository_record`: what it checks stands in targets.rs.
#![no_main]

#[expect(dead_code, reason = "each target runs one door of all")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::repository_record(bytes));
