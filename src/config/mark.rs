//! The grammar of `--control-mark`: `VALUE/MASK`, as ip and nft write marks.

use palisade_abi::control::Mark;

use crate::datapath::ControlMark;

/// Parses a mark; without a mask it is the whole mark of a packet.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parse_mark(text: &str) -> Result<ControlMark, &'static str> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(text)?, u32::MAX),
    };
    if value == 0 {
        // A packet that nobody marked would carry it.
        return Err("0 is what packets without a mark have");
    }
    if value & !mask != 0 {
        return Err("the value has bits that the mask has not");
    }
    Ok(ControlMark(Mark { value, mask }))
}

fn number(text: &str) -> Result<u32, &'static str> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected VALUE/MASK, for instance 0x50/0x7f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_value_and_a_mask() {
        let parsed = |text| parse_mark(text).map(|mark| (mark.0.value, mark.0.mask));
        assert_eq!(parsed("0x50/0x7f"), Ok((0x50, 0x7f)));
        assert_eq!(parsed("80/127"), Ok((0x50, 0x7f)));
        assert_eq!(parsed("0x1000"), Ok((0x1000, u32::MAX)));
        for wrong in ["", "0", "0/0xff", "0x80/0x7f", "x/y", "1/", "0x1ffffffff"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_collides_with_nobody() {
        let default = ControlMark::DEFAULT;
        assert_eq!(parse_mark(&default.to_string()), Ok(default));
        // Cilium, kube-proxy, Calico, Tailscale, Weave, the AWS CNI, portmap.
        let taken = [
            0x0f00,
            0xc000,
            0xffff_0000,
            0x00ff_0000,
            0x0006_0000,
            0x80,
            0x2000,
        ];
        assert!(taken.iter().all(|bits| default.0.mask & bits == 0));
    }
}
