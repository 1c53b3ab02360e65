//! Configuration: read from an ini file, a TOML file or the environment, validated once into an immutable value.
//!
//! [`settings`] is the one table of settings; whatever reads, shows or documents them goes through it. A source
//! ([`ini`], [`toml`], [`mod@env`]) yields [`raw`] keys and values with their origin; [`mod@build`] makes a [`Config`] of
//! them, or an [`error::ConfigError`] that shows the place and a way out. [`load`] does both. [`effective`] says which of several
//! values that may be given for a setting holds.

pub mod access;
pub mod build;
pub mod connstr;
pub mod effective;
pub mod env;
pub mod error;
pub mod ini;
pub mod load;
pub mod mask;
pub mod model;
pub mod raw;
pub mod reference;
pub mod settings;
pub mod toml;
pub mod url;
pub mod value;

pub use access::Access;
pub use effective::{PoolSettings, Timeouts};
pub use error::ConfigError;
pub use model::{Config, DatabaseConfig, Loaded, PeerConfig, Source, UserConfig};
pub use settings::Settings;
pub use value::{AuthType, Consistency, LoadBalance, PoolMode, TlsMode};
