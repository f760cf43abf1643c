//! What an audit compares.

/// What is compared, part by part: the kinds of drift.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The commit word: slot, enforced directions, generation.
    CommitWord,
    /// What user space noted about the slot.
    SlotRecord,
    /// The tail-call entries of the slot.
    ProgramArray,
    Settings,
    Vlans,
    Failsafe,
    /// The mark of the agent's own traffic.
    ControlMark,
    /// Where the agent's own traffic may lead.
    ControlEndpoints,
    /// Rows of the verdict tables, by identity.
    Rows,
    /// Blocks of the verdict tables.
    Blocks,
    IpcacheV4,
    IpcacheV6,
    /// The file system of the pins.
    BpfFileSystem,
    Pin,
    /// Our program is on each device that it was put on.
    Attachment,
    /// Our program runs first on ingress, last on egress.
    Order,
}

impl Part {
    pub const ALL: [Self; 16] = [
        Self::CommitWord,
        Self::SlotRecord,
        Self::ProgramArray,
        Self::Settings,
        Self::Vlans,
        Self::Failsafe,
        Self::ControlMark,
        Self::ControlEndpoints,
        Self::Rows,
        Self::Blocks,
        Self::IpcacheV4,
        Self::IpcacheV6,
        Self::BpfFileSystem,
        Self::Pin,
        Self::Attachment,
        Self::Order,
    ];

    /// Label value in metrics, name in `status --verify`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommitWord => "commit-word",
            Self::SlotRecord => "slot-record",
            Self::ProgramArray => "program-array",
            Self::Settings => "settings",
            Self::Vlans => "vlans",
            Self::Failsafe => "failsafe",
            Self::ControlMark => "control-mark",
            Self::ControlEndpoints => "control-endpoints",
            Self::Rows => "rows",
            Self::Blocks => "blocks",
            Self::IpcacheV4 => "ipcache-ipv4",
            Self::IpcacheV6 => "ipcache-ipv6",
            Self::BpfFileSystem => "bpf-file-system",
            Self::Pin => "pin",
            Self::Attachment => "attachment",
            Self::Order => "order",
        }
    }
}
