//! Executing a program that is in its control group from its first moment. A process that is moved into
//! one after its birth makes the kernel wait for every processor, which can take 20 ms.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

use super::os;

/// Why there is no process.
pub(super) enum Stillborn {
    /// None can be born there, by this kernel or for want of a right.
    Impossible,
    /// It was born, and could not execute the program.
    NotExecuted(io::Error),
}

/// Executes `command` in a child that is born in `group`, the folder of one of version 2; returns the child's
/// number. To be called in a process with one thread: the child goes on with a copy of all memory.
pub(super) fn execute_in(group: &OwnedFd, command: &mut Command) -> Result<u32, Stillborn> {
    let (mut reader, mut writer) = io::pipe().map_err(Stillborn::NotExecuted)?;
    let pid = os::fork_into(group).map_err(|_| Stillborn::Impossible)?;
    if pid == 0 {
        let error = command.exec();
        let number = error.raw_os_error().unwrap_or(libc::EINVAL);
        // Nobody else is there to be told.
        let _ = writer.write_all(&number.to_ne_bytes());
        // SAFETY: ends this process, without what its parent has planned for its own end.
        unsafe { libc::_exit(1) };
    }
    drop(writer);
    let mut number = [0; 4];
    // The pipe is closed by the execution.
    match reader.read_exact(&mut number) {
        Err(_) => Ok(pid),
        Ok(()) => {
            os::await_end(pid);
            let number = i32::from_ne_bytes(number);
            Err(Stillborn::NotExecuted(io::Error::from_raw_os_error(number)))
        }
    }
}
