//! The socket of sd_notify(3): an abstract datagram socket that tells who sends.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::notify::Note;

/// The most descriptors that the kernel hands over with one message (`SCM_MAX_FD`): with room for
/// them no message is cut, and every one of them is closed.
const DESCRIPTORS: usize = 253;

/// Where one run of a service notifies its supervisor. Its descriptor can be kept elsewhere, so that a
/// later supervisor goes on hearing the same service.
#[derive(Debug)]
pub(in crate::supervisor) struct NotifySocket {
    socket: UnixDatagram,
    address: String,
    /// What was said and not told yet.
    said: Mutex<VecDeque<Note>>,
}

impl NotifySocket {
    /// A new one, with an address of its own.
    pub fn new() -> io::Result<Self> {
        let name = format!(
            "gabion-{:016x}{:016x}",
            fastrand::u64(..),
            fastrand::u64(..)
        );
        let address = SocketAddr::from_abstract_name(&name)?;
        let socket = StdDatagram::bind_addr(&address)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Self::from_fd(socket.into())
    }

    /// The one that another supervisor has made.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = StdDatagram::from(fd);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let name = address.as_abstract_name();
        let name = name.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            address: format!("@{}", String::from_utf8_lossy(name)),
            socket: UnixDatagram::from_std(socket)?,
            said: Mutex::default(),
        })
    }

    /// Another descriptor of it, to be kept for [`Self::from_fd`].
    pub fn twin(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes the first of what was said and not told yet.
    pub(super) fn said(&self) -> Option<Note> {
        self.queue(VecDeque::pop_front)
    }

    /// Keeps what was said until it is told.
    pub(super) fn say(&self, notes: Vec<Note>) {
        self.queue(|said| said.extend(notes));
    }

    fn queue<T>(&self, change: impl FnOnce(&mut VecDeque<Note>) -> T) -> T {
        // The queue is whole after every statement, so a panic elsewhere cannot have torn it.
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a message and gives its length; `None` if it is not from a process of the service
    /// that `leader` leads. Cancel-safe.
    pub async fn receive(&self, message: &mut [u8], leader: u32) -> io::Result<Option<usize>> {
        let fd = self.socket.as_raw_fd();
        let reading = || read(fd, message);
        let (length, sender) = self.socket.async_io(Interest::READABLE, reading).await?;
        Ok(sender
            .is_some_and(|sender| belongs(sender, leader))
            .then_some(length))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads one message; tells its length and the sender's number. Descriptors that came with it are
/// closed, for which `systemd-notify` waits (`BARRIER=1`).
fn read(fd: RawFd, message: &mut [u8]) -> io::Result<(usize, Option<u32>)> {
    let mut control = cmsg_space!(UnixCredentials, [RawFd; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(message)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags)?;
    let mut sender = None;
    for part in received.cmsgs()? {
        match part {
            ControlMessageOwned::ScmCredentials(who) => sender = u32::try_from(who.pid()).ok(),
            ControlMessageOwned::ScmRights(descriptors) => {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just made it for this process, and nobody else knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
            _ => {}
        }
    }
    Ok((received.bytes, sender.filter(|pid| *pid != 0)))
}

/// Whether a process is the leader, in its session, or below it. One that has ended meanwhile is
/// nobody's.
fn belongs(sender: u32, leader: u32) -> bool {
    let session = i32::try_from(sender)
        .ok()
        .and_then(|pid| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).ok());
    if sender == leader || session.is_some_and(|of| u32::try_from(of.as_raw()) == Ok(leader)) {
        return true;
    }
    let mut pid = sender;
    // No family is so deep; a circle could only be read if numbers changed hands meanwhile.
    for _ in 0..256 {
        match parent(pid) {
            Some(parent) if parent == leader => return true,
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(socket: &NotifySocket, text: &[u8]) {
        let name = socket.address().strip_prefix('@').unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let sender = StdDatagram::unbound().unwrap();
        sender.send_to_addr(text, &address).unwrap();
    }

    #[tokio::test]
    async fn only_the_service_is_heard_and_its_descriptor_moves() {
        let socket = NotifySocket::new().unwrap();
        let own = std::process::id();
        let mut message = [0; 64];
        send(&socket, b"READY=1");
        assert_eq!(socket.receive(&mut message, own).await.unwrap(), Some(7));
        assert_eq!(&message[..7], b"READY=1");
        // The sender's parent is above it, not below.
        let above = std::os::unix::process::parent_id();
        assert!(belongs(own, above));
        assert!(!belongs(above, own));
        send(&socket, b"STATUS=kept");
        let address = socket.address().to_owned();
        let socket = NotifySocket::from_fd(socket.twin().unwrap()).unwrap();
        assert_eq!(socket.address(), address);
        assert_eq!(
            socket.receive(&mut message, 1).await.unwrap().is_some(),
            belongs(own, 1)
        );
    }
}
