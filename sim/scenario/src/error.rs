//! Why a text is no scenario.

/// A scenario or token that cannot be used, with the reason.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not the TOML of a scenario; place and reason as the parser gives them.
    #[error("scenario: {0}")]
    Toml(String),
    /// A version this program does not know.
    #[error(
        "scenario format {0} is not known here (1 is); use the version of drylab that wrote it"
    )]
    Version(u64),
    /// Not a token, or damaged on the way.
    #[error("token: {0}")]
    Token(String),
    /// A value outside its bounds.
    #[error("scenario: {field} is {value}, allowed is {bound}")]
    Bound {
        /// Name of the field.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        bound: String,
    },
}
