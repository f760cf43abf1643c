//! Frames near real ones: captures with something changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade::policy::Direction;

use crate::frames::{ACK, FIN, RST, SYN};
use crate::random::Random;

/// A frame of a real socket.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) direction: Direction,
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
}

/// All captures; lines of direction, name and octets.
pub(crate) fn captures() -> Vec<Capture> {
    let text = include_str!("../captures/wire.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split('\t');
            let mut field = || fields.next().expect("three fields");
            let direction = match field() {
                "in" => Direction::Ingress,
                _ => Direction::Egress,
            };
            let name = field().to_owned();
            let octet = |pair: &[u8]| {
                let digits = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(digits, 16).expect("a hexadecimal octet")
            };
            Capture {
                direction,
                name,
                frame: field().as_bytes().chunks(2).map(octet).collect(),
            }
        })
        .collect()
}

const EDGES: [u8; 12] = [0, 1, 2, 4, 5, 0x0f, 0x10, 0x40, 0x7f, 0x80, 0xfe, 0xff];
const EDGES16: [u16; 12] = [0, 1, 7, 8, 20, 40, 60, 1_500, 7_001, 0x1fff, 0x7fff, 0xffff];
/// Longest frame that a test run takes with ease.
const FRAME_MAX: usize = 1_600;

/// A frame under change, and what was done to it.
pub(crate) struct Draft<'a> {
    pub(crate) frame: Vec<u8>,
    pub(crate) changes: Vec<&'static str>,
    random: &'a mut Random,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(frame: Vec<u8>, random: &'a mut Random) -> Self {
        Self {
            frame,
            changes: Vec::new(),
            random,
        }
    }

    /// Whatever the seed says.
    pub(crate) fn any_of<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        self.random.pick(of)
    }

    /// Changes something; `others` are frames to quote.
    pub(crate) fn change(&mut self, others: &[Capture]) {
        let change = match self.random.below(16) {
            0 => self.any_octet(),
            1 => self.edge_octet(),
            2 => self.edge_word(),
            3 => self.cut(),
            4 => self.extend(),
            5 => self.tag(),
            6 => self.station(),
            7 => self.address(),
            8 => self.fragment(),
            9 => self.wrap_v6(),
            10 => self.options(),
            11 => self.quote(others),
            12 => self.protocol(),
            13 => self.transport(),
            14 => self.length(),
            _ => self.tunnel(),
        };
        self.frame.truncate(FRAME_MAX);
        self.changes.push(change);
    }

    /// Where the IP header begins, and its version; none where the frame is too
    /// short or no IP.
    fn ip(&self) -> Option<(usize, u8)> {
        let mut at = 12;
        loop {
            let ethertype = self.frame.get(at..at + 2)?;
            match ethertype {
                [0x81, 0] | [0x88, 0xa8] => at += 4,
                [8, 0] if self.frame.len() >= at + 22 => return Some((at + 2, 4)),
                [0x86, 0xdd] if self.frame.len() >= at + 42 => return Some((at + 2, 6)),
                _ => return None,
            }
        }
    }

    /// Some place of the headers, mostly.
    fn place(&mut self, behind: usize) -> usize {
        let length = self.frame.len() - behind;
        let near = if self.random.chance(85) { 80 } else { length };
        self.random.below(near.min(length).max(1))
    }

    fn any_octet(&mut self) -> &'static str {
        let at = self.place(0);
        self.frame[at] ^= 1 << self.random.below(8);
        "a bit"
    }

    fn edge_octet(&mut self) -> &'static str {
        let at = self.place(0);
        self.frame[at] = *self.random.pick(&EDGES);
        "an octet"
    }

    fn edge_word(&mut self) -> &'static str {
        let at = self.place(1);
        let word = self.random.pick(&EDGES16).to_be_bytes();
        self.frame[at..at + 2].copy_from_slice(&word);
        "a word"
    }

    fn cut(&mut self) -> &'static str {
        let at = self.place(0);
        self.frame.truncate(at.max(14));
        "cut"
    }

    fn extend(&mut self) -> &'static str {
        for _ in 0..self.random.below(64) {
            let octet = *self.random.pick(&EDGES);
            self.frame.push(octet);
        }
        "longer"
    }

    fn tag(&mut self) -> &'static str {
        let kind = *self.random.pick(&[[0x81, 0], [0x88, 0xa8]]);
        let id = *self.random.pick(&[0_u16, 0, 5, 5, 5, 6, 0xe005, 0xfff]);
        let id = id.to_be_bytes();
        self.frame.splice(12..12, [kind[0], kind[1], id[0], id[1]]);
        "a tag"
    }

    fn station(&mut self) -> &'static str {
        let station =
            *self
                .random
                .pick(&[[0; 6], [0xff; 6], [2, 0, 0, 0, 0, 9], [1, 0, 0x5e, 0, 0, 1]]);
        self.frame[..6].copy_from_slice(&station);
        "another station"
    }

    fn address(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let source = self.random.chance(50);
        if version == 4 {
            let at = at + if source { 12 } else { 16 };
            let address: Ipv4Addr = self
                .random
                .pick(&["10.0.0.1", "10.0.9.9", "10.0.9.8", "10.7.7.7", "224.0.0.1"])
                .parse()
                .expect("an address");
            self.frame[at..at + 4].copy_from_slice(&address.octets());
        } else {
            let at = at + if source { 8 } else { 24 };
            let address: Ipv6Addr = self
                .random
                .pick(&["fd00::1", "fd00:9::9", "fd00:9::8", "fe80::5", "ff02::1"])
                .parse()
                .expect("an address");
            self.frame[at..at + 16].copy_from_slice(&address.octets());
        }
        "an address"
    }

    /// Few identifications, so that pieces meet.
    fn fragment(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let units = *self.random.pick(&[0_u16, 0, 0, 1, 2, 3, 5, 185, 0x1fff]);
        let more = self.random.chance(60);
        let id = *self.random.pick(&[1_u8, 2, 3]);
        if version == 4 {
            let word = (units | if more { 0x2000 } else { 0 }).to_be_bytes();
            self.frame[at + 4..at + 8].copy_from_slice(&[0, id, word[0], word[1]]);
        } else {
            let word = (units << 3 | u16::from(more)).to_be_bytes();
            self.insert_v6(at, 44, &[0, 0, word[0], word[1], 0, 0, 0, id]);
        }
        "a fragment"
    }

    /// Puts an extension header behind the fixed one, or behind the first few.
    fn insert_v6(&mut self, at: usize, proto: u8, header: &[u8]) {
        let mut field = at + 6;
        let mut place = at + 40;
        for _ in 0..self.random.below(4) {
            let walked = matches!(self.frame.get(field), Some(0 | 43 | 60));
            let Some(length) = self.frame.get(place + 1).filter(|_| walked) else {
                break;
            };
            field = place;
            place += (usize::from(*length) + 1) * 8;
        }
        if place > self.frame.len() {
            return;
        }
        let mut header = header.to_vec();
        header[0] = std::mem::replace(&mut self.frame[field], proto);
        let payload = u16::from_be_bytes([self.frame[at + 4], self.frame[at + 5]]);
        let longer = payload.wrapping_add(u16::try_from(header.len()).expect("short"));
        self.frame[at + 4..at + 6].copy_from_slice(&longer.to_be_bytes());
        self.frame.splice(place..place, header);
    }

    fn wrap_v6(&mut self) -> &'static str {
        let Some((at, 6)) = self.ip() else {
            return "nothing";
        };
        for _ in 0..=self.random.below(5) {
            match *self.random.pick(&[0_u8, 43, 60, 51]) {
                51 => self.insert_v6(at, 51, &[0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
                other => self.insert_v6(at, other, &[0, 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        "extension headers"
    }

    fn options(&mut self) -> &'static str {
        let Some((at, 4)) = self.ip() else {
            return "nothing";
        };
        let words = self.random.below(10) + 1;
        let ihl = usize::from(self.frame[at] & 15) + words;
        if ihl > 15 || self.frame.len() < at + 20 {
            return "nothing";
        }
        self.frame[at] = 0x40 | u8::try_from(ihl).expect("four bits");
        let total = u16::from_be_bytes([self.frame[at + 2], self.frame[at + 3]]);
        let longer = total.wrapping_add(u16::try_from(words * 4).expect("short"));
        self.frame[at + 2..at + 4].copy_from_slice(&longer.to_be_bytes());
        self.frame.splice(at + 20..at + 20, vec![1; words * 4]);
        "options"
    }

    /// An ICMP error about another capture, sent to whoever sent that.
    fn quote(&mut self, others: &[Capture]) -> &'static str {
        let other = self.random.pick(others);
        let Some((at, 4)) = Draft::new(other.frame.clone(), self.random).ip() else {
            return "nothing";
        };
        let quoted = &other.frame[at..];
        let quoted = &quoted[..quoted.len().min(20 + self.random.below(60))];
        let mut message = vec![0; 14];
        message[12] = 8;
        let length = u16::try_from(28 + quoted.len())
            .expect("short")
            .to_be_bytes();
        message.extend([0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 1, 0, 0]);
        message.extend([172, 16, 0, 1]);
        message.extend(&quoted[12..16]);
        message.extend([*self.random.pick(&[3, 3, 11, 12, 5, 4]), 0]);
        let code = message.len() - 1;
        message[code] = *self.random.pick(&[0, 1, 3, 4]);
        message.extend([0; 6]);
        message.extend(quoted);
        self.frame = message;
        "an error about another"
    }

    fn protocol(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let protos = [
            0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 89, 112, 132, 135, 255,
        ];
        let field = if version == 4 { at + 9 } else { at + 6 };
        self.frame[field] = *self.random.pick(&protos);
        "a protocol"
    }

    /// Ports, flags, types at the place where they usually stand.
    fn transport(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let at = at + if version == 4 { 20 } else { 40 };
        if self.frame.len() < at + 14 {
            return "nothing";
        }
        match self.random.below(5) {
            0 => {
                let port = self.random.pick(&[22_u16, 53, 7_001, 7_002, 0, 65_535]);
                let port = port.to_be_bytes();
                self.frame[at + 2..at + 4].copy_from_slice(&port);
            }
            1 => {
                let port = self.random.pick(&[22_u16, 53, 7_001, 40_000]).to_be_bytes();
                self.frame[at..at + 2].copy_from_slice(&port);
            }
            2 => {
                let flags = [SYN, ACK, SYN | ACK, RST, FIN | ACK, SYN | FIN, 0, 0xff];
                self.frame[at + 13] = *self.random.pick(&flags);
            }
            3 => self.frame[at + 12] = *self.random.pick(&[0x00, 0x40, 0x50, 0xf0]),
            _ => {
                let any = u8::try_from(self.random.below(256)).expect("an octet");
                let types = [0, 3, 8, 11, 128, 129, 133, 135, 137, any];
                self.frame[at] = *self.random.pick(&types);
            }
        }
        "a transport field"
    }

    fn length(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let field = if version == 4 { at + 2 } else { at + 4 };
        let near = u16::try_from(self.random.below(80)).expect("small");
        let length = *self.random.pick(&[0, near, near, 0xffff]);
        self.frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
        "a length"
    }

    /// The packet inside another one of the same family.
    fn tunnel(&mut self) -> &'static str {
        let Some((at, version)) = self.ip() else {
            return "nothing";
        };
        let inner = self.frame[at..].to_vec();
        let mut outer = if version == 4 {
            let mut outer = inner[..20].to_vec();
            outer[0] = 0x45;
            let total = u16::try_from(20 + inner.len()).unwrap_or(u16::MAX);
            outer[2..4].copy_from_slice(&total.to_be_bytes());
            outer[6..8].fill(0);
            outer[9] = *self.random.pick(&[4, 47]);
            outer
        } else {
            let mut outer = inner[..40].to_vec();
            let payload = u16::try_from(inner.len()).unwrap_or(u16::MAX);
            outer[4..6].copy_from_slice(&payload.to_be_bytes());
            outer[6] = *self.random.pick(&[41, 47]);
            outer
        };
        outer.extend(inner);
        self.frame.truncate(at);
        self.frame.extend(outer);
        "a tunnel"
    }
}

/// Source and destination addresses of the captures' two ends.
pub(crate) fn ends_are_known(captures: &[Capture], own: [IpAddr; 2]) -> bool {
    let holds = |frame: &[u8], address: IpAddr| {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        frame.windows(octets.len()).any(|part| part == octets)
    };
    own.into_iter()
        .all(|own| captures.iter().any(|it| holds(&it.frame, own)))
}
