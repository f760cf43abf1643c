//! The kernel's clock as the conntrack entries hold it: jiffies.

use super::maps::kernel;
use super::programs::{ProgramName, Programs};
use super::settings::ticks_per_second;
use super::sys;
use crate::datapath::DatapathError;

/// Bytes of a test run's packet: more than an Ethernet header.
const PACKET_BYTES: usize = 64;

/// Jiffies now, as `bpf_jiffies64` counts them. The clock program gives the low
/// half; the high half follows from the time since boot, since the kernel
/// begins to count at 2^32 minus five minutes.
pub(crate) fn now(programs: &Programs) -> Result<u64, DatapathError> {
    let input = sys::TestInput {
        packet: &[0; PACKET_BYTES],
        context: &[],
        repeat: 1,
    };
    let (low, _) = sys::prog_test_run(programs.of(ProgramName::Clock).fd(), &input)
        .map_err(kernel("test run of pal_clock"))?;
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let uptime_s = uptime.tv_sec.unsigned_abs();
    Ok(complete(low, uptime_s, u64::from(ticks_per_second())))
}

fn complete(low: u32, uptime_s: u64, ticks_per_second: u64) -> u64 {
    let estimate = (1u64 << 32) - 300 * ticks_per_second + uptime_s * ticks_per_second;
    let base = (estimate & !u64::from(u32::MAX)) | u64::from(low);
    [base.wrapping_sub(1 << 32), base, base + (1 << 32)]
        .into_iter()
        .min_by_key(|candidate| candidate.abs_diff(estimate))
        .unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_half_is_right_before_at_and_after_the_wrap() {
        let start = (1u64 << 32) - 300 * 250;
        for ticks in [0u64, 10, 299 * 250, 300 * 250, 301 * 250, 40_000_000_000] {
            let jiffies = start + ticks;
            let low = u32::try_from(jiffies & 0xffff_ffff).expect("masked");
            assert_eq!(
                complete(low, ticks / 250, 250),
                jiffies,
                "{ticks} ticks after boot"
            );
            // The clock that counts the uptime may be a little off.
            assert_eq!(complete(low, ticks / 250 + 100, 250), jiffies);
        }
    }
}
