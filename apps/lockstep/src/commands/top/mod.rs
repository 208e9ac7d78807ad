//! `lockstep top`: the cluster live, in a terminal.

mod frame;
mod sample;

use super::status;
use crate::exit::Failure;
use frame::{Look, Looks, render};
use mesh::node::human;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use sample::Sample;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// To the upper left corner, what is below cleared when the frame was written.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Settings of `top`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Admin addresses of the parts; without this and --data-dir that of a sidecar on this host
    #[arg(long, value_name = "ADDR", value_delimiter = ',', num_args = 1..)]
    admin: Vec<String>,
    /// Data directory of a running `up`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = human::parse_positive_duration)]
    interval: Duration,
    /// Look twice, print once, and end
    #[arg(long)]
    once: bool,
}

/// Shows it until q or Ctrl-C.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let admins = status::admins(&args.admin, args.data_dir.as_deref())?;
    let mut looks = Looks::new();
    look(&admins, &mut looks).await;
    if args.once || !std::io::stdout().is_terminal() {
        tokio::time::sleep(args.interval).await;
        look(&admins, &mut looks).await;
        let _ = std::io::stdout().write_all(render(&looks).as_bytes());
        return Ok(());
    }
    let screen = Screen::enter();
    let mut keys = keys();
    let mut ticks = tokio::time::interval(args.interval);
    let title = format!("lockstep top, every {}; q quits", human::format_duration(args.interval));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                look(&admins, &mut looks).await;
                screen.draw(&format!("{title}\n\n{}", render(&looks)));
            }
            Some(key) = keys.recv() => if matches!(key, b'q' | b'Q' | 3 | 27) { return Ok(()) },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Looks at all of them at one time.
async fn look(admins: &[String], looks: &mut Looks) {
    let mut asking = tokio::task::JoinSet::new();
    for admin in admins.iter().cloned() {
        asking.spawn(async move { (Sample::take(&admin).await, admin) });
    }
    while let Some(answer) = asking.join_next().await {
        let Ok((answer, admin)) = answer else { continue };
        let look = looks.entry(admin).or_default();
        *look = match answer {
            Ok(now) => Look { before: look.now.take(), now: Some(now), error: None },
            Err(error) => Look { error: Some(format!("{error:#}")), ..Look::default() },
        };
    }
}

/// The terminal as `top` has it; as it was when this is dropped.
struct Screen {
    before: Option<Termios>,
}

impl Screen {
    /// Keys come at once and are not shown. Ctrl-C stays a signal.
    fn enter() -> Self {
        let before = termios::tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw);
        }
        put(ENTER);
        Self { before }
    }

    fn draw(&self, text: &str) {
        let size = termios::tcgetwinsize(std::io::stdout()).ok();
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        put(&cropped(text, columns, rows));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put(LEAVE);
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// A frame in the place of the one before it, no wider and no longer than the screen.
fn cropped(text: &str, columns: usize, rows: usize) -> String {
    let line = |line: &str| format!("{}{CLEAR_LINE}", line.chars().take(columns).collect::<String>());
    let lines: Vec<String> = text.lines().take(rows).map(line).collect();
    format!("{HOME}{}{CLEAR_BELOW}", lines.join("\r\n"))
}

fn put(text: &str) {
    let mut stdout = std::io::stdout();
    // A closed terminal ends this process by a signal.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The keys that are pressed, by a thread that ends with the process.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut key = [0];
        while std::io::stdin().read(&mut key).is_ok_and(|count| count == 1) {
            if pressed.blocking_send(key[0]).is_err() {
                return;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen() {
        let frame = cropped("abcdef\nab\nabc\n", 4, 2);
        assert_eq!(frame, "\x1b[Habcd\x1b[K\r\nab\x1b[K\x1b[J");
    }
}
