//! dhclient's files: `dhclient.conf` and the lease database. Specification: dhclient.conf(5), dhclient.leases(5) of
//! ISC DHCP 4.
//!
//! ```text
//! lease {
//!   interface "eth0";
//!   fixed-address 10.0.0.100;
//!   option subnet-mask 255.255.255.0;
//!   renew 2 2012/10/16 12:00:00;        weekday, date, time, UTC
//! }
//! ```

use super::linux::DhcpClient;
use crate::Tree;
use drylab_catalog::Mac;
use drylab_network::Subnet;
use drylab_network::dhcp::{ClientConfig, LeaseFact, SECOND_US, Schedule};
use std::net::Ipv4Addr;

/// Longest file read, in bytes.
const LONGEST: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    End,
    Open,
    Close,
}

/// Statements outside braces, each with its line, and leases.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text
        .get(..LONGEST.min(text.len()))
        .unwrap_or_default()
        .chars()
        .peekable();
    while let Some(c) = rest.next() {
        match c {
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' => tokens.push(Token::End),
            '{' => tokens.push(Token::Open),
            '}' => tokens.push(Token::Close),
            '"' => {
                let mut string = String::new();
                while let Some(c) = rest.next_if(|c| *c != '"') {
                    string.push(if c == '\\' {
                        rest.next().unwrap_or(c)
                    } else {
                        c
                    });
                }
                rest.next();
                tokens.push(Token::Text(string));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| !c.is_whitespace() && !";{}\"#".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    tokens
}

/// Statements as lists of words, with the depth of braces they stand in; an opening brace ends a statement too.
fn statements(text: &str) -> Vec<(u32, Vec<Token>)> {
    let mut found = Vec::new();
    let mut depth = 0u32;
    let mut current = Vec::new();
    for token in tokens(text) {
        match token {
            Token::End => found.push((depth, std::mem::take(&mut current))),
            Token::Open => {
                found.push((depth, std::mem::take(&mut current)));
                depth = depth.saturating_add(1);
            }
            Token::Close => {
                current.clear();
                depth = depth.saturating_sub(1);
            }
            word => current.push(word),
        }
    }
    found
}

fn word(token: Option<&Token>) -> &str {
    match token {
        Some(Token::Word(word) | Token::Text(word)) => word.trim_end_matches(','),
        _ => "",
    }
}

/// Value of an argument such as `-lf`.
fn argument<'a>(client: &'a DhcpClient, name: &str) -> Option<&'a str> {
    let at = client
        .arguments
        .iter()
        .position(|argument| argument == name)?;
    client
        .arguments
        .get(at.saturating_add(1))
        .map(String::as_str)
}

/// The lease file a client was told to use.
pub(super) fn lease_path(client: &DhcpClient, device: &str) -> String {
    argument(client, "-lf").map_or_else(
        || format!("/var/lib/dhclient/dhclient-{device}.leases"),
        str::to_owned,
    )
}

/// Configuration of the client from its arguments and its `dhclient.conf`.
pub(super) fn configuration(
    tree: &Tree,
    client: &DhcpClient,
    mac: Mac,
    checks_conflict: bool,
) -> ClientConfig {
    let mut config = ClientConfig::dhclient(mac);
    config.checks_conflict = checks_conflict;
    let path = argument(client, "-cf").unwrap_or("/etc/dhcp/dhclient.conf");
    let text = tree.text(path).unwrap_or_default();
    for (_, statement) in statements(&text) {
        let mut words = statement.iter();
        let (first, second, third) = (word(words.next()), word(words.next()), words.next());
        if let Schedule::Dhclient {
            retry_s,
            reboot_s,
            initial_s,
            cutoff_s,
            ..
        } = &mut config.schedule
        {
            let field = match first {
                "retry" => Some(retry_s),
                "reboot" => Some(reboot_s),
                "initial-interval" => Some(initial_s),
                "backoff-cutoff" => Some(cutoff_s),
                _ => None,
            };
            if let (Some(field), Ok(seconds)) = (field, second.parse()) {
                *field = seconds;
            }
        }
        match (first, second) {
            ("send", "host-name") if !word(third).starts_with('<') => {
                config.host_name = Some(word(third).to_owned())
            }
            ("send", "dhcp-client-identifier") => config.client_id = identifier(third),
            _ => {}
        }
    }
    if client.hostname.is_some() {
        config.host_name.clone_from(&client.hostname);
    }
    if let Schedule::Dhclient {
        timeout_s, one_try, ..
    } = &mut config.schedule
    {
        *timeout_s = client.timeout_s;
        *one_try = client.one_try;
    }
    config
}

/// `"text"` or `1:52:54:00:…`.
fn identifier(token: Option<&Token>) -> Option<Vec<u8>> {
    match token? {
        Token::Text(text) => Some(text.as_bytes().to_vec()),
        Token::Word(word) => word
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect(),
        _ => None,
    }
}

/// The lease a client remembers for `device` at `now`: the last one of its file that has not expired.
pub(super) fn remembered(
    tree: &Tree,
    path: &str,
    device: &str,
    wall_clock_s: u64,
) -> Option<LeaseFact> {
    let text = tree.text(path)?;
    let mut leases: Vec<(String, LeaseFact)> = Vec::new();
    for (depth, statement) in statements(&text) {
        let mut words = statement.iter();
        let first = word(words.next());
        if depth == 0 && first == "lease" {
            leases.push((String::new(), empty()));
            continue;
        }
        let Some((interface, lease)) = leases.last_mut().filter(|_| depth == 1) else {
            continue;
        };
        let rest: Vec<&str> = words.map(|token| word(Some(token))).collect();
        read_statement(first, &rest, interface, lease, wall_clock_s);
    }
    let mut usable = leases.into_iter().filter(|(interface, lease)| {
        interface == device && !lease.address.is_unspecified() && lease.expires_at > 0
    });
    usable.next_back().map(|(_, lease)| lease)
}

fn empty() -> LeaseFact {
    let none = Ipv4Addr::UNSPECIFIED;
    LeaseFact {
        address: none,
        subnet: Subnet::new(none, 0),
        server: none,
        routers: Vec::new(),
        dns: Vec::new(),
        domain: None,
        host_name: None,
        renew_at: 0,
        rebind_at: 0,
        expires_at: 0,
    }
}

fn read_statement(
    first: &str,
    rest: &[&str],
    interface: &mut String,
    lease: &mut LeaseFact,
    wall_clock_s: u64,
) {
    let at = |rest: &[&str]| {
        instant(rest).map_or(0, |seconds| {
            seconds
                .saturating_sub(wall_clock_s)
                .saturating_mul(SECOND_US)
        })
    };
    match (first, rest) {
        ("interface", [name, ..]) => *interface = (*name).to_owned(),
        ("fixed-address", [address, ..]) => {
            lease.address = address.parse().unwrap_or(lease.address)
        }
        ("renew", rest) => lease.renew_at = at(rest),
        ("rebind", rest) => lease.rebind_at = at(rest),
        ("expire", rest) => lease.expires_at = at(rest),
        ("option", [name, values @ ..]) => {
            let addresses = || {
                values
                    .iter()
                    .flat_map(|value| value.split(','))
                    .filter_map(|value| value.parse().ok())
            };
            match *name {
                "subnet-mask" => {
                    let mask = addresses()
                        .next()
                        .and_then(|mask| Subnet::from_mask(lease.address, mask));
                    lease.subnet = mask.unwrap_or(lease.subnet);
                }
                "routers" => lease.routers = addresses().collect(),
                "domain-name-servers" => lease.dns = addresses().collect(),
                "dhcp-server-identifier" => {
                    lease.server = addresses().next().unwrap_or(lease.server)
                }
                "domain-name" => lease.domain = values.first().map(|value| (*value).to_owned()),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Appends a lease to the file's text.
pub(super) fn append(text: &str, device: &str, lease: &LeaseFact, wall_clock_s: u64) -> String {
    let date = |at: u64| stamp(wall_clock_s.saturating_add(at / SECOND_US));
    let list = |addresses: &[Ipv4Addr]| {
        addresses
            .iter()
            .map(Ipv4Addr::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut lines = vec![
        "lease {".to_owned(),
        format!("  interface \"{device}\";"),
        format!("  fixed-address {};", lease.address),
        format!("  option subnet-mask {};", lease.subnet.mask()),
    ];
    if !lease.routers.is_empty() {
        lines.push(format!("  option routers {};", list(&lease.routers)));
    }
    if !lease.dns.is_empty() {
        lines.push(format!(
            "  option domain-name-servers {};",
            list(&lease.dns)
        ));
    }
    lines.push(format!("  option dhcp-server-identifier {};", lease.server));
    if let Some(domain) = &lease.domain {
        lines.push(format!("  option domain-name \"{domain}\";"));
    }
    for (name, at) in [
        ("renew", lease.renew_at),
        ("rebind", lease.rebind_at),
        ("expire", lease.expires_at),
    ] {
        lines.push(format!("  {name} {};", date(at)));
    }
    lines.push("}\n".to_owned());
    format!("{text}{}", lines.join("\n"))
}

/// Last second of the year 9999, which is the last that is written.
const LAST: u64 = 253_402_300_799;

/// `W YYYY/MM/DD HH:MM:SS`, `epoch SECONDS` or `never`, as seconds since 1970; `None` for times that are none.
fn instant(words: &[&str]) -> Option<u64> {
    let seconds = match words {
        ["never", ..] => Some(u64::from(u32::MAX)),
        ["epoch", seconds, ..] => seconds.parse().ok(),
        [_, date, time, ..] => {
            let mut date = date.split('/').map(|part| part.parse::<u64>().ok());
            let (year, month, day) = (date.next()??, date.next()??, date.next()??);
            let mut time = time.split(':').map(|part| part.parse::<u64>().ok());
            let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
            if hour > 23 || minute > 59 || second > 60 {
                return None;
            }
            let minutes = days(year, month, day)?
                .checked_mul(24)?
                .checked_add(hour)?
                .checked_mul(60)?
                .checked_add(minute)?;
            minutes.checked_mul(60)?.checked_add(second)
        }
        _ => None,
    };
    seconds.filter(|seconds| *seconds <= LAST)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn length(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01; `None` for dates that are none, or outside 1970..=9999.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || day == 0
        || day > length(year, month)
    {
        return None;
    }
    let years: u64 = (1970..year)
        .map(|year| if leap(year) { 366 } else { 365 })
        .sum();
    let months: u64 = (1..month).map(|month| length(year, month)).sum();
    Some(
        years
            .saturating_add(months)
            .saturating_add(day)
            .saturating_sub(1),
    )
}

fn stamp(seconds: u64) -> String {
    let whole = seconds / 86_400;
    let (mut rest, mut year, mut month) = (whole, 1970u64, 1u64);
    while year < 9999 {
        let size = if leap(year) { 366 } else { 365 };
        if rest < size {
            break;
        }
        rest = rest.saturating_sub(size);
        year = year.saturating_add(1);
    }
    while month < 12 && rest >= length(year, month) {
        rest = rest.saturating_sub(length(year, month));
        month = month.saturating_add(1);
    }
    // 1970-01-01 was a Thursday; the week begins with Sunday, 0.
    let weekday = whole.saturating_add(4) % 7;
    let day = rest.saturating_add(1);
    let second = seconds % 86_400;
    format!(
        "{weekday} {year}/{month:02}/{day:02} {:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::{append, empty, instant, remembered, stamp};
    use crate::Tree;
    use drylab_network::Subnet;
    use drylab_network::dhcp::SECOND_US;

    #[test]
    fn dates_are_written_and_read_as_dhclient_does() {
        assert_eq!(stamp(1_350_388_800), "2 2012/10/16 12:00:00");
        assert_eq!(stamp(951_782_400), "2 2000/02/29 00:00:00");
        for seconds in (0..4_000_000_000).step_by(12_345_678) {
            let text = stamp(seconds);
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(instant(&words), Some(seconds), "{text}");
        }
        assert_eq!(instant(&["2", "2012/13/01", "00:00:00"]), None);
        assert_eq!(instant(&["2", "2013/02/12", "09:00:555555555555"]), None);
        assert_eq!(instant(&["epoch", "77"]), Some(77));
        assert_eq!(instant(&["epoch", "253402300800"]), None);
    }

    #[test]
    fn the_last_lease_of_an_interface_is_remembered() {
        let mut lease = empty();
        lease.address = [10, 0, 0, 5].into();
        lease.subnet = Subnet::new(lease.address, 24);
        lease.routers = vec![[10, 0, 0, 1].into()];
        lease.dns = vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()];
        lease.server = [10, 0, 0, 2].into();
        lease.domain = Some("lab".into());
        (lease.renew_at, lease.rebind_at, lease.expires_at) =
            (300 * SECOND_US, 500 * SECOND_US, 600 * SECOND_US);
        let wall = 1_350_000_000;
        let mut older = lease.clone();
        older.address = [10, 0, 0, 4].into();
        let mut other = lease.clone();
        other.address = [10, 0, 0, 9].into();
        let text = append(
            &append(&append("", "eth0", &older, wall), "eth0", &lease, wall),
            "eth1",
            &other,
            wall,
        );
        let mut tree = Tree::new();
        tree.write("/leases", text.into_bytes());
        assert_eq!(remembered(&tree, "/leases", "eth0", wall), Some(lease));
        assert_eq!(remembered(&tree, "/leases", "eth1", wall), Some(other));
        // Ten minutes later, counted from a clock of that day, it has expired.
        assert_eq!(remembered(&tree, "/leases", "eth0", wall + 600), None);
    }
}
