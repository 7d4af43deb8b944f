//! What nobody knows of the lab: facts that are belief, and what the report leaves open, each with values that are
//! plausible, their weights and why. A drawn lab has one value of each.

use drylab_catalog::{GuestId, Mac, Mark, ProductId};
use drylab_kernel::Streams;
use drylab_pipeline::{Hop, Library, Route};
use drylab_scenario::{Edit, Scenario, TargetNetwork};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The committed file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknowns {
    /// Version of this form; 1.
    format: u64,
    /// Facts of products, by `product/key`.
    #[serde(rename = "fact")]
    facts: BTreeMap<String, FactRow>,
    /// Everything else, by id.
    #[serde(rename = "unknown")]
    unknowns: BTreeMap<String, Unknown>,
    /// What can be switched off, by id.
    #[serde(rename = "mechanism")]
    mechanisms: BTreeMap<String, Mechanism>,
    /// Rows of the quirk tables that are marked belief, by id.
    #[serde(rename = "quirk", default)]
    quirks: BTreeMap<String, QuirkRow>,
}

/// Where a quirk that is belief is asked, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuirkRow {
    /// Unknowns and facts (`product/key`) whose other answers have it otherwise; none when nothing varies it.
    #[serde(default)]
    pub asked: Vec<String>,
    /// Why there, or why not.
    pub reason: String,
}

/// A fact with its plausible values; the first is what the product's file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactRow {
    values: Vec<Weighted>,
    reason: String,
    /// The values after the first as differences from the default lab; made when the file is read.
    #[serde(skip)]
    effects: Vec<Effect>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    value: toml::Value,
    weight: u32,
}

/// Something the report leaves open.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// The question.
    pub asks: String,
    /// Why these values, and why these weights.
    pub reason: String,
    /// The answers; the first is what the default lab has.
    pub values: Vec<Answer>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// In a word.
    pub name: String,
    /// How much of the labs have it, against the sum of the weights.
    pub weight: u32,
    /// What is then different from the default lab.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// Whether the models can have it so. A lab that draws another answer has the first one, and says so.
    #[serde(default = "yes")]
    pub modelled: bool,
}

fn yes() -> bool {
    true
}

/// A mechanism of the models, and how a lab without it is made.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// What is switched off.
    pub states: String,
    /// How.
    pub effects: Vec<Effect>,
}

/// A difference from the default lab.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// A product's fact has another value.
    Fact {
        /// `product/key`.
        name: String,
        /// The value.
        value: toml::Value,
    },
    /// A guest's disk is changed before it is moved.
    Guest {
        /// Which guest.
        guest: GuestId,
        /// Where it was installed; everywhere when left out.
        source: Option<ProductId>,
        /// The changes.
        edits: Vec<Edit>,
    },
    /// The target's network leads elsewhere.
    Network {
        /// Which target; every one when left out.
        target: Option<ProductId>,
        /// Where.
        leads: TargetNetwork,
    },
    /// A person chooses at the target's console what it would not choose by itself.
    TargetVm {
        /// Which guest; every one when left out.
        guest: Option<GuestId>,
        /// Which target; every one when left out.
        target: Option<ProductId>,
        /// Only where this hop makes the machine; everywhere when left out.
        hop: Option<Hop>,
        /// Adapter model.
        nic_model: Option<String>,
        /// Controller of the boot disk.
        controller: Option<String>,
    },
    /// The machines have another size.
    SourceVm {
        /// Virtual processors.
        vcpus: u32,
        /// Memory in MiB.
        memory_mib: u64,
    },
    /// A host has another processor.
    Host {
        /// Which.
        product: ProductId,
        /// Its brand string.
        cpu_brand: String,
        /// Its clock in kHz.
        cpu_khz: u64,
    },
    /// A switch port forwards only after some time.
    ForwardDelay {
        /// Seconds.
        seconds: u32,
    },
    /// A tool is not at hand: routes with it are not tried.
    Without {
        /// The hop, as the route table spells it.
        hop: Hop,
    },
    /// A tool of later years is at hand: routes with it are tried.
    With {
        /// The hop, as the route table spells it.
        hop: Hop,
    },
    /// The machine at the target is given the address it had at the source.
    KeepMac,
    /// Checks are relaxed by name.
    Relax {
        /// A relaxation of the policy.
        name: String,
    },
}

/// One whole lab: what is different in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrawnLab<'u> {
    /// What it was drawn with.
    pub seed: u64,
    /// By unknown (`product/key` for facts): the index of its answer.
    pub answers: BTreeMap<&'u str, usize>,
    /// Answers that were drawn and that nothing models: `unknown = answer`.
    pub not_modelled: Vec<String>,
    effects: Vec<&'u Effect>,
}

impl Unknowns {
    /// The file that is part of the program.
    ///
    /// # Panics
    /// When it does not parse.
    #[must_use]
    pub fn of_the_report() -> Self {
        Self::from_toml(include_str!("../unknowns.toml"))
            .expect("unknowns.toml is part of the program and parses")
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// The parser's message; a version other than 1; a row without values, weight or reason.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if read.format != 1 {
            return Err(format!("format is {}, this program reads 1", read.format));
        }
        let weights = |id: &str, reason: &str, weights: Vec<u32>| {
            let total = weights
                .iter()
                .try_fold(0u32, |sum, weight| sum.checked_add(*weight));
            match total {
                Some(1..) if !reason.is_empty() => Ok(()),
                _ => Err(format!(
                    "{id}: needs a reason, and weights that add up to more than 0 and fit 32 bits"
                )),
            }
        };
        for (id, row) in &read.facts {
            weights(
                id,
                &row.reason,
                row.values.iter().map(|value| value.weight).collect(),
            )?;
        }
        for (id, row) in &read.unknowns {
            weights(
                id,
                &row.reason,
                row.values.iter().map(|value| value.weight).collect(),
            )?;
        }
        for (name, row) in &mut read.facts {
            let fact = |drawn: &Weighted| Effect::Fact {
                name: name.clone(),
                value: drawn.value.clone(),
            };
            row.effects = row.values.iter().skip(1).map(fact).collect();
        }
        Ok(read)
    }

    /// The same questions with nothing left to draw and no mechanism to switch off: one row (when given) has one of its
    /// answers, all others have their first.
    #[must_use]
    pub fn only(&self, row: Option<(&str, usize)>) -> Self {
        let mut only = self.clone();
        only.mechanisms.clear();
        let wanted = |id: &str| match row {
            Some((row, index)) if row == id => index,
            _ => 0,
        };
        for (id, row) in &mut only.facts {
            for (index, value) in row.values.iter_mut().enumerate() {
                value.weight = u32::from(index == wanted(id));
            }
        }
        for (id, row) in &mut only.unknowns {
            for (index, value) in row.values.iter_mut().enumerate() {
                value.weight = u32::from(index == wanted(id));
            }
        }
        only
    }

    /// Every row with the number of its answers.
    pub fn rows(&self) -> impl Iterator<Item = (&str, usize)> {
        let facts = self.facts.iter();
        let facts = facts.map(|(id, row)| (id.as_str(), row.values.len()));
        let unknowns = self.unknowns.iter();
        facts.chain(unknowns.map(|(id, row)| (id.as_str(), row.values.len())))
    }

    /// Names of the facts that have a row, with their first value.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &toml::Value)> {
        self.facts
            .iter()
            .filter_map(|(name, row)| Some((name.as_str(), &row.values.first()?.value)))
    }

    /// Rows of the quirk tables that are marked belief, by id.
    pub fn quirks(&self) -> impl Iterator<Item = (&str, &QuirkRow)> {
        self.quirks.iter().map(|(id, row)| (id.as_str(), row))
    }

    /// Questions other than facts, by id.
    pub fn questions(&self) -> impl Iterator<Item = (&str, &Unknown)> {
        self.unknowns.iter().map(|(id, row)| (id.as_str(), row))
    }

    /// What can be switched off, by id.
    pub fn mechanisms(&self) -> impl Iterator<Item = (&str, &Mechanism)> {
        self.mechanisms.iter().map(|(id, row)| (id.as_str(), row))
    }

    /// Why a row has its answers and weights.
    #[must_use]
    pub fn reason(&self, row: &str) -> Option<&str> {
        let fact = self.facts.get(row).map(|row| row.reason.as_str());
        fact.or_else(|| self.unknowns.get(row).map(|row| row.reason.as_str()))
    }

    /// Weights of a row's answers, in their order; none of a row that is not there.
    #[must_use]
    pub fn weights(&self, row: &str) -> Vec<u32> {
        let facts = self.facts.get(row).into_iter().flat_map(|row| &row.values);
        let others = self.unknowns.get(row).into_iter();
        let others = others.flat_map(|row| &row.values);
        facts
            .map(|value| value.weight)
            .chain(others.map(|answer| answer.weight))
            .collect()
    }

    /// The words of an answer.
    #[must_use]
    pub fn answer(&self, unknown: &str, index: usize) -> String {
        let fact = self
            .facts
            .get(unknown)
            .and_then(|row| row.values.get(index));
        let other = self
            .unknowns
            .get(unknown)
            .and_then(|row| row.values.get(index));
        match (fact, other) {
            (Some(fact), _) => fact.value.to_string(),
            (None, Some(answer)) => answer.name.clone(),
            (None, None) => String::new(),
        }
    }

    /// Draws a lab: every unknown has a stream of its own, so that a new row leaves the others' draws as they are.
    #[must_use]
    pub fn draw(&self, seed: u64) -> DrawnLab<'_> {
        let streams = Streams::new(seed);
        let mut lab = DrawnLab {
            seed,
            ..DrawnLab::default()
        };
        for (name, row) in &self.facts {
            let weights: Vec<u32> = row.values.iter().map(|value| value.weight).collect();
            let index = streams.stream(name, 0).weighted(&weights);
            lab.answers.insert(name, index);
            let other = index.checked_sub(1);
            lab.effects
                .extend(other.and_then(|other| row.effects.get(other)));
        }
        for (id, row) in &self.unknowns {
            let weights: Vec<u32> = row.values.iter().map(|value| value.weight).collect();
            let mut index = streams.stream(id, 0).weighted(&weights);
            if let Some(answer) = row.values.get(index).filter(|answer| !answer.modelled) {
                lab.not_modelled.push(format!("{id} = {}", answer.name));
                index = 0;
            }
            lab.answers.insert(id, index);
            let answer = row.values.get(index);
            lab.effects
                .extend(answer.into_iter().flat_map(|answer| &answer.effects));
        }
        lab
    }
}

impl<'u> DrawnLab<'u> {
    /// The same lab with a mechanism switched off.
    #[must_use]
    pub fn without(&self, mechanism: &'u Mechanism) -> Self {
        let mut lab = self.clone();
        lab.effects.extend(&mechanism.effects);
        lab
    }

    /// What products' facts say here instead, by `product/key`; the last word holds.
    #[must_use]
    pub fn facts(&self) -> BTreeMap<&'u str, &'u toml::Value> {
        let facts = self.effects.iter().filter_map(|effect| match effect {
            Effect::Fact { name, value } => Some((name.as_str(), value)),
            _ => None,
        });
        facts.collect()
    }

    /// The hosts that have another processor, with its brand and clock.
    #[must_use]
    pub fn hosts(&self) -> BTreeMap<&'u ProductId, (&'u str, u64)> {
        let hosts = self.effects.iter().filter_map(|effect| match effect {
            Effect::Host {
                product,
                cpu_brand,
                cpu_khz,
            } => Some((product, (cpu_brand.as_str(), *cpu_khz))),
            _ => None,
        });
        hosts.collect()
    }

    /// The shelves of this lab, but for its hosts.
    ///
    /// # Errors
    /// The name of a fact that no product has.
    pub fn library(&self, library: &Library) -> Result<Library, String> {
        let facts = self.facts();
        let replaced = facts.iter().map(|(name, value)| {
            let mut fact = library
                .fact(name)
                .ok_or_else(|| (*name).to_owned())?
                .clone();
            fact.value = (*value).clone();
            fact.mark = Mark::Belief;
            fact.source.clear();
            Ok(((*name).to_owned(), fact))
        });
        let replaced: Result<Vec<_>, String> = replaced.collect();
        library.with_facts(&replaced?)
    }

    /// Gives hosts their processors. Shelves that remember other hosts' runs must not be used: see [`Library::apart`].
    ///
    /// # Errors
    /// The name of a product that has no host.
    pub fn set_hosts(&self, library: &mut Library) -> Result<(), String> {
        for (product, (brand, khz)) in self.hosts() {
            let mut known = library.lab.hosts.iter_mut();
            let host = known
                .find(|host| host.product == *product)
                .ok_or_else(|| product.to_string())?;
            brand.clone_into(&mut host.cpu_brand);
            host.cpu_khz = khz;
        }
        Ok(())
    }

    /// Whether the tools of a route are at hand: all of a route of later years must have been named.
    #[must_use]
    pub fn has_tools(&self, route: &Route) -> bool {
        let missing =
            |effect: &Effect| matches!(effect, Effect::Without { hop } if route.hops.contains(hop));
        let named = |wanted: &Hop| {
            let mut effects = self.effects.iter();
            effects.any(|effect| matches!(effect, Effect::With { hop } if hop == wanted))
        };
        let mut converters = route.hops.iter().filter(|hop| hop.is_converter());
        !self.effects.iter().any(|effect| missing(effect))
            && (!route.today || converters.all(named))
    }

    /// The scenario of a guest on a route in this lab. `mac` is the address the machine has at the source.
    #[must_use]
    pub fn scenario(&self, guest: &GuestId, route: &Route, mac: Mac) -> Scenario {
        let (source, target) = (route.source.as_str(), route.target.as_str());
        let mut scenario = Scenario::new(guest.as_str(), source, target, &route.id);
        for effect in &self.effects {
            place(effect, &mut scenario, route, mac);
        }
        // Whichever row an edit comes from, equal sets of edits are one disk with one name.
        scenario
            .edits
            .sort_by_cached_key(|edit| format!("{edit:?}"));
        scenario
    }
}

/// Puts one difference into a scenario that it concerns.
fn place(effect: &Effect, scenario: &mut Scenario, route: &Route, mac: Mac) {
    match effect {
        Effect::Guest {
            guest,
            source,
            edits,
        } if *guest == scenario.guest && concerns(source.as_ref(), &scenario.source) => {
            // Two answers may want the same change; the disk is changed once.
            for edit in edits {
                if !scenario.edits.contains(edit) {
                    scenario.edits.push(edit.clone());
                }
            }
        }
        Effect::Network { target, leads } if concerns(target.as_ref(), &scenario.target) => {
            scenario.lab.target_network = *leads;
        }
        Effect::TargetVm {
            guest,
            target,
            hop,
            nic_model,
            controller,
        } if concerns(guest.as_ref(), &scenario.guest)
            && concerns(target.as_ref(), &scenario.target)
            && hop.is_none_or(|hop| route.hops.last() == Some(&hop)) =>
        {
            let vm = &mut scenario.target_vm;
            vm.nic_model = nic_model.clone().or(vm.nic_model.take());
            vm.controller = controller.clone().or(vm.controller.take());
        }
        Effect::SourceVm { vcpus, memory_mib } => {
            scenario.source_vm.vcpus = *vcpus;
            scenario.source_vm.memory_mib = *memory_mib;
        }
        Effect::ForwardDelay { seconds } => scenario.lab.forward_delay_s = *seconds,
        Effect::KeepMac => scenario.target_vm.mac = Some(mac),
        Effect::Relax { name } => scenario.relax.push(name.clone()),
        _ => {}
    }
}

/// Whether something said of one (of all, when none is named) is said of this one.
fn concerns<T: PartialEq>(named: Option<&T>, this: &T) -> bool {
    named.is_none_or(|named| named == this)
}
