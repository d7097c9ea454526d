//! Work that a stranger's file may make endless, done in a process of its own with bounds on time, memory and stack.
//!
//! A chat template is a program, and a `tokenizer.json` is nearly one: within a library either may recurse until the stack
//! ends, take all memory or never come back. No thread can be stopped from outside; a process can.
//!
//! Requests and replies are lines of JSON. A program whose `main` hands `sandboxed JOB` to [`serve`] calls [`enable`] first;
//! elsewhere, as in tests, the work is done where it is asked for.

use crate::{chat_template, tokenizer};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The first argument of a process that serves; the second is its job.
pub const ARGUMENT: &str = "sandboxed";
/// Memory of a process that serves, in bytes.
const MEMORY: u64 = 768 << 20;
/// The longest request or reply in bytes.
const MAX_LINE: u64 = 256 << 20;
/// Processor time for one request, in seconds.
const SECONDS: u64 = 2;

static ENABLED: AtomicBool = AtomicBool::new(false);

/// From now on such work is done in copies of this program, which are started as `PROGRAM sandboxed JOB`.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

pub(crate) fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// What becomes of a request: a value, or why there is none.
type Reply = std::result::Result<Value, String>;

/// Answers the requests of standard input until it ends.
///
/// # Errors
/// An unknown job, a request that is none, and those of the system.
pub fn serve(job: &str) -> Result<()> {
    let mut templates = chat_template::server();
    let answer: &mut dyn FnMut(&[u8]) -> Reply = match job {
        chat_template::JOB => &mut templates,
        tokenizer::JOB => &mut tokenizer::try_out,
        _ => return Err(Error::other(format!("no job `{job}`"))),
    };
    limit(Resource::Core, 0)?;
    limit(Resource::As, MEMORY)?;
    let mut requests = BufReader::new(std::io::stdin().lock());
    while let Some(request) = line(&mut requests)? {
        // Counted in whole seconds, of which the first has begun.
        let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec as u64;
        limit(Resource::Cpu, used + 1 + SECONDS)?;
        let reply = answer(&request).map_err(|why| brief(&why));
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        std::io::stdout().write_all(&text)?;
    }
    Ok(())
}

/// A reason in one line of at most 1,000 characters: a template may choose its words.
fn brief(why: &str) -> String {
    const MOST: usize = 1000;
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

/// The soft limit: the next request has its own.
fn limit(resource: Resource, current: u64) -> Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let current = Some(maximum.map_or(current, |maximum| maximum.min(current)));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

/// A whole line; none at the end.
fn line(from: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
        return Err(Error::other(format!("more than {MAX_LINE} bytes in one answer")));
    }
    Ok(Some(line).filter(|line| line.ends_with(b"\n")))
}

/// Processes with one job, each for one request at a time; as many as threads have asked at once.
#[derive(Debug)]
pub(crate) struct Processes {
    job: &'static str,
    /// What each is told first.
    first: Value,
    idle: Mutex<Vec<Process>>,
    /// Why one of them ended: what ended one ends others.
    ended: OnceLock<String>,
}

impl Processes {
    /// The first, which takes `first`.
    pub(crate) fn start(job: &'static str, first: Value) -> std::result::Result<Processes, String> {
        let idle = Mutex::new(vec![Process::start(job, &first)?]);
        Ok(Processes { job, first, idle, ended: OnceLock::new() })
    }

    /// The reply to a request.
    pub(crate) fn ask(&self, request: &impl Serialize) -> Reply {
        if let Some(why) = self.ended.get() {
            return Err(why.clone());
        }
        let process = self.idle().pop();
        let mut process = match process {
            Some(process) => process,
            None => Process::start(self.job, &self.first)?,
        };
        let reply = process.ask(request).inspect_err(|why| drop(self.ended.set(why.clone())))?;
        self.idle().push(process);
        reply
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one; `first` is its first request.
    pub(crate) fn start(job: &str, first: &impl Serialize) -> std::result::Result<Process, String> {
        // This very program, even where another has taken its place on the disk.
        let own = PathBuf::from("/proc/self/exe");
        let program = if own.exists() { Ok(own) } else { std::env::current_exe() };
        let started = program.and_then(|program| {
            let mut command = Command::new(program);
            command.arg0("lenslet").args([ARGUMENT, job]).stderr(Stdio::null());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            // Ctrl-C asks this program alone to stop, which still needs it then.
            command.process_group(0).spawn()
        });
        let mut child = started.map_err(|error| format!("no process can be started to read it safely: {error}"))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(requests), Some(replies)) = pipes else {
            return Err("a process without pipes".into());
        };
        let mut process = Process { child, requests, replies: BufReader::new(replies) };
        process.ask(first)??;
        Ok(process)
    }

    /// The reply to a request.
    fn ask(&mut self, request: &impl Serialize) -> std::result::Result<Reply, String> {
        let mut text = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        text.push(b'\n');
        let reply = self.requests.write_all(&text).and_then(|()| line(&mut self.replies));
        match reply {
            Ok(Some(reply)) => serde_json::from_slice(&reply).map_err(|error| error.to_string()),
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                // It may still be writing, and would never end.
                let _ = self.child.kill();
                Err(error.to_string())
            }
            _ => Err(self.end()),
        }
    }

    /// Why it ended.
    fn end(&mut self) -> String {
        let signal = self.child.wait().ok().and_then(|status| status.signal());
        match signal {
            Some(signal) if signal == rustix::process::Signal::XCPU.as_raw() => {
                format!("it takes more than {SECONDS} seconds")
            }
            Some(_) => format!("it nests too deep, or takes more than {} MiB", MEMORY >> 20),
            None => "the process that reads it ended".into(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already has nothing to be killed, and is gone once it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(brief("a\n\nerror: b"), "a error: b");
        assert_eq!(brief(&"é".repeat(5000)), format!("{} …", "é".repeat(1000)));
    }

    #[test]
    fn an_answer_without_an_end_is_refused() {
        let mut endless = BufReader::new(std::io::repeat(b'a'));
        assert!(line(&mut endless).unwrap_err().to_string().contains("in one answer"));
    }
}
