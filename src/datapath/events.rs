//! Reads the ring buffer of decisions. Owner: the event reader's thread.
//!
//! The programs submit records without a wake-up (it costs five times as much
//! as the record), so the reader polls, every `limits::KERNEL_EVENTS_POLL`.

use aya::maps::{Map, MapData, RingBuf};
use palisade_abi::event::Event;

use super::DatapathError;
use super::kernel::value_from_bytes;

/// The consumer's side of the ring buffer. One per datapath: two readers would
/// share the events between them.
pub struct EventReader {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventReader({} malformed)", self.malformed)
    }
}

impl EventReader {
    pub(crate) fn new(map: MapData) -> Result<Self, DatapathError> {
        let ring = RingBuf::try_from(Map::RingBuf(map))
            .map_err(|error| DatapathError::Other(format!("map pal_events: {error}")))?;
        Ok(Self { ring, malformed: 0 })
    }

    /// Appends the events that wait, at most `max`, and returns their number.
    pub fn read(&mut self, into: &mut Vec<Event>, max: usize) -> usize {
        let mut count = 0;
        while count < max
            && let Some(record) = self.ring.next()
        {
            match value_from_bytes(&record) {
                Some(event) => {
                    into.push(event);
                    count += 1;
                }
                None => self.malformed += 1,
            }
        }
        count
    }

    /// Records of another size than an event: 0, or a bug of ours.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}
