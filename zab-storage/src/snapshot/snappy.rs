//! The stream format of snappy-java: a header, then blocks of {length, raw snappy block}.

use std::io::{self, Read, Write};

const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// The first bytes, by which the form is recognised.
pub(super) const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Uncompressed bytes in a block that we write, as snappy-java does.
const BLOCK_LEN: usize = 32 << 10;
/// Bound of what is believed of a block's length when reading.
const BLOCK_LEN_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct SnappyWriter<W> {
    out: W,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl<W: Write> SnappyWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self { out, block: Vec::with_capacity(BLOCK_LEN), encoder: snap::raw::Encoder::new() })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        Ok(self.out)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = self.encoder.compress_vec(&self.block).map_err(io::Error::other)?;
        let len = u32::try_from(packed.len()).expect("a block is small");
        self.out.write_all(&len.to_be_bytes())?;
        self.out.write_all(&packed)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for SnappyWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK_LEN - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK_LEN {
            self.write_block()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct SnappyReader<R> {
    input: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    decoder: snap::raw::Decoder,
}

impl<R: Read> SnappyReader<R> {
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut header = [0; HEADER.len()];
        input.read_exact(&mut header)?;
        if header[..8] != MAGIC {
            return Err(invalid("not a snappy stream"));
        }
        Ok(Self {
            input,
            packed: Vec::new(),
            block: Vec::new(),
            at: 0,
            decoder: snap::raw::Decoder::new(),
        })
    }

    /// Reads the next block; false at the end of the stream.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut len = [0; 4];
        if self.input.read(&mut len[..1])? == 0 {
            return Ok(false);
        }
        self.input.read_exact(&mut len[1..])?;
        let len = u32::from_be_bytes(len) as usize;
        if len == 0 || len > BLOCK_LEN_MAX {
            return Err(invalid("bad snappy block length"));
        }
        self.packed.resize(len, 0);
        self.input.read_exact(&mut self.packed)?;
        let plain = snap::raw::decompress_len(&self.packed).map_err(io::Error::other)?;
        if plain > BLOCK_LEN_MAX {
            return Err(invalid("bad snappy block length"));
        }
        self.block.resize(plain, 0);
        self.decoder.decompress(&self.packed, &mut self.block).map_err(io::Error::other)?;
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
