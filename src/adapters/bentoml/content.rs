//! What a release folder holds: its digest, its size, its archive.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::files::remove_all;
use super::xz::XzStored;

/// Digest and size of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes in all files.
    pub size_bytes: u64,
}

/// One entry, relative to the folder.
struct Entry {
    name: String,
    path: PathBuf,
    link: bool,
}

/// Every file and link below `root`, sorted by name. Folders count only by what is in them.
fn entries(root: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(Entry { name, path, link: kind.is_symlink() });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Hashes `root`: SHA-256 over the sorted lines `<hex of the file>  <path>`. The time of the build, which BentoML writes into
/// `bento.yaml`, is left out, so that the same sources under the same version have the same digest.
pub(super) fn measure(root: &Path) -> io::Result<Content> {
    let mut whole = Sha256::new();
    let mut size_bytes = 0;
    for entry in entries(root)? {
        let hash = if entry.link {
            Sha256::digest(format!("link:{}", fs::read_link(&entry.path)?.display()))
        } else if entry.name == "bento.yaml" {
            let text = fs::read_to_string(&entry.path)?;
            size_bytes += text.len() as u64;
            Sha256::digest(without_creation_time(&text))
        } else {
            let (hash, bytes) = hash_file(&entry.path)?;
            size_bytes += bytes;
            hash
        };
        whole.update(format!("{}  {}\n", hex(&hash), entry.name));
    }
    Ok(Content { digest: format!("sha256:{}", hex(&whole.finalize())), size_bytes })
}

/// Hashes a project, or a single file, as somebody is shown it: names as the bytes they are, links by where they lead. The folder `.git` at its
/// top is left out, which changes without anybody changing the project.
pub(super) fn digest_of_source(source: &Path) -> io::Result<String> {
    if fs::metadata(source)?.is_file() {
        return Ok(format!("sha256:{}", hash_of_file(source)?));
    }
    let mut whole = Sha256::new();
    for entry in entries(source)?.into_iter().filter(|entry| !entry.name.starts_with(".git/")) {
        let (kind, hash) = if entry.link {
            (b"link ", Sha256::digest(fs::read_link(&entry.path)?.as_os_str().as_bytes()))
        } else if fs::symlink_metadata(&entry.path)?.is_file() {
            (b"file ", hash_file(&entry.path)?.0)
        } else {
            // A pipe, say, would be read for ever.
            return Err(io::Error::other(format!("{} is neither a file nor a folder", entry.path.display())));
        };
        let name = entry.path.strip_prefix(source).unwrap_or(&entry.path).as_os_str().as_bytes();
        whole.update(kind);
        whole.update(hash);
        whole.update((name.len() as u64).to_le_bytes());
        whole.update(name);
    }
    Ok(format!("sha256:{}", hex(&whole.finalize())))
}

/// Copies what [`digest_of_source`] sees of a project or a file into a new folder, for its owner only; gives where the copy is.
pub(super) fn copy_source(source: &Path, into: &Path) -> io::Result<PathBuf> {
    remove_all(into)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(into)?;
    let name = source.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    let root = into.join(name);
    if fs::metadata(source)?.is_file() {
        fs::copy(source, &root)?;
        return Ok(root);
    }
    fs::create_dir(&root)?;
    for entry in entries(source)?.into_iter().filter(|entry| !entry.name.starts_with(".git/")) {
        let to = root.join(entry.path.strip_prefix(source).map_err(io::Error::other)?);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        if entry.link {
            std::os::unix::fs::symlink(fs::read_link(&entry.path)?, &to)?;
        } else if fs::symlink_metadata(&entry.path)?.is_file() {
            fs::copy(&entry.path, &to)?;
        } else {
            return Err(io::Error::other(format!("{} is neither a file nor a folder", entry.path.display())));
        }
    }
    Ok(root)
}

/// Only the bento's own time, at the top level: a model's time is part of what it is.
fn without_creation_time(yaml: &str) -> String {
    yaml.split_inclusive('\n').filter(|line| !line.starts_with("creation_time:")).collect()
}

/// Hex of the SHA-256 of one file.
pub(super) fn hash_of_file(path: &Path) -> io::Result<String> {
    Ok(hex(&hash_file(path)?.0))
}

fn hash_file(path: &Path) -> io::Result<(sha2::digest::Output<Sha256>, u64)> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash.finalize(), bytes));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `root` as BentoML's own export format, a tar in xz. Times and owners are left out: the same content gives the same archive.
pub(super) fn export(root: &Path, archive: &Path) -> io::Result<()> {
    let out = XzStored::new(BufWriter::with_capacity(1 << 20, File::create(archive)?))?;
    let mut tar = tar::Builder::new(out);
    // BentoML's importer only sees folders that have an entry of their own.
    let mut folders = Vec::new();
    for entry in entries(root)? {
        for folder in parents(&entry.name) {
            if !folders.contains(&folder) {
                tar.append_data(&mut header(0o755, 0, tar::EntryType::Directory), format!("{folder}/"), io::empty())?;
                folders.push(folder);
            }
        }
        if entry.link {
            let mut header = header(0o777, 0, tar::EntryType::Symlink);
            tar.append_link(&mut header, &entry.name, fs::read_link(&entry.path)?)?;
        } else {
            let file = File::open(&entry.path)?;
            let meta = file.metadata()?;
            let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            let mut header = header(mode, meta.len(), tar::EntryType::Regular);
            tar.append_data(&mut header, &entry.name, BufReader::with_capacity(256 * 1024, file))?;
        }
    }
    let file = tar.into_inner()?.finish()?.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mtime(0);
    header
}

/// `a/b/c` → `a`, `a/b`.
fn parents(name: &str) -> Vec<String> {
    name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect()
}

/// Copies a folder with its files, following links.
pub(super) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if fs::metadata(&from)?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Makes every file and name below `root` durable.
pub(super) fn sync_folder(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_folder(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(root)?.sync_all()
}

/// Removes what Python leaves behind when it imports: it is not content, and another Python version could not use it.
pub(super) fn remove_bytecode(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_symlink() || !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "__pycache__") {
            fs::remove_dir_all(&path)?;
        } else {
            remove_bytecode(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_digest_of_a_source_sees_everything_but_what_git_keeps() {
        let (one, same) =
            (folder(&[("a.py", "1"), (".git/index", "1")]), folder(&[("a.py", "1"), (".git/index", "2")]));
        let digest = |root: &tempfile::TempDir| digest_of_source(root.path()).unwrap();
        assert_eq!(digest(&one), digest(&same));
        for (name, text) in
            [("a.py", "2"), ("b.py", ""), ("__pycache__/a.pyc", "x"), (".hidden", "x"), ("sub/.git/x", "x")]
        {
            let before = digest(&same);
            let path = same.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            assert_ne!(digest(&same), before, "{name}");
        }
        let before = digest(&one);
        std::os::unix::fs::symlink("a.py", one.path().join("link")).unwrap();
        assert_ne!(digest(&one), before);
        assert_ne!(digest_of_source(&one.path().join("a.py")).unwrap(), before);
        let copies = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let copy = copy_source(one.path(), &copies.path().join("of")).unwrap();
            assert_eq!(digest_of_source(&copy).unwrap(), digest(&one), "a copy is the same, again too");
            assert!(!copy.join(".git").exists());
        }
        pipe(&one.path().join("pipe"));
        assert!(copy_source(one.path(), &copies.path().join("of")).is_err());
        assert!(digest_of_source(one.path()).unwrap_err().to_string().contains("neither a file nor a folder"));
    }

    fn pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn the_digest_sees_names_and_bytes_and_not_the_build_time() {
        let one = folder(&[("bento.yaml", "name: a\ncreation_time: '1'\n"), ("src/a.py", "1")]);
        let same = folder(&[("src/a.py", "1"), ("bento.yaml", "name: a\ncreation_time: '2'\n")]);
        let other = folder(&[("bento.yaml", "name: a\ncreation_time: '1'\n"), ("src/a.py", "2")]);
        let renamed = folder(&[("bento.yaml", "name: a\ncreation_time: '1'\n"), ("src/b.py", "1")]);
        let digest = |root: &tempfile::TempDir| measure(root.path()).unwrap().digest;
        assert_eq!(digest(&one), digest(&same));
        assert!(digest(&one) != digest(&other) && digest(&one) != digest(&renamed));
        assert_eq!(measure(one.path()).unwrap().size_bytes, 8 + 19 + 1);
    }

    #[test]
    fn bytecode_goes_and_the_rest_stays() {
        let root = folder(&[("src/__pycache__/a.pyc", "x"), ("src/a.py", "1")]);
        remove_bytecode(root.path()).unwrap();
        assert!(!root.path().join("src/__pycache__").exists() && root.path().join("src/a.py").exists());
    }
}
