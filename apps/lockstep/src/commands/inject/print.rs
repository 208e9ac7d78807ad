//! Prints [`Node`]s as YAML that every reader takes for the same: in blocks, as `kubectl` writes it.

use super::node::{Node, is_plainly_a_string};
use std::fmt::Write;

/// Spaces of a level.
const STEP: usize = 2;

/// The documents, one after another.
pub(super) fn print(documents: &[Node]) -> String {
    let texts: Vec<String> = documents.iter().map(document).collect();
    texts.join("---\n")
}

fn document(node: &Node) -> String {
    let mut out = String::new();
    match node {
        Node::Map(entries) if !entries.is_empty() => map(&mut out, entries, 0, false),
        Node::List(items) if !items.is_empty() => list(&mut out, items, 0, false),
        Node::Text(text) => out = format!("{}\n", on_one_line(text)),
        other => small(&mut out, other, 0),
    }
    out
}

/// `inline`: the first line has begun, with a dash.
fn map(out: &mut String, entries: &[(Node, Node)], indent: usize, inline: bool) {
    for (number, (key, value)) in entries.iter().enumerate() {
        if number > 0 || !inline {
            spaces(out, indent);
        }
        match key {
            Node::Text(text) => out.push_str(&on_one_line(text)),
            other => out.push_str(other.as_str().unwrap_or("null")),
        }
        out.push(':');
        match value {
            Node::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                map(out, entries, indent + STEP, false);
            }
            Node::List(items) if !items.is_empty() => {
                out.push('\n');
                list(out, items, indent, false);
            }
            other => {
                out.push(' ');
                small(out, other, indent + STEP);
            }
        }
    }
}

fn list(out: &mut String, items: &[Node], indent: usize, inline: bool) {
    for (number, item) in items.iter().enumerate() {
        if number > 0 || !inline {
            spaces(out, indent);
        }
        out.push_str("- ");
        match item {
            Node::Map(entries) if !entries.is_empty() => map(out, entries, indent + STEP, true),
            Node::List(items) if !items.is_empty() => list(out, items, indent + STEP, true),
            other => small(out, other, indent + STEP),
        }
    }
}

/// What follows a key or a dash, and the end of its line. Lines of a block are indented by `indent`.
fn small(out: &mut String, node: &Node, indent: usize) {
    match node {
        Node::Raw(text) if text.is_empty() => out.push_str("null"),
        Node::Raw(text) => out.push_str(text),
        Node::List(_) => out.push_str("[]"),
        Node::Map(_) => out.push_str("{}"),
        Node::Text(text) if is_block(text) => return block(out, text, indent),
        Node::Text(text) => out.push_str(&on_one_line(text)),
    }
    out.push('\n');
}

/// Whether it has lines that are read again as they are written.
fn is_block(text: &str) -> bool {
    let strange =
        |c: char| !matches!(c, '\n' | '\t') && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    let blank = |line: &str| !line.is_empty() && line.trim().is_empty();
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.chars().any(strange)
        && !text.split('\n').any(blank)
}

fn block(out: &mut String, text: &str, indent: usize) {
    let body = text.strip_suffix('\n').unwrap_or(text);
    out.push_str(match (text.ends_with('\n'), body.ends_with('\n')) {
        (false, _) => "|-\n",
        (true, false) => "|\n",
        (true, true) => "|+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            spaces(out, indent);
        }
        out.push_str(line);
        out.push('\n');
    }
}

fn on_one_line(text: &str) -> String {
    if is_plainly_a_string(text) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn spaces(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;

    fn documents(text: &str) -> Vec<Node> {
        read(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
    }

    #[test]
    fn what_was_written_plainly_stays_as_it_was_and_strings_stay_strings() {
        let text = "mode: 0644\nyes: yes\nnumber: 1e3\nversion: \"1.10\"\nword: \"on\"\nname: redis:7\nnothing: ~\nempty: \"\"\n\
                    flag: --dir=/data\ndash: \"-\"\ndate: 2026-01-02\nport: \"6379\"\nlist:\n- {}\n- []\n- - a\n  - b\n- k: v\n  l:\n  - 1\n";
        assert_eq!(print(&documents(text)), text);
    }

    #[test]
    fn whatever_is_printed_is_read_as_the_same() {
        let texts = [
            "two\nlines",
            "two\nlines\n",
            "ends\n\n\n",
            "\nbegins",
            " begins\nwith a space",
            "a\n\n  b\n c",
            "tab\there\nx",
            "\ttab\nx",
            "a\n   \nb",
            "a\r\nb",
            "colon: here",
            "# no comment",
            "a #b",
            "'",
            "\"\\\"",
            "",
            " ",
            "-",
            "--",
            "- a",
            "null",
            "Yes",
            "0x10",
            ".inf",
            "{a}",
            "[a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "a:",
            "---",
            "...",
            "---\na",
            "ü\u{85}\u{2028}\u{feff}\u{7f}\u{1}",
            "a\n# b\n",
            "#!/bin/sh\nset -e\nif true; then\n  echo \"$1\"\nfi\n",
        ];
        for text in texts {
            let text = Node::text(text);
            let inner = Node::Map(vec![(text.clone(), text.clone()), (Node::text("end"), Node::number(1))]);
            let node = Node::list([
                text.clone(),
                Node::list([text.clone(), text.clone()]),
                inner.clone(),
                Node::map([("in", inner), ("after", text.clone())]),
            ]);
            let whole = [node, text, Node::map([("last", Node::text("x"))])];
            let printed = print(&whole);
            assert_eq!(documents(&printed), whole, "{printed}");
        }
    }

    #[test]
    fn json_anchors_and_merge_keys_are_written_out() {
        let text = "base: &base {a: 1, \"b\": [x, \"2\"]}\nother: {<<: *base, a: 3}\nagain: *base\n";
        let expected = "base:\n  a: 1\n  b:\n  - x\n  - \"2\"\nother:\n  a: 3\n  b:\n  - x\n  - \"2\"\nagain:\n  a: 1\n  b:\n  - x\n  - \"2\"\n";
        assert_eq!(print(&documents(text)), expected);
        assert_eq!(print(&documents("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n")), "a: 1\n---\nb: 2\n");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        let bomb = format!(
            "a: &a0 [x, x]\n{}",
            (1..30).fold(String::new(), |text, n| { format!("{text}b{n}: &a{n} [*a{0}, *a{0}]\n", n - 1) })
        );
        let deep = "[".repeat(100);
        for (text, line) in [
            ("a: 1\nb: [\n", "line 3"),
            // The scalar that the tab is taken to be a part of begins on the line before.
            ("a: 1\n\tb: 2\n", "line 1"),
            ("a: 1\nb: 2\na: 3\n", "line 3: a is there twice"),
            ("a: !!binary aGk=\n", "line 1: a value of the type"),
            ("a: 1\n? [b]\n: c\n", "line 2: only a scalar"),
            ("a: *b\n", "line 1"),
            (&bomb, "more than 200000 values"),
            (&deep, "levels deep"),
        ] {
            let problem = format!("{:?}", read(text).expect_err(text));
            assert!(problem.contains(line), "{text}: {problem}");
        }
    }
}
