//! Windows Firewall with Advanced Security, policy of NT 6.x as the registry holds it.
//!
//! ```text
//! FirewallRules\RemoteDesktop-In-TCP =
//!   v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Private|LPort=3389|App=System|Name=…|
//! ```
//!
//! No `Profile` means every profile; keys may repeat. An active block rule wins over allow rules; without a matching
//! rule the inbound default applies, which is to block.

use super::iptables::{Target, Verdict};
use super::{Probe, Protocol};
use std::collections::BTreeMap;

/// One rule text, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsRule {
    fields: Vec<(String, String)>,
}

impl WindowsRule {
    /// Reads `v2.10|Key=Value|…|`; parts without `=` (the version) are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let fields = text.split('|').filter_map(|part| part.split_once('='));
        Self {
            fields: fields
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .collect(),
        }
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }

    fn is(&self, key: &str, expected: &str) -> bool {
        self.all(key)
            .any(|value| value.eq_ignore_ascii_case(expected))
    }

    /// Whether the rule is active, inbound, of this profile, and speaks of this probe.
    fn applies(&self, profile: &str, probe: &Probe) -> bool {
        self.is("Active", "TRUE")
            && self.is("Dir", "In")
            && (self.all("Profile").next().is_none() || self.is("Profile", profile))
            && self.matches_protocol(probe.protocol)
            && self.matches_source(probe)
            && self.matches_program()
    }

    fn matches_protocol(&self, protocol: Protocol) -> bool {
        let number = self.all("Protocol").next();
        let number_is = |expected: &str| number.is_none_or(|number| number == expected);
        match protocol {
            Protocol::Echo => {
                let mut types = self.all("ICMP4").peekable();
                number_is("1")
                    && (types.peek().is_none()
                        || types.any(|kind| kind == "*" || kind.starts_with("8:")))
            }
            Protocol::Tcp(port) => number_is("6") && self.matches_port(port),
            Protocol::Udp(port) => number_is("17") && self.matches_port(port),
        }
    }

    fn matches_port(&self, port: u16) -> bool {
        let mut ports = self.all("LPort").chain(self.all("LPort2_10")).peekable();
        ports.peek().is_none()
            || ports.any(|text| match text.split_once('-') {
                Some((first, last)) => {
                    matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
                }
                None => text.parse() == Ok(port),
            })
    }

    fn matches_source(&self, probe: &Probe) -> bool {
        let mut sources = self.all("RA4").chain(self.all("RA42")).peekable();
        sources.peek().is_none() || sources.any(|text| {
            if text.eq_ignore_ascii_case("LocalSubnet") {
                return probe.local_subnet;
            }
            let subnet = text.parse::<crate::Subnet>();
            matches!((subnet, probe.source), (Ok(subnet), Some(source)) if subnet.contains(source))
        })
    }

    /// A probe is answered by the kernel or a system service: rules for other programs do not speak of it.
    fn matches_program(&self) -> bool {
        self.all("App").next().is_none_or(|program| {
            let program = program.to_ascii_lowercase();
            program == "system" || program.ends_with("svchost.exe")
        })
    }
}

/// What the policy does to a probe in the profile (`Domain`, `Private` or `Public`), with the name of the rule that
/// decides; `None` for the default or a firewall switched off.
#[must_use]
pub fn judge_windows(
    enabled: bool,
    profile: &str,
    rules: &BTreeMap<String, String>,
    probe: &Probe,
) -> (Verdict, Option<String>) {
    if !enabled {
        return (
            Verdict {
                target: Target::Accept,
                line: None,
                chain: "disabled".into(),
            },
            None,
        );
    }
    let mut allowed = None;
    for (name, text) in rules {
        let rule = WindowsRule::parse(text);
        if !rule.applies(profile, probe) {
            continue;
        }
        if rule.is("Action", "Block") {
            return (
                Verdict {
                    target: Target::Drop,
                    line: None,
                    chain: profile.into(),
                },
                Some(name.clone()),
            );
        }
        if allowed.is_none() && rule.is("Action", "Allow") {
            allowed = Some(name.clone());
        }
    }
    let target = if allowed.is_some() {
        Target::Accept
    } else {
        Target::Drop
    };
    (
        Verdict {
            target,
            line: None,
            chain: profile.into(),
        },
        allowed,
    )
}

#[cfg(test)]
mod tests {
    use super::{Probe, Target, judge_windows};
    use std::collections::BTreeMap;

    #[test]
    fn a_private_rule_does_not_open_the_public_profile() {
        let rules = BTreeMap::from([
            ("FPS-ICMP4-ERQ-In".to_owned(), "v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=1|Profile=Private|ICMP4=8:*|RA4=LocalSubnet|App=System|".to_owned()),
            ("Off".to_owned(), "v2.10|Action=Allow|Active=FALSE|Dir=In|Protocol=6|LPort=3389|App=System|".to_owned()),
            ("RDP".to_owned(), "v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Domain|Profile=Private|LPort2_10=3380-3390|App=System|".to_owned()),
        ]);
        let judge =
            |profile: &str, probe: &Probe| judge_windows(true, profile, &rules, probe).0.target;
        assert_eq!(judge("Private", &Probe::echo("lan")), Target::Accept);
        assert_eq!(judge("Public", &Probe::echo("lan")), Target::Drop);
        assert_eq!(judge("Domain", &Probe::tcp("lan", 3389)), Target::Accept);
        assert_eq!(judge("Public", &Probe::tcp("lan", 3389)), Target::Drop);
        let far = Probe {
            local_subnet: false,
            ..Probe::echo("lan")
        };
        assert_eq!(judge("Private", &far), Target::Drop);
        assert_eq!(
            judge_windows(false, "Public", &rules, &far).0.target,
            Target::Accept
        );
    }

    #[test]
    fn an_active_block_rule_wins() {
        let rules = BTreeMap::from([
            (
                "A".to_owned(),
                "v2.10|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=22|".to_owned(),
            ),
            (
                "B".to_owned(),
                "v2.10|Action=Block|Active=TRUE|Dir=In|Protocol=6|".to_owned(),
            ),
        ]);
        let (verdict, rule) = judge_windows(true, "Public", &rules, &Probe::tcp("lan", 22));
        assert_eq!((verdict.target, rule.as_deref()), (Target::Drop, Some("B")));
    }
}
