//! The agent's configuration: one declaration for flag, environment variable,
//! key of the config file, help and default.
//!
//! Precedence: flag, then environment, then file, then default. Everything that
//! is wrong is reported at once, with the place the value came from.

mod etcd;
mod failsafe;
mod file;
mod mark;
mod options;
mod policy;
mod resolve;

pub use etcd::EtcdAccess;
pub use failsafe::{ParseFailsafeError, format_failsafe, parse_failsafe};
pub use file::FileOptions;
pub use options::AgentOptions;
pub use policy::{ParseNamedPortError, PolicyText, parse_named_port};
pub use resolve::{
    Config, ConfigError, ConfigErrors, ConntrackLimits, KubernetesAccess, LogFormat, Origins,
};

/// Where the agent listens for its clients.
pub const DEFAULT_SOCKET: &str = "/run/palisade/palisade.sock";
/// Where the agent keeps its pins.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/palisade";
/// Where the agent keeps its journal and records.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/palisade";

#[cfg(test)]
mod tests;
