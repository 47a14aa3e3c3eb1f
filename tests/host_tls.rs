//! TLS on the public port, beside plain HTTP for this machine, with certificates that change under way.

mod host_support;

use std::path::Path;
use std::sync::Arc;

use host_support::{Home, get, switch_to};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate::host::HostClient;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// For tests only: self-signed, for localhost.
fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(fixture(&format!("{name}.crt")).as_bytes()).unwrap()
}

/// Trusts exactly this certificate.
async fn connect(client: &HostClient, name: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(name)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(client.status().await.unwrap().public_addr.unwrap()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(path).header("host", "localhost").body(Empty::new()).unwrap()
}

async fn text(response: hyper::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn install(home: &Home, name: &str) {
    for kind in ["crt", "key"] {
        // As renewing tools do: a new file in the place of the old one.
        let new = home.path(&format!("new.{kind}"));
        std::fs::write(&new, fixture(&format!("{name}.{kind}"))).unwrap();
        std::fs::rename(new, home.path(&format!("tls.{kind}"))).unwrap();
    }
}

#[tokio::test]
async fn both_protocols_by_tls_and_a_new_certificate_without_a_restart() {
    let home = Home::new();
    install(&home, "first");
    let files = serde_json::json!({"tls": {"cert": home.path("tls.crt"), "key": home.path("tls.key")}});
    std::fs::write(home.config.home.join("host/settings.json"), files.to_string()).unwrap();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();

    assert_eq!(get(&client, "/version").await, "v1", "plain, from this machine");
    let stream = connect(&client, "first", b"http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let seen: serde_json::Value =
        serde_json::from_str(&text(sender.send_request(request("/iris/headers")).await.unwrap()).await).unwrap();
    assert_eq!(seen["headers"]["x-forwarded-proto"], "https");

    let stream = connect(&client, "first", b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let over_h2 = h2.send_request(request("https://localhost/iris/version")).await.unwrap();
    assert_eq!(text(over_h2).await, "v1");

    install(&home, "second");
    home.until("the new certificate is used", async || connect(&client, "second", b"h2").await.ok().map(drop)).await;
    assert!(connect(&client, "first", b"h2").await.is_err());
    assert_eq!(text(sender.send_request(request("/iris/version")).await.unwrap()).await, "v1", "the old connection");

    std::fs::write(home.path("tls.crt"), "no certificate").unwrap();
    home.until("it is said", async || home.log().contains("cannot be used").then_some(())).await;
    connect(&client, "second", b"h2").await.unwrap();
}

#[tokio::test]
async fn without_its_files_the_daemon_does_not_serve_in_the_clear() {
    let home = Home::with_settings(r#"{"tls": {"cert": "/nowhere/tls.crt", "key": "/nowhere/tls.key"}}"#);
    let error = tidegate::host::ensure_started(&home.config).await.unwrap_err().to_port();
    assert_eq!(error.code, "invalid_host_request");
    assert!(error.message.contains("/nowhere/tls.crt"), "{error:?}");
}
