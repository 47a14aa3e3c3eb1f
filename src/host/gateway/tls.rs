//! TLS on the public address, beside plain HTTP for this machine itself: certificate and key are read again when their files change.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::CLIENT_IDLE;
use crate::host::HostError;
use crate::host::config::TlsFiles;

/// The files are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A client that takes longer to shake hands is let go.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The first byte of a TLS record that begins a handshake; no HTTP method begins with it.
const HANDSHAKE: u8 = 0x16;

/// What tells that a file is another one.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Certificate and key in use.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// Of the files when they were last looked into.
    seen: Mutex<Stamp>,
}

/// A connection after its beginning was looked at.
pub(super) enum Begun {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
    /// It ended, or made no sense.
    Gone,
}

impl Tls {
    pub(super) fn load(files: &TlsFiles) -> Result<Arc<Self>, HostError> {
        let seen = stamp(files);
        let unusable = |cause| {
            let message = format!("the certificate for TLS cannot be used: {cause}");
            HostError::invalid(message, "correct `tls` in host/settings.json, or its files")
        };
        let config = read(files).map_err(unusable)?;
        Ok(Arc::new(Self { files: files.clone(), config: ArcSwap::from_pointee(config), seen: Mutex::new(seen) }))
    }

    /// Reads the files again whenever they change; what cannot be used changes nothing.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            let tls = Arc::clone(&self);
            // Reading may wait for a disk. Only an end of the runtime keeps it from being done.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    fn look(&self) {
        let now = stamp(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(cert = %self.files.cert.display(), "new certificate");
            }
            // As a rule the other file is just being written, and the next look finds both.
            Err(cause) => tracing::warn!(cause, "the new certificate cannot be used; the old one stays"),
        }
    }

    /// Looks at the first byte: both kinds of clients use one port.
    pub(super) async fn begin(&self, stream: TcpStream) -> Begun {
        let mut first = [0];
        match tokio::time::timeout(CLIENT_IDLE, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == HANDSHAKE => {}
            Ok(Ok(1)) => return Begun::Plain(stream),
            _ => return Begun::Gone,
        }
        let handshake = TlsAcceptor::from(self.config.load_full()).accept(stream);
        match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
            Ok(Ok(stream)) => Begun::Secure(Box::new(stream)),
            _ => Begun::Gone,
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&files.cert, &files.key].map(of).to_vec()
}

fn read(files: &TlsFiles) -> Result<ServerConfig, String> {
    let in_file = |path: &PathBuf, why: String| format!("{}: {why}", path.display());
    let certs = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(|e| in_file(&files.cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| in_file(&files.key, e.to_string()))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = builder.with_no_client_auth().with_single_cert(certs, key);
    let mut config = config.map_err(|e| in_file(&files.cert, e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
