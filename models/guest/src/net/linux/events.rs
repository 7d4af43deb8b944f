//! Several adapters at once: who gets which name when, and what happens when a wanted name is occupied.
//!
//! Source: measured on udev 147, Red Hat's 147 and 175 with one to three adapters.
//!
//! An interface whose wanted name is occupied is first renamed to a parking name (`rename35` upstream, the number is
//! the interface index; `eth0-eth1`, old and wanted name, on EL6), then tried again for 90 seconds; when the name is
//! still occupied, the parking name stays.

use super::Events;
use super::udev::device::{Facts, NetDevice};
use super::udev::{Outcome, Rules, programs};
use crate::Tree;

/// Time udev waits for an occupied name, in microseconds.
pub const WAIT_US: u64 = 90_000_000;

/// An interface after its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name the kernel gave.
    pub kernel_name: String,
    /// Name now.
    pub name: String,
    /// Name udev wanted, when it was occupied for good.
    pub wanted: Option<String>,
    /// What the rules did.
    pub outcome: Outcome,
}

/// Interfaces after all events, with the time lost waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Interfaces in the kernel's order.
    pub interfaces: Vec<Named>,
    /// Microseconds.
    pub delay_us: u64,
    /// Whether the image's udev is Red Hat's: its rules call initscripts' `rename_device`.
    pub red_hat: bool,
}

/// Evaluates the "add" event of each device and renames the interfaces.
#[must_use]
pub fn settle(tree: &mut Tree, devices: &[Facts<'_>], events: Events) -> Settled {
    let mut rules = Rules::of(tree);
    let red_hat = rules.call("rename_device");
    let mut state = State {
        interfaces: devices
            .iter()
            .map(|facts| Named {
                kernel_name: facts.kernel_name.to_owned(),
                name: facts.kernel_name.to_owned(),
                wanted: None,
                outcome: Outcome::default(),
            })
            .collect(),
        el6: red_hat,
    };
    let mut delay_us = 0_u64;
    for (index, facts) in devices.iter().enumerate() {
        let before = tree.read(programs::PERSISTENT).map(<[u8]>::len);
        let outcome = rules.add(tree, &NetDevice::new(facts));
        if tree.read(programs::PERSISTENT).map(<[u8]>::len) != before {
            // The daemon watches its folders: the next event sees the rule that this one wrote.
            rules = Rules::of(tree);
        }
        state.begin(index, outcome, facts.ifindex);
        if events == Events::InTurn && state.waiting(index) {
            delay_us = delay_us.saturating_add(WAIT_US);
        }
    }
    if events == Events::Together {
        while state.retry() {}
        if (0..devices.len()).any(|index| state.waiting(index)) {
            delay_us = WAIT_US;
        }
    }
    Settled {
        interfaces: state.interfaces,
        delay_us,
        red_hat,
    }
}

struct State {
    interfaces: Vec<Named>,
    el6: bool,
}

impl State {
    fn waiting(&self, index: usize) -> bool {
        self.interfaces
            .get(index)
            .is_some_and(|interface| interface.wanted.is_some())
    }

    fn occupied(&self, name: &str, except: usize) -> bool {
        self.interfaces
            .iter()
            .enumerate()
            .any(|(index, other)| index != except && other.name == name)
    }

    /// Takes the outcome of an event: renames at once when the name is free, else parks.
    fn begin(&mut self, index: usize, outcome: Outcome, ifindex: u32) {
        let wanted = outcome.name.clone();
        let occupied = wanted
            .as_deref()
            .is_some_and(|name| self.occupied(name, index));
        let el6 = self.el6;
        let Some(interface) = self.interfaces.get_mut(index) else {
            return;
        };
        interface.outcome = outcome;
        let Some(wanted) = wanted.filter(|wanted| *wanted != interface.name) else {
            return;
        };
        if occupied {
            interface.name = if el6 {
                format!("{}-{wanted}", interface.kernel_name)
            } else {
                format!("rename{ifindex}")
            };
            interface.wanted = Some(wanted);
        } else {
            interface.name = wanted;
        }
    }

    /// Gives waiting interfaces their names where they became free; whether one did.
    fn retry(&mut self) -> bool {
        for index in 0..self.interfaces.len() {
            let Some(wanted) = self
                .interfaces
                .get(index)
                .and_then(|interface| interface.wanted.clone())
            else {
                continue;
            };
            if self.occupied(&wanted, index) {
                continue;
            }
            if let Some(interface) = self.interfaces.get_mut(index) {
                interface.name = wanted;
                interface.wanted = None;
                return true;
            }
        }
        false
    }
}

/// The rule the writer appended for an interface, if it did.
#[must_use]
pub fn written(outcome: &Outcome) -> Option<&programs::Note> {
    outcome
        .steps
        .iter()
        .rev()
        .find_map(|step| match &step.effect {
            super::udev::Effect::Ran(note @ programs::Note::Wrote { .. }) => Some(note),
            _ => None,
        })
}
