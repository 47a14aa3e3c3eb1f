//! The file: rights, versions, damage.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tidegate::graph::{Store, StoreError, ThreadFilter};
use tidegate::store::SqliteStore;

use super::{Tested, create, normal, place};

#[tokio::test]
async fn only_its_owner_may_read_it() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open(&path)?;
    create(&store, "t").await?;
    let mode = |path: &std::path::Path| std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
    assert_eq!(mode(path.parent().expect("it has one"))?, 0o700);
    for file in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        assert_eq!(mode(&path.with_file_name(file))?, 0o600, "{file}");
    }
    Ok(())
}

#[tokio::test]
async fn many_may_open_a_new_file_at_once() -> Tested {
    let (_dir, path) = place()?;
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteStore::open_with(path, normal()).map(drop))
        })
        .collect();
    for opener in openers {
        opener.join().expect("no panic")?;
    }
    create(&SqliteStore::open(&path)?, "t").await?;
    Ok(())
}

#[test]
fn a_newer_file_is_refused() -> Tested {
    let (_dir, path) = place()?;
    drop(SqliteStore::open(&path)?);
    Connection::open(&path)?.pragma_update(None, "user_version", 999)?;
    let error = SqliteStore::open(&path).err().expect("it is refused");
    assert!(matches!(&error, StoreError::TooNew { file, schema: 999, ours: 1.. } if file.ends_with(".db")), "{error}");
    Ok(())
}

#[test]
fn what_is_not_ours_is_refused() -> Tested {
    let (_dir, path) = place()?;
    std::fs::create_dir_all(path.parent().expect("it has one"))?;
    std::fs::write(&path, "no database at all, but long enough to be taken for one".repeat(100))?;
    let error = SqliteStore::open(&path).err().expect("it is refused");
    assert!(matches!(&error, StoreError::Damaged(why) if why.contains("tidegate.db")), "{error}");
    let other = path.with_file_name("other.db");
    Connection::open(&other)?.execute_batch("CREATE TABLE theirs (x)")?;
    let error = SqliteStore::open(&other).err().expect("it is refused");
    assert!(matches!(&error, StoreError::Damaged(why) if why.contains("another program")), "{error}");
    let nowhere = std::path::Path::new("/proc/nowhere/tidegate.db");
    let error = SqliteStore::open(nowhere).err().expect("it is refused");
    assert!(matches!(&error, StoreError::CannotWrite(why) if why.contains("/proc/nowhere")), "{error}");
    Ok(())
}

#[tokio::test]
async fn damage_is_told_apart() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    for n in 0..50 {
        create(&store, &format!("t{n}")).await?;
    }
    drop(store);
    let mut bytes = std::fs::read(&path)?;
    let end = bytes.len();
    bytes[8192..end].fill(0xA5);
    std::fs::write(&path, bytes)?;
    let end = match SqliteStore::open_with(&path, normal()) {
        Ok(store) => store.threads(&ThreadFilter::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(end, Err(StoreError::Damaged(_))), "{end:?}");
    Ok(())
}
