//! The options a kernel was built with, as distributions put them beside it: `/boot/config-<release>`.
//!
//! ```text
//! CONFIG_XEN_PLATFORM_PCI=y
//! CONFIG_XEN_NETDEV_FRONTEND=m
//! # CONFIG_HYPERV is not set
//! ```

use drylab_catalog::Witness;
use std::collections::BTreeMap;

/// Most options kept; kernels of the time have under 6,000.
const OPTIONS_MAX: usize = 20_000;

/// Options of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    path: String,
    options: BTreeMap<String, (String, u32)>,
}

impl KernelConfig {
    /// Reads the file; options that are not set have no entry.
    #[must_use]
    pub fn parse(path: &str, text: &str) -> Self {
        let option = |(line, number): (&str, u32)| {
            let (key, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
            Some((key.to_owned(), (value.to_owned(), number)))
        };
        let options = text.lines().zip(1_u32..).filter_map(option);
        Self {
            path: path.to_owned(),
            options: options.take(OPTIONS_MAX).collect(),
        }
    }

    /// Where an option is built in or built as a module, by its name without `CONFIG_`.
    #[must_use]
    pub fn built(&self, option: &str) -> Option<Witness> {
        let (value, line) = self.options.get(option)?;
        let says = format!("CONFIG_{option}={value}");
        matches!(value.as_str(), "y" | "m").then(|| Witness::file(&self.path, *line, says))
    }

    /// That an option is not built.
    #[must_use]
    pub fn lacks(&self, option: &str) -> Witness {
        Witness::file(&self.path, 0, format!("CONFIG_{option} is not set"))
    }
}

#[cfg(test)]
mod tests {
    use super::KernelConfig;

    #[test]
    fn an_option_is_built_in_or_as_a_module_and_said_with_its_line() {
        let text = "CONFIG_XEN=y\n# CONFIG_HYPERV is not set\nCONFIG_E1000=m\nCONFIG_NR_CPUS=64\n";
        let config = KernelConfig::parse("/boot/config-3.2.0", text);
        let line = |option| {
            config
                .built(option)
                .map(|found| (found.place.to_string(), found.says))
        };
        let place = |line| format!("/boot/config-3.2.0:{line}");
        assert_eq!(line("XEN"), Some((place(1), "CONFIG_XEN=y".to_owned())));
        assert_eq!(line("E1000"), Some((place(3), "CONFIG_E1000=m".to_owned())));
        assert_eq!(line("HYPERV"), None);
        assert_eq!(
            line("NR_CPUS"),
            None,
            "a number is neither built in nor a module"
        );
    }
}
