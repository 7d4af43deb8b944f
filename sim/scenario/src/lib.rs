//! The scenario: a value that contains every decision of a run; its TOML and token forms.
