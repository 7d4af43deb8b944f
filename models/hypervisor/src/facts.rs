//! Facts of a product, each with its evidence, and a record of which were used.

use drylab_catalog::{Mark, Place, ProductId, Witness};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// One fact.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Text, integer, boolean or list of texts.
    pub value: toml::Value,
    /// Quality of the evidence.
    pub mark: Mark,
    /// Where it was read; may be empty only for belief.
    #[serde(default)]
    pub source: String,
    /// The row of `quirks/` that says what comes of it, where one does.
    #[serde(default)]
    pub quirk: String,
}

/// A hypervisor with its console, as facts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Id.
    pub id: ProductId,
    /// Name for people.
    pub name: String,
    /// Its console's name.
    pub console: String,
    /// Facts by key.
    pub facts: BTreeMap<String, Fact>,
}

/// A fact that a mechanism needs and nobody wrote down: what depends on it cannot be assessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// `product/key`.
    pub fact: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fact {} is not known", self.fact)
    }
}

impl std::error::Error for Missing {}

/// A value with the witness that it stands in the product's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// Where it stands and how sure it is.
    pub witness: Witness,
    /// The quirk it is an instance of, where the file names one.
    pub quirk: Option<Witness>,
}

impl<T> Known<T> {
    /// The chain to cite: the quirk, then the fact.
    #[must_use]
    pub fn chain(&self) -> Vec<Witness> {
        self.quirk.iter().chain([&self.witness]).cloned().collect()
    }
}

/// A product's facts as one run sees them: reading one notes that it was used.
#[derive(Debug)]
pub struct Facts<'p> {
    product: &'p Product,
    used: RefCell<BTreeSet<&'p str>>,
}

impl Product {
    /// Reads a product file.
    ///
    /// # Errors
    /// The parser's message, or the key of a fact that claims evidence and names none.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let product: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match product
            .facts
            .iter()
            .find(|(_, fact)| fact.mark != Mark::Belief && fact.source.is_empty())
        {
            Some((key, fact)) => Err(format!(
                "fact {key} is marked {} and names no source",
                fact.mark
            )),
            None => Ok(product),
        }
    }

    /// A view that records use.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            product: self,
            used: RefCell::default(),
        }
    }
}

impl<'p> Facts<'p> {
    /// The product.
    #[must_use]
    pub fn product(&self) -> &'p Product {
        self.product
    }

    /// Keys read so far.
    #[must_use]
    pub fn used(&self) -> Vec<&'p str> {
        self.used.borrow().iter().copied().collect()
    }

    fn known<T>(
        &self,
        key: &str,
        read: impl Fn(&'p toml::Value) -> Option<T>,
    ) -> Result<Known<T>, Missing> {
        let missing = || Missing {
            fact: format!("{}/{key}", self.product.id),
        };
        let (key, fact) = self.product.facts.get_key_value(key).ok_or_else(missing)?;
        let value = read(&fact.value).ok_or_else(missing)?;
        self.used.borrow_mut().insert(key);
        let says = if fact.source.is_empty() {
            fact.value.to_string()
        } else {
            format!("{} ({})", fact.value, fact.source)
        };
        let place = Place::Fact(format!("{}/{key}", self.product.id));
        let quirk = Some(fact.quirk.as_str())
            .filter(|id| !id.is_empty())
            .map(Witness::quirk);
        Ok(Known {
            value,
            witness: Witness {
                place,
                says,
                mark: fact.mark,
            },
            quirk,
        })
    }

    /// A text.
    ///
    /// # Errors
    /// [`Missing`] when there is no such text.
    pub fn text(&self, key: &str) -> Result<Known<&'p str>, Missing> {
        self.known(key, toml::Value::as_str)
    }

    /// A number.
    ///
    /// # Errors
    /// [`Missing`] when there is no such number.
    pub fn number(&self, key: &str) -> Result<Known<u64>, Missing> {
        self.known(key, |value| {
            value
                .as_integer()
                .and_then(|number| u64::try_from(number).ok())
        })
    }

    /// Yes or no.
    ///
    /// # Errors
    /// [`Missing`] when there is no such answer.
    pub fn flag(&self, key: &str) -> Result<Known<bool>, Missing> {
        self.known(key, toml::Value::as_bool)
    }

    /// A list of texts.
    ///
    /// # Errors
    /// [`Missing`] when there is no such list.
    pub fn list(&self, key: &str) -> Result<Known<Vec<&'p str>>, Missing> {
        self.known(key, |value| {
            value.as_array()?.iter().map(toml::Value::as_str).collect()
        })
    }
}

/// The products this program knows, by id.
///
/// # Panics
/// When a product file that is part of the program does not parse.
#[must_use]
pub fn products() -> BTreeMap<ProductId, Product> {
    [
        include_str!("../products/esxi-5.0.0.toml"),
        include_str!("../products/hyperv-2008r2.toml"),
        include_str!("../products/kvm-centos-6.3.toml"),
        include_str!("../products/xenserver-6.0.2.toml"),
    ]
    .into_iter()
    .map(|text| Product::from_toml(text).expect("product files are part of the program and parse"))
    .map(|product| (product.id.clone(), product))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{Product, products};

    #[test]
    fn a_fact_with_a_mark_above_belief_names_its_source() {
        let text = "id = \"x\"\nname = \"X\"\nconsole = \"C\"\n[facts]\na = { value = 1, mark = \"source\" }\n";
        assert!(
            Product::from_toml(text)
                .unwrap_err()
                .contains("names no source")
        );
        assert_eq!(products().len(), 4);
    }

    #[test]
    fn a_fact_read_is_a_fact_used_and_a_missing_one_is_named() {
        let products = products();
        let esxi = &products[&"esxi-5.0.0".into()];
        let facts = esxi.facts();
        assert_eq!(
            facts.number("cpu.vcpus-max").map(|known| known.value),
            Ok(32)
        );
        assert_eq!(facts.used(), ["cpu.vcpus-max"]);
        assert_eq!(
            facts.text("no.such").unwrap_err().to_string(),
            "fact esxi-5.0.0/no.such is not known"
        );
    }
}
