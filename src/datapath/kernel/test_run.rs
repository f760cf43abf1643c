//! Packets in, verdicts out, without a device: BPF_PROG_TEST_RUN of the entry
//! programs against the tables that are in force. For tests and benchmarks.

use std::io;

use super::datapath::KernelDatapath;
use super::programs::ProgramName;
use super::sys;
use crate::policy::Direction;

/// One packet as a program sees it. The run happens on the loopback device of
/// the calling thread's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct TestPacket<'a> {
    pub direction: Direction,
    /// Ethernet frame. An all-zero destination is this host, as on loopback.
    pub frame: &'a [u8],
    /// Device by which a forwarded packet came in; 0 = made by this host.
    pub ingress_ifindex: u32,
    /// Mark of the socket that sends it.
    pub mark: u32,
    /// Runs; conntrack sees each of them.
    pub repeat: u32,
}

/// What the program said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestVerdict {
    /// Whether the packet goes on (`TCX_NEXT`); else it is dropped.
    pub passes: bool,
    /// Mean duration of one run.
    pub mean_ns: u32,
}

/// Offsets in `struct __sk_buff`, and how much of it is given: the fields behind are
/// zero.
const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const CONTEXT: usize = 64;

impl KernelDatapath {
    /// Runs the entry program of an Ethernet device on a packet.
    pub fn test_run(&self, packet: &TestPacket<'_>) -> io::Result<TestVerdict> {
        let name = match packet.direction {
            Direction::Ingress => ProgramName::FromNetdev,
            Direction::Egress => ProgramName::ToNetdev,
        };
        let mut context = [0; CONTEXT];
        context[MARK..MARK + 4].copy_from_slice(&packet.mark.to_ne_bytes());
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4]
            .copy_from_slice(&packet.ingress_ifindex.to_ne_bytes());
        let input = sys::TestInput {
            packet: packet.frame,
            context: &context,
            repeat: packet.repeat,
        };
        let (action, mean_ns) = sys::prog_test_run(self.shared.programs.of(name).fd(), &input)?;
        // TCX_NEXT is -1; the programs know no other way to pass.
        Ok(TestVerdict {
            passes: action == u32::MAX,
            mean_ns,
        })
    }
}
