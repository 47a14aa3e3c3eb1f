//! The ports' implementations, one folder each. Adapters know the ports and the machine, and nothing of graphs, nodes or stores.

pub mod bentoml;
pub mod command;
pub mod http;
pub mod local;
pub mod local_registry;
pub mod machine;
pub mod oidc;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod uv;

mod files;
mod process;
mod secret_value;

pub use secret_value::secret_of;
