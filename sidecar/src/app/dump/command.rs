//! Snapshots by the user's own programs: what the one prints is the dump, the other reads it.

use super::LoadError;
use super::stream::{Sink, Source};
use crate::App;
use crate::app::Settings;
use crate::app::supervisor::{signal_group, words};
use anyhow::{Context, bail};
use bytes::BytesMut;
use mesh::ids::Slot;
use rustix::process::Signal;
use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Lines of its standard error that people are shown, and bytes of one of them.
const LINES: usize = 10;
const LINE_BYTES: u64 = 1000;

/// Prints the dump.
pub(super) async fn save(settings: &Settings, argv: &[String], slot: Slot, sink: &mut Sink) -> anyhow::Result<()> {
    let mut program = Program::start(settings, argv, slot, Stdio::null(), Stdio::piped())?;
    let mut output = program.child.stdout.take().context("the program has no output")?;
    let read = async {
        loop {
            let mut piece = BytesMut::with_capacity(READ_BYTES);
            if output.read_buf(&mut piece).await.context("the output of the program cannot be read")? == 0 {
                return Ok(());
            }
            sink.put(&piece).await?;
        }
    };
    program.finish(read).await
}

/// Reads it.
pub(super) async fn load(
    settings: &Settings,
    argv: &[String],
    slot: Slot,
    source: &mut Source,
) -> Result<(), LoadError> {
    let mut program = Program::start(settings, argv, slot, Stdio::piped(), Stdio::null())?;
    let mut input = program.child.stdin.take().context("the program has no input")?;
    let mut damaged = None;
    let write = async {
        loop {
            match source.next().await {
                Ok(Some(piece)) => match input.write_all(&piece).await {
                    // Whoever has enough need not read the rest; how it ends says whether all is well.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                    written => written.context("the program's input cannot be written")?,
                },
                Ok(None) => break,
                Err(error) => {
                    damaged = Some(error);
                    bail!("the snapshot ended early");
                }
            }
        }
        drop(input);
        Ok(())
    };
    let finished = program.finish(write).await;
    match damaged {
        Some(error) => Err(error),
        None => Ok(finished?),
    }
}

/// A program that goes, with all of its group, when this is dropped.
struct Program {
    child: Child,
    name: String,
    group: Option<u32>,
}

impl Program {
    fn start(settings: &Settings, argv: &[String], slot: Slot, input: Stdio, output: Stdio) -> anyhow::Result<Self> {
        let app = settings.app.as_ref().context("there is no application")?;
        let address = app.address();
        let dir = match app {
            App::Command { dir, .. } => Some(dir.as_path()),
            App::Address(_) => None,
        };
        let argv = words(argv, settings.id, address.port(), dir.unwrap_or(Path::new(".")));
        let (name, arguments) = argv.split_first().context("the command is empty")?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env("PORT", address.port().to_string())
            .env("HOST", address.ip().to_string())
            .env("LOCKSTEP_SLOT", slot.to_string())
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let child = command.spawn().with_context(|| format!("cannot start `{name}`: check the command"))?;
        let group = child.id();
        Ok(Self { child, name: name.clone(), group })
    }

    /// Works with it until it ends; everything must go well.
    async fn finish(&mut self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let errors = self.child.stderr.take();
        let errors = async { Ok::<_, anyhow::Error>(last_lines(errors).await) };
        // Its output ends when it does; whether all was said is known from its exit code.
        let ((), said) = tokio::try_join!(work, errors)?;
        let status = self.child.wait().await.with_context(|| format!("`{}` cannot be waited for", self.name))?;
        self.group = None;
        if !status.success() {
            bail!("`{}` failed ({status}); it said: {said}", self.name);
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            signal_group(group, Signal::KILL);
        }
    }
}

/// The last of what a program complains about.
async fn last_lines(errors: Option<ChildStderr>) -> String {
    let Some(errors) = errors else { return String::new() };
    let mut errors = BufReader::new(errors);
    let mut lines = VecDeque::new();
    while let Some(line) = next_line(&mut errors).await {
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    Vec::from(lines).join("\n")
}

async fn next_line(errors: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let count = errors.take(LINE_BYTES).read_until(b'\n', &mut line).await.ok()?;
    (count > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_words_of_a_program_are_kept() {
        let mut child = Command::new("sh")
            .args(["-c", "for i in $(seq 100); do echo line $i >&2; done; head -c 3000 /dev/zero | tr '\\0' x >&2"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh");
        let said = last_lines(child.stderr.take()).await;
        assert!(said.starts_with("line 94\n") && said.len() < 4000, "{said}");
    }
}
