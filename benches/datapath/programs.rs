//! The programs and maps themselves: instructions, load times, memory.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use aya::maps::MapData;
use aya::programs::{ProgramInfo, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use palisade::datapath::kernel::{Inspector, load_programs};

use crate::harness::SHIPPED;
use crate::sandbox::on_all_cpus;

#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) verified_insns: u32,
    pub(crate) instructions: u32,
    pub(crate) jited_bytes: u32,
    /// Best of the loads.
    pub(crate) load_ms: f64,
}

/// What the verifier and the JIT take.
#[derive(Debug)]
pub(crate) struct Loads {
    pub(crate) programs: Vec<Loaded>,
    /// One after the other.
    pub(crate) sum_ms: f64,
    /// As the agent loads them: side by side.
    pub(crate) all_ms: f64,
}

/// Loads the shipped object against maps of its own, `times` times, one program
/// after the other and as the agent does.
pub(crate) fn load(inspector: &Inspector, times: usize) -> Loads {
    let mut loads = Loads {
        programs: Vec::new(),
        sum_ms: f64::INFINITY,
        all_ms: f64::INFINITY,
    };
    for _ in 0..times {
        let mut object = object();
        let mut sum = 0.0;
        for status in inspector.programs() {
            let program = object.program_mut(status.name).expect("a program");
            let program: &mut SchedClassifier = program.try_into().expect("a classifier");
            let started = Instant::now();
            program.load().expect("the verifier takes it");
            let load_ms = started.elapsed().as_secs_f64() * 1e3;
            sum += load_ms;
            let known = loads.programs.iter_mut();
            match known.into_iter().find(|known| known.name == status.name) {
                Some(known) => known.load_ms = known.load_ms.min(load_ms),
                None => {
                    let info = program.info().expect("info");
                    loads.programs.push(loaded(&info, status.name, load_ms));
                }
            }
        }
        loads.sum_ms = loads.sum_ms.min(sum);
        let mut object = self::object();
        let names: Vec<&str> = inspector
            .programs()
            .iter()
            .rev()
            .map(|it| it.name)
            .collect();
        let all_ms = on_all_cpus(|| {
            let started = Instant::now();
            load_programs(&mut object, &names).expect("the verifier takes all");
            started.elapsed().as_secs_f64() * 1e3
        });
        loads.all_ms = loads.all_ms.min(all_ms);
    }
    loads
}

fn object() -> Ebpf {
    let mut loader = EbpfLoader::new();
    for name in ["pal_ct4", "pal_ct6"] {
        loader.map_max_entries(name, 1_024);
    }
    loader.load(SHIPPED).expect("the shipped object")
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
