//! What the benchmark writes into the maps of these programs: arrays of words,
//! so that user space needs no type of its own. Shared by both sides.

/// One tuple that a run walks over. Words 0..4: the peer's address in network
/// byte order (IPv4 in the first); word 4: its port (or identifier), in network
/// byte order, in the low half.
pub(crate) type Tuple = [u32; 5];
/// Word of a tuple that holds the port.
pub(crate) const TUPLE_PORT: usize = 4;

/// What a run does with the tuples.
pub(crate) type Walk = [u32; 8];

/// Words of a [`Walk`].
pub(crate) mod walk {
    /// Tuples walked over so far.
    pub(crate) const DONE: usize = 0;
    /// Index of the first tuple.
    pub(crate) const BASE: usize = 1;
    /// Number of tuples (a power of two) - 1.
    pub(crate) const MASK: usize = 2;
    /// Where the address stands in the packet.
    pub(crate) const ADDRESS_AT: usize = 3;
    /// Where the port stands in the packet.
    pub(crate) const PORT_AT: usize = 4;
    /// Local port of the conntrack keys of the floors, in network byte order.
    pub(crate) const LOCAL_PORT: usize = 5;
}

/// Entries of the program array that the wrappers jump to.
pub(crate) mod calls {
    /// The entry program of ingress.
    pub(crate) const INGRESS: u32 = 0;
    /// The entry program of egress.
    pub(crate) const EGRESS: u32 = 1;
    /// The empty program: what the wrapper itself costs.
    pub(crate) const NOTHING: u32 = 2;
    /// Number of entries.
    pub(crate) const COUNT: u32 = 3;
}
