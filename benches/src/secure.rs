//! TLS for a load: the client's side, and the configuration of servers that have a port for it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Where the certificates are: the test data of `zab-tls`, with EC keys.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-tls/tests/data").join(name)
}

/// What a client needs to connect to a server of [`lines`].
///
/// # Errors
/// If the CA's certificate cannot be read.
pub fn client() -> io::Result<Arc<ClientConfig>> {
    let ca = CertificateDer::from_pem_file(data("ca.pem")).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(io::Error::other)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Lines of a `zoo.cfg` for a secure port that asks no client for a certificate: the same for ours and for Apache's,
/// which needs Netty for it, and then has both ports from it.
#[must_use]
pub fn lines(port: u16) -> String {
    format!(
        "secureClientPort={port}\nssl.keyStore.location={}\nssl.keyStore.password=changeit\n\
         ssl.trustStore.location={}\nssl.trustStore.password=changeit\nssl.clientAuth=none\n\
         serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n",
        data("keytool.p12").display(),
        data("trust.p12").display(),
    )
}

/// A connection with TLS or without.
#[derive(Debug)]
pub enum Stream<S: Read + Write> {
    /// Without.
    Plain(S),
    /// With it.
    Secure(Box<StreamOwned<ClientConnection, S>>),
}

impl Stream<TcpStream> {
    /// Shakes hands, if there is something to do it with.
    ///
    /// # Errors
    /// If that fails.
    pub fn begin(stream: TcpStream, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self::Secure(Box::new(stream)))
    }
}

impl<S: Read + Write> Stream<S> {
    /// The socket.
    pub fn socket(&mut self) -> &mut S {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => &mut stream.sock,
        }
    }

    /// The same on another kind of socket.
    pub fn map<T: Read + Write>(self, socket: impl FnOnce(S) -> T) -> Stream<T> {
        match self {
            Self::Plain(stream) => Stream::Plain(socket(stream)),
            Self::Secure(stream) => {
                let StreamOwned { conn, sock } = *stream;
                Stream::Secure(Box::new(StreamOwned::new(conn, socket(sock))))
            }
        }
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Secure(stream) => stream.read(buf),
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Secure(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}
