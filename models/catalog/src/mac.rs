//! MAC addresses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A 48-bit MAC address; displayed in lower case with colons, as sysfs shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether the locally administered bit is set (second hex digit 2, 3, 6, 7, a, b, e, f).
    #[must_use]
    pub fn is_locally_administered(self) -> bool {
        self.0[0] & 0x02 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not six pairs of hex digits separated by colons or dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a MAC address: six pairs of hex digits with colons or dashes expected",
            self.0
        )
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let error = || ParseMacError(text.chars().take(40).collect());
        let mut mac = [0u8; 6];
        let mut parts = text.trim().split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self(mac))
    }
}

impl TryFrom<String> for Mac {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, ParseMacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn a_mac_is_read_in_any_case_and_shown_in_lower_case() {
        assert_eq!(
            "00:0C:29:AA:BB:CC"
                .parse::<Mac>()
                .map(|mac| mac.to_string()),
            Ok("00:0c:29:aa:bb:cc".to_owned())
        );
        assert!("00:0c:29:aa:bb".parse::<Mac>().is_err());
        assert!("00:0c:29:aa:bb:cc:dd".parse::<Mac>().is_err());
        assert!("+0:0c:29:aa:bb:cc".parse::<Mac>().is_err());
    }

    #[test]
    fn the_second_bit_tells_a_locally_administered_address() {
        assert!(Mac([0xfa, 0x16, 0x3e, 0, 0, 1]).is_locally_administered());
        assert!(!Mac([0x00, 0x50, 0x56, 0, 0, 1]).is_locally_administered());
    }
}
