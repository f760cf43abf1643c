//! The programs and maps themselves: instructions, load times, memory.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use aya::EbpfLoader;
use aya::maps::MapData;
use aya::programs::{ProgramInfo, SchedClassifier};
use palisade::datapath::kernel::Inspector;

use crate::harness::SHIPPED;

#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) verified_insns: u32,
    pub(crate) instructions: u32,
    pub(crate) jited_bytes: u32,
    /// Best of the loads.
    pub(crate) load_ms: f64,
}

/// Loads the shipped object against maps of its own, `times` times: what the
/// verifier and the JIT take for each program, and for all in one go.
pub(crate) fn load(inspector: &Inspector, times: usize) -> (Vec<Loaded>, f64) {
    let mut programs: Vec<Loaded> = Vec::new();
    let mut all_ms = f64::INFINITY;
    for _ in 0..times {
        let mut loader = EbpfLoader::new();
        for name in ["pal_ct4", "pal_ct6"] {
            loader.map_max_entries(name, 1_024);
        }
        let mut object = loader.load(SHIPPED).expect("the shipped object");
        let mut sum = 0.0;
        for status in inspector.programs() {
            let program = object.program_mut(status.name).expect("a program");
            let program: &mut SchedClassifier = program.try_into().expect("a classifier");
            let started = Instant::now();
            program.load().expect("the verifier takes it");
            let load_ms = started.elapsed().as_secs_f64() * 1e3;
            sum += load_ms;
            match programs.iter_mut().find(|known| known.name == status.name) {
                Some(known) => known.load_ms = known.load_ms.min(load_ms),
                None => programs.push(loaded(&program.info().expect("info"), status.name, load_ms)),
            }
        }
        all_ms = all_ms.min(sum);
    }
    (programs, all_ms)
}

fn loaded(info: &ProgramInfo, name: &'static str, load_ms: f64) -> Loaded {
    let translated = info.size_translated().unwrap_or(0);
    Loaded {
        name,
        verified_insns: info.verified_instruction_count().unwrap_or(0),
        instructions: translated / 8,
        jited_bytes: info.size_jitted(),
        load_ms,
    }
}

/// Memory of each pinned map, as the kernel counts it.
pub(crate) fn memory(inspector: &Inspector) -> Vec<(&'static str, u64)> {
    let maps = inspector.maps();
    maps.iter()
        .map(|map| {
            let data = MapData::from_id(map.id).expect("a map");
            let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
            let text = std::fs::read_to_string(path).expect("fdinfo");
            let bytes = text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == "memlock").then(|| value.trim().parse::<u64>().ok())?
            });
            (map.name, bytes.expect("the kernel counts it"))
        })
        .collect()
}
