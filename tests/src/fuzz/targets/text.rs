//! Text that people or programs write: settings, durations, sizes, the example application's lines.

use super::SMALL;
use crate::fuzz::{Bound, Seen, Target, scratch};
use clap::Parser;
use hashmap::Map;
use mesh::node::config::load_from;
use mesh::node::human;
use std::ffi::OsString;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "settings",
        about: "the settings file (TOML) and the environment",
        seeds: settings_seeds,
        words: &[
            b"number = ",
            b"list = [",
            b"text = \"\"",
            b"\"\"\"",
            b"[[a]]",
            b"{ a = 1 }",
            b"1979-05-27T07:32:00Z",
            b"nan",
            b"0x_",
            b"\n",
            b"\\u{110000}",
        ],
        longest: 2048,
        bound: Bound { per_byte: 4096, base: 1 << 20 },
        run: settings,
    },
    Target {
        name: "human",
        about: "durations and sizes",
        seeds: human_seeds,
        words: &[b"ms", b"s", b"m", b"h", b"d", b"y", b"KiB", b"MiB", b"TiB", b" ", b"."],
        longest: 200,
        bound: SMALL,
        run: durations_and_sizes,
    },
    Target {
        name: "hashmap",
        about: "the example application's requests",
        seeds: hashmap_seeds,
        words: &[
            b"PUT ",
            b"GET ",
            b"REMOVE ",
            b"SIZE\n",
            b"DUMP",
            b" AFTER ",
            b" LIMIT ",
            b"LOAD [[\"a\",\"b\"]]\n",
            b"\\u0000",
            b"\\ud800",
            b"\n",
            b"\r\n",
        ],
        longest: 2048,
        bound: Bound { per_byte: 64, base: 256 << 10 },
        run: requests,
    },
];

/// A command of the kinds of settings that there are.
#[derive(Debug, Parser)]
struct Settings {
    #[arg(long)]
    config: Option<String>,
    #[arg(long, default_value_t = 1)]
    number: u16,
    #[arg(long, value_delimiter = ',')]
    list: Vec<u64>,
    #[arg(long)]
    text: Option<String>,
    #[arg(long)]
    flag: bool,
    #[arg(long, value_parser = human::parse_positive_duration)]
    time: Option<std::time::Duration>,
    #[arg(long, value_parser = human::parse_size)]
    size: Option<u64>,
}

fn settings_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "number = 7\nlist = [1, 2, 3]\ntext = \"a\"\nflag = true\ntime = \"1m 30s\"\nsize = \"8MiB\"\n",
        "number = \"7\"\nunknown = 1\n[table]\na = 1\n",
        "flag = \"yes\"\nlist = [[1]]\n",
        "text = '''a\nb'''\nnumber = 0x10\nsize = 1.5\n# comment",
    ];
    texts.iter().flat_map(|text| [b"0", b"1"].map(|kind| [&kind[..], text.as_bytes()].concat())).collect()
}

/// The bytes are the file; or each of its lines `name = value` is in the environment.
fn settings(input: &[u8], seen: &mut Seen) {
    let Some((&kind, text)) = input.split_first() else { return };
    let file = scratch().join("settings.toml");
    std::fs::create_dir_all(scratch()).expect("a writable scratch directory");
    std::fs::write(&file, if kind & 1 == 0 { text } else { b"" }).expect("a writable scratch directory");
    let lines = String::from_utf8_lossy(text);
    let env = |name: &str| {
        let key = name.strip_prefix("LOCKSTEP_")?.to_ascii_lowercase();
        let line = lines.lines().find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == key));
        line.filter(|_| kind & 1 == 1).map(|(_, value)| OsString::from(value.trim()))
    };
    let argv = [OsString::from("fuzz"), OsString::from("--config"), file.into_os_string()];
    match load_from::<Settings>(&argv, &env) {
        Ok(settings) => {
            let Settings { config, number, list, text, flag, time, size } = settings;
            assert!(config.is_some() && time.is_none_or(|time| !time.is_zero()));
            seen.note((number > 1, list.len().min(4), text.is_some(), flag, time.is_some(), size.is_some()));
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            seen.note((kind & 1, text.lines().count().min(6)));
            seen.note(text.chars().filter(char::is_ascii_alphabetic).skip(40).take(50).collect::<String>());
        }
    }
}

fn human_seeds() -> Vec<Vec<u8>> {
    ["300ms", "1m 30s", "10", "1y 2d", "8MiB", "64kB", "64 KiB", "99999999999TiB", "0s"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn durations_and_sizes(input: &[u8], seen: &mut Seen) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(duration) = human::parse_duration(text) {
        let written = human::format_duration(duration);
        assert_eq!(human::parse_duration(&written), Ok(duration), "{written}");
        assert_eq!(human::parse_positive_duration(text).is_ok(), !duration.is_zero());
        seen.note(("duration", duration.as_nanos().checked_ilog2()));
    }
    if let Ok(bytes) = human::parse_size(text) {
        assert_eq!(human::parse_size(&human::format_size(bytes)), Ok(bytes));
        seen.note(("size", bytes.checked_ilog2()));
    }
    seen.length("text", text.len());
}

fn hashmap_seeds() -> Vec<Vec<u8>> {
    let sessions = [
        "PUT a one two\nGET a\nSIZE\nDUMP\nREMOVE a\nREMOVE a\n",
        "PUT b 2\r\nDUMP AFTER a LIMIT 1\nDUMP LIMIT 0\nLOAD [[\"a\",\"1\"],[\"b\",\"x y\"]]\nDUMP\n",
        "LOAD [[\"a b\",\"c\"]]\nLOAD [\nPUT\n\nget a\nPUT \u{e4} \u{1}\n",
    ];
    sessions.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Each line is a request.
fn requests(input: &[u8], seen: &mut Seen) {
    let mut map = Map::default();
    for line in input.split(|byte| *byte == b'\n') {
        let mut reply = Vec::new();
        map.execute(line, &mut reply);
        assert_eq!(reply.iter().filter(|byte| **byte == b'\n').count(), 1, "a reply is one line");
        assert!(reply.ends_with(b"\n") && std::str::from_utf8(&reply).is_ok());
        seen.note((line.first(), reply.get(..8.min(reply.len())).map(<[u8]>::to_vec)));
    }
    let mut dump = Vec::new();
    map.execute(b"DUMP", &mut dump);
    let json = dump.strip_prefix(b"ENTRIES ").and_then(|rest| rest.strip_suffix(b"\n")).expect("a dump");
    let (mut copy, mut reply) = (Map::default(), Vec::new());
    copy.execute(&[b"LOAD ", json].concat(), &mut reply);
    assert_eq!(reply, b"OK\n");
    assert_eq!(copy, map, "a load of a dump makes the same map");
}
