//! Which address the public endpoint gets, and who holds it when it cannot have it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nix::sys::socket::{Backlog, listen};

use super::HostError;

/// Where the endpoint listens when nobody says otherwise.
const DEFAULT_PORT: u16 = 7311;
/// The last port tried when the default one is taken: some ninety homes on one machine are plenty.
const LAST_PORT: u16 = 7399;
/// Connections wait here while the gateway restarts; the kernel caps it at net.core.somaxconn (4096 by default).
const BACKLOG: i32 = 4096;

/// Binds the public address: the one asked for, else the remembered one, else the first free of the default range.
///
/// A remembered address that is taken is an error and not a reason to move: the endpoint's URL is written down elsewhere.
pub(crate) fn bind(explicit: Option<SocketAddr>, remembered: Option<SocketAddr>) -> Result<TcpListener, HostError> {
    match (explicit, remembered) {
        (Some(wanted), Some(known)) if wanted.port() == 0 && wanted.ip() == known.ip() => bind_one(known),
        (Some(wanted), _) => bind_one(wanted),
        (None, Some(known)) => bind_one(known),
        (None, None) => bind_default_range(),
    }
}

fn bind_default_range() -> Result<TcpListener, HostError> {
    let mut last = None;
    for port in DEFAULT_PORT..=LAST_PORT {
        match bind_one(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Err(error @ HostError::PublicPortTaken { .. }) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| HostError::invalid("there is no port to try", "choose a public address")))
}

fn bind_one(addr: SocketAddr) -> Result<TcpListener, HostError> {
    let listener = match TcpListener::bind(addr) {
        Ok(listener) => listener,
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(HostError::PublicPortTaken { addr: addr.to_string(), owner: owner_of(addr.port()) });
        }
        Err(e) => return Err(HostError::io(format!("listening at {addr}"))(e)),
    };
    let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
    listen(&listener, backlog).map_err(|e| HostError::io(format!("listening at {addr}"))(e.into()))?;
    listener.set_nonblocking(true).map_err(HostError::io(format!("listening at {addr}")))?;
    Ok(listener)
}

/// Who listens at `port`, in words; best effort, because other users' processes cannot be looked into.
fn owner_of(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    super::identity::all_pids().into_iter().find(|pid| holds_socket(*pid, &inodes)).map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("pid {pid} ({})", name.trim())
    })
}

/// Socket inodes in state LISTEN (0A) at `port`, from the text of /proc/net/tcp.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let matching = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&suffix)) && fields.get(3) == Some(&"0A")
    };
    table.lines().filter(matching).filter_map(|line| line.split_whitespace().nth(9)).map(str::to_owned).collect()
}

fn holds_socket(pid: u32, inodes: &[String]) -> bool {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| {
        let link = link.to_string_lossy();
        inodes.iter().any(|inode| link.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')) == Some(inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_names_its_owner() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = held.local_addr().unwrap();
        let error = bind(Some(addr), None).unwrap_err();
        assert_eq!(error.code(), "public_port_taken");
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()) && text.contains(&format!("pid {}", std::process::id())), "{text}");
    }

    #[test]
    fn port_zero_means_the_remembered_port() {
        let known = bind(Some("127.0.0.1:0".parse().unwrap()), None).unwrap().local_addr().unwrap();
        let again = bind(Some("127.0.0.1:0".parse().unwrap()), Some(known)).unwrap();
        assert_eq!(again.local_addr().unwrap(), known);
    }

    #[test]
    fn without_a_wish_the_next_free_port_of_the_range() {
        let first = bind(None, None).unwrap();
        let addr = first.local_addr().unwrap();
        assert!((DEFAULT_PORT..=LAST_PORT).contains(&addr.port()) && addr.ip().is_loopback());
        // A remembered one that is taken is an error and no reason to move.
        assert_eq!(bind(None, Some(addr)).unwrap_err().code(), "public_port_taken");
        assert_ne!(bind(None, None).unwrap().local_addr().unwrap(), addr);
    }

    #[test]
    fn reads_listening_inodes() {
        let table = "  sl  local_address rem_address st tx rx tr when retrnsmt uid timeout inode\n   \
            0: 0100007F:1C8F 00000000:0000 0A 0:0 0:0 0 0 0 4242 1\n   \
            1: 0100007F:1C8F 0100007F:0001 01 0:0 0:0 0 0 0 4343 1\n";
        assert_eq!(listening_inodes(table, 7311), ["4242"]);
    }
}
