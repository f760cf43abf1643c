//! The tree of commands.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::node::NodeOptions;
use crate::config::{AgentOptions, DEFAULT_BPFFS, DEFAULT_SOCKET, DEFAULT_STATE_DIR};
use crate::lab::LabArgs;

/// Host firewall for Linux nodes: Cilium host policies enforced with eBPF
#[derive(Parser, Debug)]
#[command(name = "palisade", version, propagate_version = true)]
pub(super) struct Cli {
    /// Unix socket of the agent
    #[arg(long, global = true, env = "PALISADE_SOCKET", value_name = "FILE", default_value = DEFAULT_SOCKET, id = "socket")]
    pub(super) socket: String,

    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "table"
    )]
    pub(super) output: OutputForm,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// Form of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum OutputForm {
    Table,
    Json,
    Yaml,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Run the node agent
    Agent(Box<AgentOptions>),
    /// Show the firewall at work in network namespaces, on no real device
    Lab(LabArgs),
    /// Devices, sources, queues, generation: enforcing or not, and why
    Status(StatusOptions),
    /// Endpoints and their enforcement
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Addresses and their identities
    #[command(subcommand)]
    Ip(IpCommand),
    /// Follow drops, verdicts and the agent's own events
    Monitor(MonitorOptions),
    /// What the kernel holds
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Metrics of the agent
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// The last major events, those before a restart too
    History(HistoryOptions),
    /// Rebuild an old revision from the records of an agent that does not run
    Replay(ReplayOptions),
    /// Print the definitions for a Kubernetes cluster without Cilium
    Crds(CrdsOptions),
    /// Remove enforcement: every link, pin, map and program of Palisade
    Detach(DetachOptions),
}

#[derive(clap::Args, Debug)]
pub(super) struct HistoryOptions {
    /// Only the newest N
    #[arg(long, value_name = "N")]
    pub(super) last: Option<usize>,
}

#[derive(clap::Args, Debug)]
pub(super) struct CrdsOptions {
    /// Only Palisade's own, for a cluster where Cilium runs
    #[arg(long)]
    pub(super) own: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct ReplayOptions {
    /// Revision to rebuild
    #[arg(long, value_name = "REVISION")]
    pub(super) to: u64,
    /// Directory of the agent's records
    #[arg(long, env = "PALISADE_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(super) state_dir: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(super) struct StatusOptions {
    /// Compare what the agent believes with what the kernel holds
    #[arg(long)]
    pub(super) verify: bool,
    /// Exit 1 unless every source is in sync and the newest revision is enforced
    #[arg(long)]
    pub(super) ready: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum EndpointCommand {
    /// All endpoints
    List {
        /// Leave the header out
        #[arg(long)]
        no_headers: bool,
    },
    /// Everything about one endpoint
    Get { id: u16 },
    /// The last transitions of an endpoint
    Log { id: u16 },
    /// Compute and realize an endpoint's verdicts again
    Regenerate { id: u16 },
    /// Show or set options of an endpoint
    Config {
        id: u16,
        /// PolicyAuditMode=Enabled or PolicyAuditMode=Disabled
        #[arg(value_name = "OPTION=VALUE")]
        options: Vec<String>,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum PolicyCommand {
    /// Check manifests, offline: every error of every resource
    Validate {
        /// Files or directories
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        node: Box<NodeOptions>,
    },
    /// What would happen to a flow, and which rule decides
    Explain(Box<ExplainOptions>),
    /// Which packets' verdicts change between two sets of manifests, offline, or
    /// between two revisions of the agent
    Diff {
        /// File, directory or revision
        before: PathBuf,
        /// File, directory or revision
        after: PathBuf,
        #[command(flatten)]
        node: Box<NodeOptions>,
    },
    /// The policies in force, or those of an earlier revision
    Get {
        /// As they were at this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
        /// Name of one policy
        name: Option<String>,
    },
    /// Hand manifests to the agent
    Import {
        /// Files or directories
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// Take back a resource that was imported
    Delete {
        /// Kind/name, or the name of a policy
        key: String,
    },
    /// Wait until every endpoint enforces a revision
    Wait {
        revision: u64,
        /// Seconds to wait
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Peer selectors in use and what they select
    Selectors,
}

/// A flow, and where the policies come from.
#[derive(clap::Args, Debug)]
pub(super) struct ExplainOptions {
    /// Side of the host: ingress or egress
    #[arg(long, value_name = "ingress|egress")]
    pub(super) direction: String,
    /// Address of the peer
    #[arg(long, value_name = "IP")]
    pub(super) peer: std::net::IpAddr,
    /// tcp, udp, sctp, icmp, icmpv6 or a protocol number
    #[arg(long, value_name = "PROTOCOL")]
    pub(super) proto: String,
    /// Destination port
    #[arg(long, value_name = "N")]
    pub(super) port: Option<u16>,
    /// ICMP type
    #[arg(long = "type", value_name = "N")]
    pub(super) icmp_type: Option<u8>,
    /// Say what every rule of the direction misses
    #[arg(long)]
    pub(super) why_not: bool,
    /// Explain offline, with the manifests of these files and directories
    #[arg(long, value_name = "DIR|FILE", num_args = 1..)]
    pub(super) manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) node: NodeOptions,
}

#[derive(Subcommand, Debug)]
pub(super) enum IdentityCommand {
    /// All identities of this node
    List,
    /// One identity
    Get { id: u32 },
}

#[derive(Subcommand, Debug)]
pub(super) enum IpCommand {
    /// All prefixes
    List,
    /// The prefix that names an address
    Get {
        /// Address or prefix
        ip: String,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct MonitorOptions {
    /// Kinds of events: drop, policy-verdict, trace (none are sent yet), agent
    #[arg(
        short = 't',
        long = "type",
        value_delimiter = ',',
        value_name = "KIND,..."
    )]
    pub(super) kinds: Vec<String>,
    /// Only packets from this endpoint
    #[arg(long, value_name = "ID")]
    pub(super) from: Option<u16>,
    /// Only packets to this endpoint
    #[arg(long, value_name = "ID")]
    pub(super) to: Option<u16>,
    /// Only packets from or to this endpoint
    #[arg(long, value_name = "ID")]
    pub(super) related_to: Option<u16>,
}

#[derive(Subcommand, Debug)]
pub(super) enum BpfCommand {
    /// Verdicts of an endpoint
    #[command(subcommand)]
    Policy(ListCommand),
    /// Conntrack entries
    #[command(subcommand)]
    Ct(ListCommand),
    /// Prefixes and their identities
    #[command(subcommand)]
    Ipcache(ListCommand),
    /// Counters by reason and direction
    #[command(subcommand)]
    Metrics(ListCommand),
    /// Rules and their hits
    #[command(subcommand)]
    Rules(ListCommand),
}

#[derive(Clone, Copy, Subcommand, Debug)]
pub(super) enum ListCommand {
    /// List them
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum MetricsCommand {
    /// All metrics, as Prometheus reads them
    List {
        /// Only names that contain this text
        #[arg(short = 'p', long = "match-pattern", value_name = "TEXT")]
        pattern: Option<String>,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct DetachOptions {
    /// Directory of the pins
    #[arg(long, env = "PALISADE_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(super) bpffs: PathBuf,
    /// Directory of the agent's records, to see whether one runs
    #[arg(long, env = "PALISADE_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(super) state_dir: PathBuf,
}
