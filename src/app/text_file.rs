//! Files that a person names: read whole, but only ordinary ones, and only so much.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not there.
    #[error("there is no such file")]
    Missing,
    /// It is a folder.
    #[error("it is a folder")]
    Folder,
    /// A pipe, a socket or a device: reading one may wait for ever, or never end.
    #[error("it is no ordinary file")]
    NotOrdinary,
    /// It is larger than anything that is meant.
    #[error("it has more than {most} bytes")]
    TooLarge {
        /// As much as is read.
        most: u64,
    },
    /// It is no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// The system refuses.
    #[error("{0}")]
    Refused(io::Error),
}

impl Unreadable {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing => "mend the path; a relative one counts from the current folder",
            Self::Folder => "name a file in it",
            Self::NotOrdinary => "write it into a file first",
            Self::TooLarge { .. } => "make it smaller",
            Self::NotUtf8 => "save it as UTF-8",
            Self::Refused(_) => "mend its rights",
        }
    }
}

/// The text of an ordinary file of at most `most` bytes.
pub fn read_text(path: &Path, most: u64) -> Result<String, Unreadable> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Refused(error),
    };
    // Opening a pipe without this would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(|error| {
        // A socket cannot be opened at all.
        if error.raw_os_error() == Some(nix::libc::ENXIO) { Unreadable::NotOrdinary } else { refused(error) }
    })?;
    // Of what was opened: another file may have taken the name meanwhile.
    let meta = file.metadata().map_err(refused)?;
    if meta.is_dir() {
        return Err(Unreadable::Folder);
    }
    if !meta.is_file() {
        return Err(Unreadable::NotOrdinary);
    }
    let mut bytes = Vec::new();
    // Counted while it is read: it may grow, and files of /proc say that they are empty.
    file.take(most + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > most {
        return Err(Unreadable::TooLarge { most });
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ordinary_text_of_a_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("text"), "12345").unwrap();
        std::fs::write(at("bytes"), [0xff, 0xfe]).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(read_text(&at("text"), 5).unwrap(), "12345");
        assert!(matches!(read_text(&at("text"), 4), Err(Unreadable::TooLarge { most: 4 })));
        assert!(matches!(read_text(&at("bytes"), 5), Err(Unreadable::NotUtf8)));
        assert!(matches!(read_text(&at("none"), 5), Err(Unreadable::Missing)));
        assert!(matches!(read_text(dir.path(), 5), Err(Unreadable::Folder)));
        for odd in [at("fifo"), at("socket"), "/dev/zero".into()] {
            assert!(matches!(read_text(&odd, 5), Err(Unreadable::NotOrdinary)), "{}", odd.display());
        }
        assert!(!read_text(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }
}
