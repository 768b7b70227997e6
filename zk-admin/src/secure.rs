//! HTTPS: a stream whose bytes go through a [`Cipher`].

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use runtime_core::{Cipher, CipherError, Expects, PIECE_LEN_MAX};
use smol::future::{or, poll_fn};
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, Timer};

use crate::options::Https;

/// Bytes that are read from the network, or written to it, at a time: a TLS record and what is around it.
const BUF_LEN: usize = PIECE_LEN_MAX + 1024;
/// The first byte of a handshake. No request of HTTP begins so.
const HANDSHAKE: u8 = 0x16;

/// The handshake of a connection, if it begins one. Whoever takes too long, or is trusted by nobody, gets an
/// error instead.
pub(crate) async fn begin(
    https: &Https,
    stream: Async<TcpStream>,
    remote: SocketAddr,
) -> io::Result<Stream<Async<TcpStream>>> {
    if https.expects != Expects::Handshake {
        let mut first = [0];
        let limit = https.limits.detection;
        let seen = or(stream.peek(&mut first), late(limit, "the first byte")).await?;
        if https.expects == Expects::Plain || seen == 0 || first != [HANDSHAKE] {
            return Ok(Stream::plain(stream));
        }
    }
    let cipher = (https.accept)(remote).map_err(failed)?;
    let mut stream = Stream::secured(stream, cipher);
    let shaking = poll_fn(|cx| stream.poll_handshake(cx));
    let shaken = or(shaking, late(https.limits.handshake, "the handshake")).await;
    (https.happened)(shaken.is_ok());
    shaken.map(|()| stream)
}

/// An error after so long.
async fn late<T>(within: Duration, what: &str) -> io::Result<T> {
    Timer::after(within).await;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} took more than {within:?}")))
}

fn failed(error: CipherError) -> io::Error {
    io::Error::other(error)
}

/// A stream, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    stream: S,
    cipher: Option<Box<dyn Cipher>>,
    /// From the network, and not taken by the cipher.
    sealed: Vec<u8>,
    /// Decrypted, and read up to the number.
    open: (Vec<u8>, usize),
    /// For the network, and written up to the number.
    out: (Vec<u8>, usize),
}

impl<S> Stream<S> {
    pub(crate) fn plain(stream: S) -> Self {
        Self {
            stream,
            cipher: None,
            sealed: Vec::new(),
            open: Default::default(),
            out: Default::default(),
        }
    }

    fn secured(stream: S, cipher: Box<dyn Cipher>) -> Self {
        Self { cipher: Some(cipher), ..Self::plain(stream) }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.cipher.is_some()
    }

    /// Of the certificate that the other side has shown.
    pub(crate) fn subject(&self) -> Option<String> {
        self.cipher.as_ref().and_then(|cipher| cipher.subject())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.cipher.as_ref().is_some_and(|cipher| cipher.is_handshaking()) {
            if ready!(self.poll_more(cx))? == 0 {
                let text = "it went away during the handshake";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
        self.poll_drain(cx)
    }

    /// Reads from the network and decrypts; returns how many bytes came, none at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // If the network takes nothing at the moment, what comes from it is read all the same.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        let Some(cipher) = &mut self.cipher else { return Poll::Ready(Ok(0)) };
        let mut buf = [0; BUF_LEN];
        let n = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        self.sealed.extend_from_slice(&buf[..n]);
        while !self.sealed.is_empty() {
            match cipher.read(&self.sealed, &mut self.open.0) {
                Ok(0) => {
                    let text = "it sends more than a record of TLS may have";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Ok(taken) => drop(self.sealed.drain(..taken)),
                Err(error) => {
                    // The other side is told, as far as the network takes it at once.
                    let _ = self.poll_drain(cx);
                    return Poll::Ready(Err(failed(error)));
                }
            }
        }
        let _ = self.poll_drain(cx)?;
        Poll::Ready(Ok(n))
    }

    /// Ready when nothing encrypted waits for the network.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(cipher) = &mut self.cipher else { return Poll::Ready(Ok(())) };
        let (out, written) = &mut self.out;
        loop {
            while *written < out.len() {
                let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &out[*written..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *written += n;
            }
            *written = 0;
            out.resize(BUF_LEN, 0);
            let n = if cipher.wants_write() { cipher.write(out) } else { 0 };
            out.truncate(n);
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cipher.is_none() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        loop {
            let (open, read) = &mut this.open;
            if *read < open.len() {
                let n = buf.len().min(open.len() - *read);
                buf[..n].copy_from_slice(&open[*read..*read + n]);
                *read += n;
                return Poll::Ready(Ok(n));
            }
            open.clear();
            *read = 0;
            let has_ended = this.cipher.as_ref().is_some_and(|cipher| cipher.has_ended());
            if has_ended || ready!(this.poll_more(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One record at a time: nothing piles up for a reader that is slow.
        ready!(this.poll_drain(cx))?;
        let Some(cipher) = &mut this.cipher else {
            return Pin::new(&mut this.stream).poll_write(cx, buf);
        };
        let n = buf.len().min(PIECE_LEN_MAX);
        cipher.seal(&buf[..n]).map_err(failed)?;
        let _ = this.poll_drain(cx)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(cipher) = &mut this.cipher {
            cipher.end();
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_close(cx)
    }
}
