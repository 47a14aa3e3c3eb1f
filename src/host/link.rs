//! The socket pair between keeper and daemon: each learns of the other's death by end-of-file, and hands over listening sockets.
//!
//! A socket pair rather than a parent waiting for its child, because either side must notice the other's death and start it again,
//! and rather than a watch on a pid, because a pid can be reused.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::{HostError, HostPaths, sys};

/// What the two tell each other.
#[derive(Debug)]
pub(crate) enum Message {
    /// The listening socket of the public endpoint.
    Public(OwnedFd),
    /// The public endpoint is closed: `down`.
    PublicClosed,
    /// The listening socket of the admin API.
    Admin(OwnedFd),
    /// Everything needed to begin was sent.
    Begin,
    /// The sender ends on purpose: do not start it again, end too.
    Quit,
}

impl Message {
    fn tag(&self) -> u8 {
        match self {
            Self::Public(_) => b'P',
            Self::PublicClosed => b'C',
            Self::Admin(_) => b'A',
            Self::Begin => b'B',
            Self::Quit => b'Q',
        }
    }

    fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Public(fd) | Self::Admin(fd) => Some(fd),
            Self::PublicClosed | Self::Begin | Self::Quit => None,
        }
    }

    fn from_parts(tag: u8, fd: Option<OwnedFd>) -> Option<Self> {
        match (tag, fd) {
            (b'P', Some(fd)) => Some(Self::Public(fd)),
            (b'A', Some(fd)) => Some(Self::Admin(fd)),
            (b'C', None) => Some(Self::PublicClosed),
            (b'B', None) => Some(Self::Begin),
            (b'Q', None) => Some(Self::Quit),
            _ => None,
        }
    }
}

/// One end of the pair.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<AsyncFd<OwnedFd>>);

impl Link {
    /// A pair: one end for us, the other to become a child's standard input.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), HostError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|e| HostError::io("making a socket pair")(e.into()))?;
        Ok((Self::new(ours)?, theirs))
    }

    fn new(fd: OwnedFd) -> Result<Self, HostError> {
        let watched = sys::watch(fd);
        watched.map(|fd| Self(Arc::new(fd))).map_err(HostError::io("watching the link"))
    }

    /// The end that this process was started with as its standard input, which is then closed to everybody else.
    pub(crate) fn from_stdin() -> Result<Self, HostError> {
        use std::os::fd::AsFd;
        let doing = "taking over the link";
        let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(HostError::io(doing))?;
        let null = std::fs::File::open("/dev/null").map_err(HostError::io(doing))?;
        nix::unistd::dup2_stdin(&null).map_err(|e| HostError::io(doing)(e.into()))?;
        Self::new(fd)
    }

    /// Sends without waiting: messages are one byte each and the other side reads all the time, so the buffer is never full.
    pub(crate) fn send(&self, message: &Message) -> Result<(), HostError> {
        let tag = [message.tag()];
        let raw = message.fd().map(|fd| [fd.as_raw_fd()]);
        let control: Vec<ControlMessage<'_>> = raw.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&tag)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map(|_| ())
            .map_err(|e| HostError::io("speaking over the link")(e.into()))
    }

    /// The next message; `None` when the other side is gone.
    pub(crate) async fn recv(&self) -> Option<Message> {
        loop {
            let mut guard = self.0.readable().await.ok()?;
            match guard.try_io(|fd| Self::recv_now(fd.get_ref()).map_err(std::io::Error::from)) {
                Ok(Ok(Some(message))) => return Some(message),
                Ok(Ok(None) | Err(_)) => return None,
                Err(_would_block) => {}
            }
        }
    }

    fn recv_now(fd: &OwnedFd) -> Result<Option<Message>, Errno> {
        let mut tag = [0u8; 1];
        let mut iov = [IoSliceMut::new(&mut tag)];
        let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
        let received = recvmsg::<()>(fd.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let bytes = received.bytes;
        let mut passed = None;
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                passed = fds.into_iter().filter_map(sys::adopt_received).next_back();
            }
        }
        Ok(if bytes == 0 { None } else { Message::from_parts(tag[0], passed) })
    }

    /// Waits for the listening sockets that the starter sends first. Ends when it is gone before it said `Begin`.
    pub(crate) async fn receive_sockets(&self) -> Option<Sockets> {
        let mut sockets = Sockets::default();
        loop {
            match self.recv().await? {
                Message::Begin => return Some(sockets),
                message => sockets.note(message),
            };
        }
    }
}

/// The listening sockets, as both sides keep them.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Open unless the home is down.
    pub(crate) public: Option<OwnedFd>,
    /// The admin API's.
    pub(crate) admin: Option<OwnedFd>,
}

impl Sockets {
    /// Follows what the other side says of them.
    pub(crate) fn note(&mut self, message: Message) {
        match message {
            Message::Public(fd) => self.public = Some(fd),
            Message::PublicClosed => self.public = None,
            Message::Admin(fd) => self.admin = Some(fd),
            Message::Begin | Message::Quit => {}
        }
    }

    /// Hands copies of all of them to the other side.
    pub(crate) fn send_all(&self, link: &Link) -> Result<(), HostError> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(HostError::io("copying a listening socket"));
        if let Some(fd) = &self.public {
            link.send(&Message::Public(copy(fd)?))?;
        }
        if let Some(fd) = &self.admin {
            link.send(&Message::Admin(copy(fd)?))?;
        }
        link.send(&Message::Begin)
    }
}

/// Starts the other side (`host-keeper` or `host-daemon`) from this very program, hands it the sockets, returns our end.
///
/// `/proc/self/exe` rather than a path: keeper and daemon speak a private protocol, and the file may have been replaced meanwhile.
pub(crate) fn spawn_other(command: &str, paths: &HostPaths, sockets: &Sockets) -> Result<(Link, Child), HostError> {
    use std::os::unix::process::CommandExt;
    let (ours, theirs) = Link::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0("tidegate")
        .arg(command)
        .arg("--home")
        .arg(&paths.home)
        .arg("--linked")
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(HostError::io(format!("starting the {command}")))?;
    sockets.send_all(&ours)?;
    Ok((ours, child))
}
