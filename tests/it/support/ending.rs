//! Processes that end by themselves: a test waits for them, but not for ever.

use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take. `pg_basebackup` and `pg_ctl` are the slowest, with all tests running at the same time.
const LIMIT: Duration = Duration::from_secs(60);

/// Something whose end can be waited for.
pub(crate) trait Ends {
    type Outcome;

    /// What it has come to. If it does not end it is killed, and the test fails.
    fn ended(&mut self) -> Self::Outcome;
}

impl Ends for Command {
    type Outcome = Output;

    #[track_caller]
    fn ended(&mut self) -> Output {
        let child = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        ended(child).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

impl Ends for Child {
    type Outcome = ExitStatus;

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        ended_within(self, LIMIT).expect("it ends by itself")
    }
}

/// What a process has said, once it has ended.
pub(crate) fn ended(child: Child) -> io::Result<Output> {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    output.recv_timeout(LIMIT).unwrap_or_else(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        Err(io::Error::other("does not end"))
    })
}

/// Waits for the end of a process; kills it if it has not come by then.
pub(crate) fn ended_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that the test ends, if it has not ended by itself.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
