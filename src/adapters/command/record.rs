//! What is remembered of a program's run, so that whoever comes after a crash knows whether it ran, how it ended, and what to end.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::files;
use crate::ports::{ProgramEnd, Purpose};

/// One run's file. It begins before the program does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "state", rename_all = "snake_case")]
pub(super) enum Record {
    /// It runs, or was cut off together with us.
    Running {
        /// Its process group.
        group: i32,
        /// The boot that the group's number belongs to.
        boot_id: String,
    },
    /// It did its work.
    Done {
        /// How it ended.
        end: ProgramEnd,
    },
    /// It said that it failed, or could not be started.
    Failed,
    /// It was ended in the middle.
    CutOff {
        /// How.
        why: String,
    },
}

impl Record {
    pub fn running(group: i32) -> Self {
        Self::Running { group, boot_id: boot_id() }
    }

    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        files::read_json(path)
    }

    /// Durable when this returns.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::write_json(path, self)
    }
}

/// Empty where the system does not tell it.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Where the records of a thread are.
pub(super) fn folder(root: &Path, thread: &str) -> PathBuf {
    root.join(file_name(thread))
}

/// Where the record of one use is.
pub(super) fn path(root: &Path, thread: &str, token: &str, purpose: Purpose) -> PathBuf {
    folder(root, thread).join(format!("{}.{}.json", file_name(token), purpose.word()))
}

/// A name that is a file's name and nothing else, whoever chose it.
fn file_name(name: &str) -> String {
    let safe = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02x}"),
    };
    name.bytes().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        let root = Path::new("/r");
        assert_eq!(path(root, "01a-b", "c0ffee", Purpose::Run), Path::new("/r/01a-b/c0ffee.run.json"));
        assert_eq!(folder(root, "../x y"), Path::new("/r/%2e%2e%2fx%20y"));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "t", "k", Purpose::Undo);
        assert_eq!(Record::read(&path).unwrap(), None);
        let end = ProgramEnd { code: Some(0), output: json!({"ü": 1.5}), unreadable: None };
        for record in
            [Record::running(7), Record::Done { end }, Record::Failed, Record::CutOff { why: "signal 9".into() }]
        {
            record.write(&path).unwrap();
            assert_eq!(Record::read(&path).unwrap(), Some(record));
        }
    }
}
