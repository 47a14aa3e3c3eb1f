//! Where a host daemon lives and how it is tuned.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::HostError;
use super::routes::check_model;

/// What a caller chooses when it starts, or looks for, the host daemon of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The home that the daemon serves; one daemon per home.
    pub home: PathBuf,
    /// Where the public endpoint listens. `None`: the remembered address, else 127.0.0.1:7311 or the next free port up to 7399.
    /// Port 0 means any free port, remembered from then on.
    pub public_addr: Option<SocketAddr>,
    /// The `tidegate` binary that has the hidden commands `host-keeper` and `host-daemon`.
    pub exe: PathBuf,
}

impl HostConfig {
    /// The daemon of `home`, run by this very program.
    pub fn new(home: impl Into<PathBuf>) -> Result<Self, HostError> {
        let exe = std::env::current_exe().map_err(HostError::io("finding this program's own path"))?;
        Ok(Self { home: home.into(), public_addr: None, exe })
    }

    /// The files of this home; makes the home and resolves it, so that two spellings of one home are one home.
    pub fn paths(&self) -> Result<HostPaths, HostError> {
        HostPaths::prepare(&self.home)
    }
}

/// The files that the daemon keeps under its home.
#[derive(Debug, Clone)]
pub struct HostPaths {
    /// The home, canonical.
    pub home: PathBuf,
    /// `HOME/host`.
    pub dir: PathBuf,
}

impl HostPaths {
    fn prepare(home: &Path) -> Result<Self, HostError> {
        let dir = home.join("host");
        std::fs::create_dir_all(&dir).map_err(HostError::io(format!("creating {}", dir.display())))?;
        restrict(&dir)?;
        let home = home.canonicalize().map_err(HostError::io(format!("resolving {}", home.display())))?;
        Ok(Self { dir: home.join("host"), home })
    }

    /// Slots, routes, fences, public address.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }
    /// Output of keeper and daemon.
    pub fn log(&self) -> PathBuf {
        self.dir.join("host.log")
    }
    /// Held while a client starts the daemon.
    pub fn start_lock(&self) -> PathBuf {
        self.dir.join("start.lock")
    }
    /// Held by the keeper as long as it lives.
    pub fn keeper_lock(&self) -> PathBuf {
        self.dir.join("keeper.lock")
    }
    /// Held by the daemon as long as it lives.
    pub fn daemon_lock(&self) -> PathBuf {
        self.dir.join("daemon.lock")
    }
    /// Says where the admin socket is: whoever started the daemon may have had another XDG_RUNTIME_DIR than who asks.
    pub fn socket_pointer(&self) -> PathBuf {
        self.dir.join("admin-socket")
    }
    /// Why the keeper could not start, for the one who started it.
    pub fn start_error(&self) -> PathBuf {
        self.dir.join("start-error.json")
    }
    /// A line for each answer, where [`Settings::access_log`] says so.
    pub fn access_log(&self) -> PathBuf {
        self.dir.join("access.log")
    }
    /// Optional tuning, see [`Settings`].
    pub fn settings(&self) -> PathBuf {
        self.dir.join("settings.json")
    }
    /// A short name of this home, for paths that must stay below the 108 bytes of a unix socket address.
    pub fn short_hash(&self) -> String {
        let digest = Sha256::digest(self.home.as_os_str().as_encoded_bytes());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Only we may look: the state names programs and environments.
fn restrict(dir: &Path) -> Result<(), HostError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(HostError::io(format!("restricting {}", dir.display())))
}

/// Tuning of one home, read from `HOME/host/settings.json` when the daemon starts; every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a request waits for a healthy slot before it is answered 503.
    pub hold_timeout_ms: u64,
    /// How many requests may wait at once. 1024: each costs a few KB and one connection of the client.
    pub hold_max: usize,
    /// A slot's log is rotated beyond this size.
    pub slot_log_max_bytes: u64,
    /// How long `down` lets requests end, and then each slot, before SIGKILL.
    pub stop_grace_ms: u64,
    /// A larger body of a request is answered 413. It is never held in memory, so this guards slots rather than the gateway.
    pub max_body_bytes: u64,
    /// A larger head of a request is answered 431; at least 8192.
    pub max_header_bytes: usize,
    /// A head with more headers is answered 431.
    pub max_headers: usize,
    /// Connections of clients at once; further ones are answered 503. One costs a descriptor, and 6 KB before its first request, 40 KB after.
    pub max_connections: usize,
    /// A request that is not answered completely within this time is ended: 504, or its answer breaks off. Streams of events and
    /// websockets may go on. Without it a request takes as long as its slot takes.
    pub request_timeout_ms: Option<u64>,
    /// How long websockets, and other changes of protocol, may go on at a slot that is drained; then the gateway ends them.
    pub websocket_grace_ms: u64,
    /// Models by host name, in lower case and without a port: `{"iris.example": "iris"}`. Their paths have no prefix. Every model is also
    /// served by path.
    pub hosts: BTreeMap<String, String>,
    /// With it the public address speaks TLS with everybody, and plain HTTP with this machine only. The files are read again when they
    /// change.
    pub tls: Option<TlsFiles>,
    /// Whether each answer is written to `HOME/host/access.log`.
    pub access_log: bool,
    /// The access log is rotated beyond this size.
    pub access_log_max_bytes: u64,
}

/// Files of a certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// hyper reads heads into a buffer that is never smaller.
const LEAST_HEADER_BYTES: usize = 8192;

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_timeout_ms: 10_000,
            hold_max: 1024,
            slot_log_max_bytes: 10 * 1024 * 1024,
            stop_grace_ms: 10_000,
            max_body_bytes: 1024 * 1024 * 1024,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_connections: 12_000,
            request_timeout_ms: None,
            websocket_grace_ms: 20_000,
            hosts: BTreeMap::new(),
            tls: None,
            access_log: false,
            access_log_max_bytes: 50 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// Reads the file; a missing one means the defaults, an unknown key is an error.
    pub fn load(path: &Path) -> Result<Self, HostError> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| e.to_string())
                .and_then(Self::checked)
                .map_err(|cause| HostError::StateCorrupt { path: path.to_owned(), cause }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(HostError::io(format!("reading {}", path.display()))(e)),
        }
    }

    fn checked(self) -> Result<Self, String> {
        if self.max_header_bytes < LEAST_HEADER_BYTES {
            return Err(format!("max_header_bytes is at least {LEAST_HEADER_BYTES}"));
        }
        if self.max_connections == 0 || self.max_headers == 0 {
            return Err("max_connections and max_headers are at least 1".to_owned());
        }
        for (host, model) in &self.hosts {
            check_model(model).map_err(|e| e.to_string())?;
            if host.is_empty() || host.contains([':', '/']) || host.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err(format!("{host:?} is no host name in lower case without a port"));
            }
        }
        Ok(self)
    }
}
