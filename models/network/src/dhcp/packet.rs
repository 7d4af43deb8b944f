//! A DHCP message. Specifications: RFC 951, RFC 2131 (March 1997) section 2, options RFC 2132, long options RFC 3396.
//!
//! ```text
//!   0 op htype hlen hops | 4 xid | 8 secs flags | 12 ciaddr | 16 yiaddr | 20 siaddr | 24 giaddr
//!  28 chaddr (16) | 44 sname (64) | 108 file (128) | 236 magic 63 82 53 63 | 240 options: code, length, data … 255
//! ```

use crate::ParseError;
use drylab_catalog::Mac;
use std::fmt;
use std::net::Ipv4Addr;

/// First four bytes of the options field.
pub const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Largest message accepted: what fits one Ethernet frame.
const LARGEST: usize = 1500;
/// Smallest message sent: relays of BOOTP's time drop shorter ones (RFC 1542, section 2.1).
const SMALLEST: usize = 300;

/// Direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From a client.
    Request,
    /// From a server.
    Reply,
}

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// 1
    Discover,
    /// 2
    Offer,
    /// 3
    Request,
    /// 4
    Decline,
    /// 5
    Ack,
    /// 6
    Nak,
    /// 7
    Release,
    /// 8
    Inform,
}

impl Message {
    fn from_code(code: u8) -> Option<Self> {
        const ALL: [Message; 8] = [
            Message::Discover,
            Message::Offer,
            Message::Request,
            Message::Decline,
            Message::Ack,
            Message::Nak,
            Message::Release,
            Message::Inform,
        ];
        ALL.into_iter().find(|message| message.code() == code)
    }

    fn code(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
            Self::Inform => 8,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Discover => "DHCPDISCOVER",
            Self::Offer => "DHCPOFFER",
            Self::Request => "DHCPREQUEST",
            Self::Decline => "DHCPDECLINE",
            Self::Ack => "DHCPACK",
            Self::Nak => "DHCPNAK",
            Self::Release => "DHCPRELEASE",
            Self::Inform => "DHCPINFORM",
        })
    }
}

/// Options this house reads; all others are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// 53: what kind of message it is; absent in plain BOOTP.
    pub message: Option<Message>,
    /// 1: netmask.
    pub mask: Option<Ipv4Addr>,
    /// 3: routers.
    pub routers: Vec<Ipv4Addr>,
    /// 6: name servers.
    pub dns: Vec<Ipv4Addr>,
    /// 12: host name.
    pub host_name: Option<Vec<u8>>,
    /// 15: domain name.
    pub domain: Option<Vec<u8>>,
    /// 50: address the client asks for.
    pub requested: Option<Ipv4Addr>,
    /// 51: lease time in seconds.
    pub lease_s: Option<u32>,
    /// 54: server identifier.
    pub server: Option<Ipv4Addr>,
    /// 55: options the client asks for.
    pub parameters: Vec<u8>,
    /// 56: error text of a DHCPNAK or DHCPDECLINE.
    pub text: Option<Vec<u8>>,
    /// 58: renewal time (T1) in seconds.
    pub renewal_s: Option<u32>,
    /// 59: rebinding time (T2) in seconds.
    pub rebinding_s: Option<u32>,
    /// 61: client identifier.
    pub client: Option<Vec<u8>>,
    /// Others, by first appearance.
    pub others: Vec<(u8, Vec<u8>)>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Direction.
    pub op: Op,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client cannot receive unicast yet.
    pub broadcast: bool,
    /// Client's own address, when it has one.
    pub ciaddr: Ipv4Addr,
    /// Address given to the client.
    pub yiaddr: Ipv4Addr,
    /// Next server in bootstrap.
    pub siaddr: Ipv4Addr,
    /// Relay agent.
    pub giaddr: Ipv4Addr,
    /// Client's hardware address.
    pub chaddr: Mac,
    /// Options.
    pub options: Options,
}

impl Packet {
    /// A client's message of this kind.
    #[must_use]
    pub fn request(message: Message, xid: u32, chaddr: Mac) -> Self {
        let options = Options {
            message: Some(message),
            ..Options::default()
        };
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            op: Op::Request,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            chaddr,
            options,
        }
    }

    /// The reply of this kind to `request`.
    #[must_use]
    pub fn reply(message: Message, request: &Self) -> Self {
        let mut reply = Self::request(message, request.xid, request.chaddr);
        reply.op = Op::Reply;
        reply.broadcast = request.broadcast;
        reply.giaddr = request.giaddr;
        reply
    }

    /// Bytes as on the wire, after the UDP header; at least 300.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![if self.op == Op::Request { 1 } else { 2 }, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(if self.broadcast { [0x80, 0] } else { [0, 0] });
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr.0);
        bytes.resize(236, 0);
        bytes.extend(MAGIC_COOKIE);
        for (code, data) in self.options.fields() {
            put(&mut bytes, code, &data);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(SMALLEST), 0);
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// `Unsupported` for hardware other than Ethernet; `Corrupt` for a short message, a wrong cookie, an option that
    /// runs past the end or has a length its code does not allow.
    pub fn decode(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > LARGEST {
            return Err(corrupt(format!(
                "message of {} bytes, at most {LARGEST} expected",
                bytes.len()
            )));
        }
        let head = bytes.get(..240).ok_or_else(|| {
            corrupt(format!(
                "message of {} bytes, at least 240 expected",
                bytes.len()
            ))
        })?;
        let op = match head.first() {
            Some(1) => Op::Request,
            Some(2) => Op::Reply,
            other => return Err(corrupt(format!("op at 0 is {other:?}, 1 or 2 expected"))),
        };
        if head.get(1..3) != Some(&[1, 6]) {
            return Err(ParseError::Unsupported(format!(
                "hardware type and length at 1 are {:?}, Ethernet (1, 6) expected",
                head.get(1..3)
            )));
        }
        if head.get(236..240) != Some(&MAGIC_COOKIE) {
            return Err(corrupt(format!(
                "magic at 236 is {:?}, {MAGIC_COOKIE:?} expected",
                head.get(236..240)
            )));
        }
        let address = |at| array::<4>(head, at).map(Ipv4Addr::from);
        let packet = Self {
            op,
            xid: u32::from_be_bytes(array(head, 4)?),
            secs: u16::from_be_bytes(array(head, 8)?),
            broadcast: array::<2>(head, 10).map(|[high, _]| high & 0x80 != 0)?,
            ciaddr: address(12)?,
            yiaddr: address(16)?,
            siaddr: address(20)?,
            giaddr: address(24)?,
            chaddr: Mac(array(head, 28)?),
            options: Options::default(),
        };
        let mut raw = Vec::new();
        scan(bytes.get(240..).unwrap_or_default(), 240, &mut raw)?;
        // RFC 2131, section 4.1: option 52 says that `file` (1), `sname` (2) or both (3) hold more options.
        let overload = raw
            .iter()
            .find(|(code, _)| *code == 52)
            .and_then(|(_, data)| data.first().copied())
            .unwrap_or(0);
        if overload & 1 != 0 {
            scan(head.get(108..236).unwrap_or_default(), 108, &mut raw)?;
        }
        if overload & 2 != 0 {
            scan(head.get(44..108).unwrap_or_default(), 44, &mut raw)?;
        }
        raw.retain(|(code, _)| *code != 52);
        Ok(Self {
            options: Options::from_fields(raw)?,
            ..packet
        })
    }

    /// One line: `DHCPREQUEST 52:54:00:01:02:03 asks 10.0.0.5`.
    #[must_use]
    pub fn summary(&self) -> String {
        let name = self
            .options
            .message
            .map_or_else(|| "BOOTP".to_owned(), |message| message.to_string());
        let mut line = format!("{name} {}", self.chaddr);
        for (word, address) in [
            ("asks", self.options.requested),
            ("from", self.options.server),
        ] {
            if let Some(address) = address {
                line.push_str(&format!(" {word} {address}"));
            }
        }
        for (word, address) in [("has", self.ciaddr), ("gets", self.yiaddr)] {
            if !address.is_unspecified() {
                line.push_str(&format!(" {word} {address}"));
            }
        }
        if let Some(text) = &self.options.text {
            line.push_str(&format!(" ({})", String::from_utf8_lossy(text)));
        }
        line
    }
}

fn corrupt(what: impl fmt::Display) -> ParseError {
    ParseError::Corrupt(format!("dhcp: {what}"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ParseError> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|field| field.try_into().ok())
        .ok_or_else(|| {
            corrupt(format!(
                "field at {at} of {N} bytes runs past the end ({})",
                bytes.len()
            ))
        })
}

/// Writes an option, split at 255 bytes (RFC 3396); an empty one is written once, with length 0.
fn put(bytes: &mut Vec<u8>, code: u8, data: &[u8]) {
    let mut rest = data;
    loop {
        let (part, more) = rest.split_at(rest.len().min(255));
        bytes.push(code);
        bytes.push(u8::try_from(part.len()).unwrap_or(255));
        bytes.extend(part);
        if more.is_empty() {
            return;
        }
        rest = more;
    }
}

/// Collects options of one field, joining those that appear more than once.
fn scan(field: &[u8], place: usize, into: &mut Vec<(u8, Vec<u8>)>) -> Result<(), ParseError> {
    let mut at = 0usize;
    while let Some(&code) = field.get(at) {
        at = at.saturating_add(1);
        match code {
            0 => continue,
            255 => return Ok(()),
            _ => {}
        }
        let length = field.get(at).copied().map(usize::from);
        let length = length.ok_or_else(|| {
            corrupt(format!(
                "option {code} has no length at {}",
                place.saturating_add(at)
            ))
        })?;
        let start = at.saturating_add(1);
        let end = start.saturating_add(length);
        let data = field.get(start..end).ok_or_else(|| {
            corrupt(format!(
                "option {code} at {} has {length} bytes, past the end ({})",
                place.saturating_add(at),
                place.saturating_add(field.len())
            ))
        })?;
        match into.iter_mut().find(|(known, _)| *known == code) {
            Some((_, known)) => known.extend(data),
            None => into.push((code, data.to_vec())),
        }
        at = end;
    }
    Ok(())
}

impl Options {
    /// Code and data of what is present, in the order they are written: 53 first, then by code.
    fn fields(&self) -> Vec<(u8, Vec<u8>)> {
        let mut fields = Vec::new();
        let mut add =
            |code: u8, data: Option<Vec<u8>>| fields.extend(data.map(|data| (code, data)));
        let list = |addresses: &[Ipv4Addr]| {
            (!addresses.is_empty()).then(|| {
                addresses
                    .iter()
                    .flat_map(|address| address.octets())
                    .collect::<Vec<u8>>()
            })
        };
        let one = |address: Option<Ipv4Addr>| address.map(|address| address.octets().to_vec());
        let number = |value: Option<u32>| value.map(|value| value.to_be_bytes().to_vec());
        add(53, self.message.map(|message| vec![message.code()]));
        add(1, one(self.mask));
        add(3, list(&self.routers));
        add(6, list(&self.dns));
        add(12, self.host_name.clone());
        add(15, self.domain.clone());
        add(50, one(self.requested));
        add(51, number(self.lease_s));
        add(54, one(self.server));
        add(
            55,
            (!self.parameters.is_empty()).then(|| self.parameters.clone()),
        );
        add(56, self.text.clone());
        add(58, number(self.renewal_s));
        add(59, number(self.rebinding_s));
        add(61, self.client.clone());
        fields.extend(self.others.iter().cloned());
        fields
    }

    fn from_fields(fields: Vec<(u8, Vec<u8>)>) -> Result<Self, ParseError> {
        let mut options = Self::default();
        for (code, data) in fields {
            match code {
                1 => options.mask = Some(address(code, &data)?),
                3 => options.routers = addresses(code, &data)?,
                6 => options.dns = addresses(code, &data)?,
                12 => options.host_name = Some(data),
                15 => options.domain = Some(data),
                50 => options.requested = Some(address(code, &data)?),
                51 => options.lease_s = Some(number(code, &data)?),
                53 => {
                    let [kind] = exact(code, &data)?;
                    let message = Message::from_code(kind);
                    options.message =
                        Some(message.ok_or_else(|| {
                            corrupt(format!("option 53 is {kind}, 1..=8 expected"))
                        })?);
                }
                54 => options.server = Some(address(code, &data)?),
                55 => options.parameters = data,
                56 => options.text = Some(data),
                58 => options.renewal_s = Some(number(code, &data)?),
                59 => options.rebinding_s = Some(number(code, &data)?),
                61 => options.client = Some(data),
                _ => options.others.push((code, data)),
            }
        }
        Ok(options)
    }
}

fn exact<const N: usize>(code: u8, data: &[u8]) -> Result<[u8; N], ParseError> {
    data.try_into().map_err(|_| {
        corrupt(format!(
            "option {code} has {} bytes, {N} expected",
            data.len()
        ))
    })
}

fn address(code: u8, data: &[u8]) -> Result<Ipv4Addr, ParseError> {
    exact::<4>(code, data).map(Ipv4Addr::from)
}

fn number(code: u8, data: &[u8]) -> Result<u32, ParseError> {
    exact::<4>(code, data).map(u32::from_be_bytes)
}

fn addresses(code: u8, data: &[u8]) -> Result<Vec<Ipv4Addr>, ParseError> {
    let (chunks, rest) = data.as_chunks::<4>();
    if chunks.is_empty() || !rest.is_empty() {
        return Err(corrupt(format!(
            "option {code} has {} bytes, a multiple of 4 expected",
            data.len()
        )));
    }
    Ok(chunks.iter().copied().map(Ipv4Addr::from).collect())
}
