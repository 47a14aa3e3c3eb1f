//! Writes the `.xz` container with its data stored, not compressed: BentoML's archives are `.tar.xz`, model weights hardly shrink,
//! and compressing them takes longer than the whole release.
//!
//! Format: <https://tukaani.org/xz/xz-file-format.txt>; one block, LZMA2 with uncompressed chunks only, CRC32 as check.

use std::io::{self, Write};

use flate2::Crc;

/// Stream flags: the check is CRC32.
const FLAGS: [u8; 2] = [0x00, 0x01];
/// Largest uncompressed LZMA2 chunk.
const CHUNK_BYTES: usize = 1 << 16;
/// Size of the block header that [`XzStored::new`] writes.
const BLOCK_HEADER_BYTES: u64 = 12;

/// A writer of stored `.xz`.
pub(super) struct XzStored<W: Write> {
    out: W,
    chunk: Vec<u8>,
    check: Crc,
    compressed_bytes: u64,
    uncompressed_bytes: u64,
    first_chunk: bool,
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// The format's variable-length integers: seven bits a byte, low ones first.
fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

impl<W: Write> XzStored<W> {
    /// Begins the stream.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&[0xFD, b'7', b'z', b'X', b'Z', 0x00])?;
        out.write_all(&FLAGS)?;
        out.write_all(&crc32(&FLAGS))?;
        // Header size (in words, less one), one filter, LZMA2 with one byte of properties: the smallest dictionary; padding.
        let header = [0x02, 0x00, 0x21, 0x01, 0x00, 0x00, 0x00, 0x00];
        out.write_all(&header)?;
        out.write_all(&crc32(&header))?;
        let chunk = Vec::with_capacity(CHUNK_BYTES);
        Ok(Self { out, chunk, check: Crc::new(), compressed_bytes: 0, uncompressed_bytes: 0, first_chunk: true })
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let size = (self.chunk.len() - 1) as u16;
        let control = if self.first_chunk { 0x01 } else { 0x02 };
        self.first_chunk = false;
        self.out.write_all(&[control])?;
        self.out.write_all(&size.to_be_bytes())?;
        self.out.write_all(&self.chunk)?;
        self.check.update(&self.chunk);
        self.compressed_bytes += 3 + self.chunk.len() as u64;
        self.uncompressed_bytes += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    /// Ends the stream and gives the inner writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_chunk()?;
        self.out.write_all(&[0x00])?;
        self.compressed_bytes += 1;
        self.out.write_all(&[0; 3][..padding(self.compressed_bytes)])?;
        self.out.write_all(&self.check.sum().to_le_bytes())?;
        let mut index = vec![0x00, 0x01];
        varint(BLOCK_HEADER_BYTES + self.compressed_bytes + 4, &mut index);
        varint(self.uncompressed_bytes, &mut index);
        index.resize(index.len() + padding(index.len() as u64), 0);
        index.extend(crc32(&index));
        self.out.write_all(&index)?;
        let mut footer = ((index.len() / 4 - 1) as u32).to_le_bytes().to_vec();
        footer.extend(FLAGS);
        self.out.write_all(&crc32(&footer))?;
        self.out.write_all(&footer)?;
        self.out.write_all(b"YZ")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Zero bytes up to a multiple of four.
fn padding(bytes: u64) -> usize {
    (4 - bytes as usize % 4) % 4
}

impl<W: Write> Write for XzStored<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python's own decoder reads what we write, at every size around a chunk's edge.
    #[test]
    fn pythons_lzma_reads_it() {
        for size in [0, 1, 3, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 300_000] {
            let data: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let mut xz = XzStored::new(Vec::new()).unwrap();
            xz.write_all(&data).unwrap();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.xz"), xz.finish().unwrap()).unwrap();
            std::fs::write(folder.path().join("a"), &data).unwrap();
            let program = "import lzma; assert lzma.open('a.xz').read() == open('a', 'rb').read()";
            let checked =
                std::process::Command::new("python3").args(["-c", program]).current_dir(folder.path()).output();
            let checked = checked.unwrap();
            assert!(checked.status.success(), "{size}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
