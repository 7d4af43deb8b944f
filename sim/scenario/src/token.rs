//! A scenario in one line.
//!
//! `drylab1-` and Crockford base32 (lower case, no aliases accepted) of: version byte, then guest, source, target,
//! route (each one byte from the table below, or 0, length and UTF-8), run seed, length and text of the TOML of
//! everything else (empty when all of it is default), FNV-1a checksum of all before, 4 bytes.

use crate::{Scenario, ScenarioError};
use drylab_kernel::fnv1a;
use std::fmt;

/// Names with a stable number: never renumbered, only appended. A name not here travels as text.
const NAMES: [&str; 66] = [
    "centos-6.3",
    "ubuntu-12.04",
    "windows-2008r2",
    "esxi-5.0.0",
    "kvm-centos-6.3",
    "xenserver-6.0.2",
    "hyperv-2008r2",
    "esxi-native-ovf",
    "esxi-native-vmx",
    "kvm-native-define",
    "esx-v2v",
    "esx-ovf-virt-convert",
    "esx-vmx-virt-convert",
    "esx-flat-virt-manager",
    "esx-ovf-qemu-img",
    "kvm-qemu-img-vmkfstools",
    "kvm-qemu-img-attach",
    "kvm-qemu-img-flat",
    "esx-flat-qemu-img",
    "esx-ovf-virt-manager",
    "esx-ovf-xencenter",
    "esx-xenconvert-ovf",
    "esx-xenconvert-p2v",
    "esx-vmdk-xencenter",
    "esx-flat-qemu-img-vpc",
    "esx-xenconvert-vhd",
    "esx-xenconvert-p2v-vhd",
    "xen-native-xva",
    "xen-native-ovf",
    "xen-ovf-deploy",
    "xen-converter-p2v",
    "xen-vhd-qemu-img-vmdk",
    "xen-vhd-qemu-img",
    "xen-ovf-virt-convert",
    "xen-vhd-hyperv",
    "xen-xenconvert-p2v-vhd",
    "kvm-qemu-img-vpc-xencenter",
    "kvm-qemu-img-vmdk-xencenter",
    "kvm-xenconvert-p2v",
    "kvm-qemu-img-vpc-hyperv",
    "kvm-xenconvert-p2v-vhd",
    "kvm-converter-p2v",
    "hyperv-native-import",
    "hyperv-converter",
    "hyperv-converter-p2v",
    "hyperv-vhd-qemu-img-vmdk",
    "hyperv-vhd-qemu-img",
    "hyperv-vhd-xencenter",
    "hyperv-xenconvert-vhd",
    "hyperv-xenconvert-p2v",
    "esx-converter",
    "esx-v2v-2",
    "esx-ovf-v2v-2",
    "esx-ovf-qemu-img-10",
    "esx-flat-qemu-img-10-vpc",
    "kvm-qemu-img-10-vmkfstools",
    "kvm-converter-5.1-p2v",
    "kvm-qemu-img-10-vpc-xencenter",
    "kvm-qemu-img-10-vmdk-xencenter",
    "kvm-qemu-img-10-vpc-hyperv",
    "xen-vhd-qemu-img-10-vmdk",
    "xen-vhd-qemu-img-10",
    "hyperv-vhd-qemu-img-10-vmdk",
    "hyperv-vhd-qemu-img-10",
    "xen-converter-5.1-p2v",
    "hyperv-converter-5.1-p2v",
];
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "drylab1-";
const LENGTH_MAX: usize = 65_536;

/// The one-line form of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let mut bytes = vec![1];
        for name in [
            scenario.guest.as_str(),
            scenario.source.as_str(),
            scenario.target.as_str(),
            &scenario.route,
        ] {
            put_name(&mut bytes, name);
        }
        put_number(&mut bytes, scenario.run_seed);
        let rest = Scenario {
            run_seed: 0,
            ..scenario.clone()
        };
        let plain = Scenario::new(
            scenario.guest.as_str(),
            scenario.source.as_str(),
            scenario.target.as_str(),
            &scenario.route,
        );
        let text = if rest == plain {
            String::new()
        } else {
            rest.to_toml()
        };
        put_text(&mut bytes, &text);
        bytes.extend(checksum(&bytes));
        Self(format!("{PREFIX}{}", encode(&bytes)))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`ScenarioError::Token`] when it is damaged, [`ScenarioError::Version`] when it is of another version.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let token = Self(text.trim().to_owned());
        token.scenario()?;
        Ok(token)
    }

    /// The scenario it stands for.
    ///
    /// # Errors
    /// As [`Token::parse`].
    pub fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let wrong = |why: &str| ScenarioError::Token(why.to_owned());
        let digits = self
            .0
            .strip_prefix(PREFIX)
            .ok_or_else(|| wrong("does not begin with drylab1-"))?;
        if digits.len() > LENGTH_MAX {
            return Err(wrong(
                "longer than 65536 characters; keep such a scenario as a file",
            ));
        }
        let bytes =
            decode(digits).ok_or_else(|| wrong("holds a character or an ending no token has"))?;
        let (body, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| wrong("is cut short"))?;
        if checksum(body) != *sum {
            return Err(wrong(
                "checksum does not fit: a character was changed or lost",
            ));
        }
        let mut rest = body;
        let version = take_byte(&mut rest).ok_or_else(|| wrong("is empty"))?;
        if version != 1 {
            return Err(ScenarioError::Version(version.into()));
        }
        let mut name = || take_name(&mut rest).ok_or_else(|| wrong("ends inside a name"));
        let (guest, source, target, route) = (name()?, name()?, name()?, name()?);
        let run_seed = take_number(&mut rest).ok_or_else(|| wrong("ends inside the seed"))?;
        let text = take_text(&mut rest).ok_or_else(|| wrong("ends inside its last part"))?;
        if !rest.is_empty() {
            return Err(wrong("has bytes behind its end"));
        }
        let plain = Scenario::new(&guest, &source, &target, &route);
        let mut scenario = if text.is_empty() {
            plain
        } else {
            Scenario::from_toml(&text)?
        };
        scenario.run_seed = run_seed;
        scenario.check()?;
        if Self::of(&scenario) != *self {
            return Err(wrong("is not in its canonical form"));
        }
        Ok(scenario)
    }

    /// `body` with its checksum, whatever it says; for fuzzers.
    pub(crate) fn sealed(body: &[u8]) -> Self {
        let mut bytes = body.to_vec();
        bytes.extend(checksum(body));
        Self(format!("{PREFIX}{}", encode(&bytes)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = fnv1a(bytes);
    let folded = (sum >> 32) ^ (sum & 0xffff_ffff);
    u32::try_from(folded).expect("32 bits").to_le_bytes()
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | u8::try_from(number & 0x7f).expect("7 bits"));
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("7 bits"));
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, u64::try_from(text.len()).expect("a text in memory"));
    bytes.extend(text.as_bytes());
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    match NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| u8::try_from(at + 1).ok())
    {
        Some(number) => bytes.push(number),
        None => {
            bytes.push(0);
            put_text(bytes, name);
        }
    }
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn take_name(bytes: &mut &[u8]) -> Option<String> {
    match take_byte(bytes)? {
        0 => take_text(bytes),
        number => NAMES
            .get(usize::from(number) - 1)
            .map(|name| (*name).to_owned()),
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(
                ALPHABET[usize::try_from((bits >> held) & 31).expect("5 bits")],
            ));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(
            ALPHABET[usize::try_from((bits << (5 - held)) & 31).expect("5 bits")],
        ));
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = (bits << 5) | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (held < 5 && bits == 0).then_some(bytes)
}
