//! A server of counters that misbehaves when it is told to: `misbehave PORT DIR [MS]`, where each request takes MS. For tests of what becomes of requests
//! and applications that hang, crash and answer wrongly.
//!
//! | request | reply |
//! | --- | --- |
//! | `INC key` | the counter, one higher |
//! | `STEP key` | the key and the counter, one higher: `key=3`. No two requests have the same reply |
//! | `GET key` | the counter |
//! | `SIZE` | how many counters there are |
//! | `DUMP` | all of them: `key=count,key=count` |
//! | `LOAD key=count,…` | `OK` |
//! | `HANG` | none, ever; and none to anybody after it |
//! | `CRASH` | none: the process ends |
//!
//! A file `misbehave` in DIR says that this copy alone misbehaves, once, at the next `INC`: `hang`, `crash`, or `wrong`
//! (the counter is one too high from then on, until the process ends). It is removed before it takes effect, so that the
//! next life of the process behaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{ExitCode, abort};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The state, and how this life of the process behaves.
#[derive(Debug, Default)]
struct Counters {
    counts: BTreeMap<String, u64>,
    /// Added to what is told.
    lie: u64,
    /// Where the word to misbehave is looked for.
    told: PathBuf,
    /// How long a request takes.
    takes: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, dir, takes) = match &arguments[..] {
        [port, dir] => (port, dir, Some(0)),
        [port, dir, takes] => (port, dir, takes.parse().ok()),
        _ => return usage(),
    };
    let Some(takes) = takes.map(Duration::from_millis) else { return usage() };
    let listener = match TcpListener::bind(format!("127.0.0.1:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("misbehave: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let told = PathBuf::from(dir).join("misbehave");
    let counters = Arc::new(Mutex::new(Counters { told, takes, ..Counters::default() }));
    for stream in listener.incoming().flatten() {
        let counters = Arc::clone(&counters);
        // An error is the client's: it went away.
        std::thread::spawn(move || serve(stream, &counters));
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: misbehave PORT DIR [MS]");
    ExitCode::from(2)
}

fn serve(stream: TcpStream, counters: &Mutex<Counters>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        // Whoever hangs keeps the lock: the whole server hangs.
        let reply = counters.lock().unwrap_or_else(PoisonError::into_inner).answer(&line?);
        writer.write_all(format!("{reply}\n").as_bytes())?;
    }
    Ok(())
}

impl Counters {
    fn answer(&mut self, line: &str) -> String {
        if !self.takes.is_zero() {
            std::thread::sleep(self.takes);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "INC" => {
                self.misbehave();
                let count = self.counts.entry(rest.to_owned()).or_default();
                *count += 1;
                (*count + self.lie).to_string()
            }
            "STEP" => {
                let count = self.counts.entry(rest.to_owned()).or_default();
                *count += 1;
                format!("{rest}={count}")
            }
            "GET" => self.counts.get(rest).copied().unwrap_or_default().to_string(),
            "SIZE" => self.counts.len().to_string(),
            "DUMP" => self.counts.iter().map(|(key, count)| format!("{key}={count}")).collect::<Vec<_>>().join(","),
            "LOAD" => self.load(rest),
            "HANG" => hang(),
            "CRASH" => abort(),
            _ => "ERR unknown request".to_owned(),
        }
    }

    fn load(&mut self, pairs: &str) -> String {
        for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
            let Some((key, Ok(count))) = pair.split_once('=').map(|(key, count)| (key, count.parse())) else {
                return format!("ERR no counter: {pair}");
            };
            self.counts.insert(key.to_owned(), count);
        }
        "OK".to_owned()
    }

    fn misbehave(&mut self) {
        let Ok(how) = std::fs::read_to_string(&self.told) else { return };
        if std::fs::remove_file(&self.told).is_err() {
            return;
        }
        match how.trim() {
            "hang" => hang(),
            "crash" => abort(),
            _ => self.lie = 1,
        }
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}
