//! What nobody knows of the lab: facts that are belief, and what the report leaves open, each with values that are
//! plausible, their weights and why. A drawn lab has one value of each.

use drylab_catalog::{GuestId, Mac, Mark, ProductId};
use drylab_kernel::Streams;
use drylab_pipeline::{Hop, Library, ProductFact};
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
}

/// A fact with its plausible values; the first is what the product's file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactRow {
    values: Vec<Weighted>,
    reason: String,
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
    /// A tool is not at hand: routes with it are not tried.
    Without {
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
pub struct DrawnLab {
    /// By unknown (`product/key` for facts): the index of its answer.
    pub answers: BTreeMap<String, usize>,
    effects: Vec<Effect>,
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
        let read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
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
        Ok(read)
    }

    /// Names of the facts that have a row, with their first value.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &toml::Value)> {
        self.facts
            .iter()
            .filter_map(|(name, row)| Some((name.as_str(), &row.values.first()?.value)))
    }

    /// Questions other than facts, by id.
    pub fn questions(&self) -> impl Iterator<Item = (&str, &Unknown)> {
        self.unknowns.iter().map(|(id, row)| (id.as_str(), row))
    }

    /// What can be switched off, by id.
    pub fn mechanisms(&self) -> impl Iterator<Item = (&str, &Mechanism)> {
        self.mechanisms.iter().map(|(id, row)| (id.as_str(), row))
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
    pub fn draw(&self, seed: u64) -> DrawnLab {
        let streams = Streams::new(seed);
        let mut lab = DrawnLab::default();
        for (name, row) in &self.facts {
            let weights: Vec<u32> = row.values.iter().map(|value| value.weight).collect();
            let index = streams.stream(name, 0).weighted(&weights);
            lab.answers.insert(name.clone(), index);
            let value = row.values.get(index).filter(|_| index > 0);
            lab.effects.extend(value.map(|drawn| Effect::Fact {
                name: name.clone(),
                value: drawn.value.clone(),
            }));
        }
        for (id, row) in &self.unknowns {
            let weights: Vec<u32> = row.values.iter().map(|value| value.weight).collect();
            let index = streams.stream(id, 0).weighted(&weights);
            lab.answers.insert(id.clone(), index);
            let answer = row.values.get(index);
            lab.effects
                .extend(answer.into_iter().flat_map(|answer| answer.effects.clone()));
        }
        lab
    }
}

impl DrawnLab {
    /// The same lab with a mechanism switched off.
    #[must_use]
    pub fn without(&self, mechanism: &Mechanism) -> Self {
        let mut lab = self.clone();
        lab.effects.extend(mechanism.effects.iter().cloned());
        lab
    }

    /// The shelves of this lab.
    ///
    /// # Errors
    /// The name of a fact that no product has.
    pub fn library(&self, library: &Library) -> Result<Library, String> {
        let facts: Vec<(String, ProductFact)> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Fact { name, value } => {
                    let quirk = library
                        .fact(name)
                        .map_or_else(String::new, |fact| fact.quirk.clone());
                    let fact = ProductFact {
                        value: value.clone(),
                        mark: Mark::Belief,
                        source: String::new(),
                        quirk,
                    };
                    Some((name.clone(), fact))
                }
                _ => None,
            })
            .collect();
        library.with_facts(&facts)
    }

    /// Whether the tools of a route are at hand.
    #[must_use]
    pub fn has_tools(&self, hops: &[Hop]) -> bool {
        !self
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Without { hop } if hops.contains(hop)))
    }

    /// Puts a scenario into this lab. `mac` is the address the machine has at the source.
    pub fn place(&self, scenario: &mut Scenario, mac: Mac) {
        for effect in &self.effects {
            match effect {
                Effect::Guest {
                    guest,
                    source,
                    edits,
                } if *guest == scenario.guest
                    && source
                        .as_ref()
                        .is_none_or(|source| *source == scenario.source) =>
                {
                    scenario.edits.extend(edits.iter().cloned());
                }
                Effect::Network { target, leads }
                    if target
                        .as_ref()
                        .is_none_or(|target| *target == scenario.target) =>
                {
                    scenario.lab.target_network = *leads;
                }
                Effect::KeepMac => scenario.target_vm.mac = Some(mac),
                Effect::Relax { name } => scenario.relax.push(name.clone()),
                _ => {}
            }
        }
    }
}
