//! The settings of signatures, wherever they are set.

use clap::ValueEnum;
use mesh::auth::Signatures;

/// Whether something is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It is not
    #[default]
    Off,
    /// It is; what is not signed is accepted all the same, what is badly signed never
    Optional,
    /// It is, and must be
    Required,
}

impl From<Mode> for Signatures {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Optional => Self::Optional,
            Mode::Required => Self::Required,
        }
    }
}

/// Signatures of requests and of replies. They need `signing.crt` and `signing.key` beside the certificate of each
/// ingress, client and server (`lockstep certs issue ROLE ID --signing`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args, serde::Serialize, serde::Deserialize)]
pub(crate) struct Modes {
    /// Whether requests are signed, by ingresses and clients; the same everywhere. Without MODE: required
    #[arg(long = "request-signatures", value_enum, value_name = "MODE", num_args = 0..=1, default_value = "off", default_missing_value = "required")]
    pub(crate) requests: Mode,
    /// Whether replies are signed, by the servers; the same everywhere. Without MODE: required
    #[arg(long = "reply-signatures", value_enum, value_name = "MODE", num_args = 0..=1, default_value = "off", default_missing_value = "required")]
    pub(crate) replies: Mode,
}

impl Modes {
    /// As flags of a part.
    pub(crate) fn flags(self) -> [(&'static str, String); 2] {
        let name = |mode: Mode| super::adapter::name(&mode);
        [("request-signatures", name(self.requests)), ("reply-signatures", name(self.replies))]
    }

    /// Whether anything is signed by ingresses and clients, or by servers.
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}
