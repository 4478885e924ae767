//! Ranges of addresses, as links and settings write them: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

/// One address, or all that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// IPv4 as IPv6 has it, so that both are compared in one way.
    first: u128,
    /// Leading bits that count, of 128.
    bits: u32,
    shown: (IpAddr, Option<u32>),
}

/// Not an address, nor a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a range of them, as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")]
pub struct BadAddress;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .to_bits()
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

impl AddressRange {
    /// Whether an address is in it. An IPv4 address is the same whether it comes as such or mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        number(address) & mask(self.bits) == self.first
    }

    /// All addresses of IPv4.
    pub fn is_ipv4(&self) -> bool {
        Ipv6Addr::from_bits(self.first).to_ipv4_mapped().is_some() && self.bits >= 96
    }
}

impl FromStr for AddressRange {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse().map_err(|_| BadAddress)?))
            }
            Some(_) => return Err(BadAddress),
        };
        let address: IpAddr = address.parse().map_err(|_| BadAddress)?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let own = bits.unwrap_or(width);
        if own > width {
            return Err(BadAddress);
        }
        let bits = (128 - width) + own;
        Ok(Self {
            first: number(address) & mask(bits),
            bits,
            shown: (address, Some(own).filter(|own| *own < width)),
        })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown {
            (address, None) => write!(f, "{address}"),
            (address, Some(bits)) => write!(f, "{address}/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_the_addresses_that_begin_as_it_does() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3/8", "10.9.9.9", "9.255.255.255"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "10.0.0.1", "none"),
            ("192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"),
        ] {
            assert!(range(text).contains(inside.parse().unwrap()), "{text} {inside}");
            if let Ok(outside) = outside.parse() {
                assert!(!range(text).contains(outside), "{text} {outside}");
            }
            assert_eq!(range(text).to_string(), text);
        }
        assert!(range("127.0.0.0/8").is_ipv4() && !range("::1").is_ipv4());
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "10.0.0.0/+8",
            "10.0.0.0/99999999999",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
