//! Fuzz target `etcd`: what it checks stands in targets.rs.
#![no_main]

#[expect(dead_code, reason = "each target runs one door of all")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::etcd(bytes));
