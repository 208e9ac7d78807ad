//! Reads YAML into [`Node`]s: aliases and merge keys are written out; the size of what comes of it is bounded.

use super::Problem;
use super::node::Node;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Parts of all documents together, aliases written out.
const NODES_MAX: usize = 200_000;
/// How deep they may be nested.
const DEPTH_MAX: usize = 64;

/// The documents of a text; empty ones are left out.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            // Anchors end with their document.
            (Event::DocumentStart(_), _) => reader.anchors.clear(),
            (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
            (event, line) => documents.extend(Some(reader.node(event, line, 0)?).filter(|node| !node.is_null())),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

fn at(line: usize, what: impl std::fmt::Display) -> Problem {
    Problem::usage(format!("line {line}: {what}"))
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => Err(at(error.marker().line(), format!("this is no YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    /// The node that begins with this event.
    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, Problem> {
        if depth > DEPTH_MAX {
            return Err(at(line, format!("more than {DEPTH_MAX} levels deep")));
        }
        self.count(1, line)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), line)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_ref(), "seq", line)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_ref(), "map", line)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| at(line, "an alias of what it is a part of"))?;
                self.count(size(&node), line)?;
                return Ok(node);
            }
            other => return Err(at(line, format!("{other:?} where a value belongs"))),
        };
        if anchor != 0 {
            self.count(size(&node), line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > NODES_MAX { Err(at(line, format!("more than {NODES_MAX} values"))) } else { Ok(()) }
    }

    fn list(&mut self, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::List(items)),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, Problem> {
        let (mut entries, mut merged): (Vec<(Node, Node)>, Vec<Node>) = (Vec::new(), Vec::new());
        loop {
            let (event, line) = match self.next()? {
                (Event::MappingEnd, _) => break,
                begin => begin,
            };
            let key = self.node(event, line, depth + 1)?;
            let (event, value_line) = self.next()?;
            let value = self.node(event, value_line, depth + 1)?;
            let name = match &key {
                Node::Raw(text) | Node::Text(text) => text.as_str(),
                Node::List(_) | Node::Map(_) => return Err(at(line, "only a scalar can be a key")),
            };
            if key == Node::Raw("<<".to_owned()) {
                merged.extend(if let Node::List(items) = value { items } else { vec![value] });
            } else if entries.iter().any(|(known, _)| scalar_text(known) == name) {
                return Err(at(line, format!("{name} is there twice")));
            } else {
                entries.push((key, value));
            }
        }
        for node in merged {
            let Node::Map(more) = node else {
                return Err(Problem::usage("<<: only a mapping can be merged".to_owned()));
            };
            for (key, value) in more {
                if !entries.iter().any(|(known, _)| scalar_text(known) == scalar_text(&key)) {
                    entries.push((key, value));
                }
            }
        }
        Ok(Node::Map(entries))
    }
}

fn scalar_text(node: &Node) -> &str {
    match node {
        Node::Raw(text) | Node::Text(text) => text,
        Node::List(_) | Node::Map(_) => "",
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Node, Problem> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(Node::plain(text.to_owned())),
        None => Ok(Node::text(text)),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(Node::text(text)),
            "null" | "bool" | "int" | "float" => Ok(Node::plain(text.to_owned())),
            _ => Err(at(line, format!("a value of the type {tag}: Kubernetes has none"))),
        },
        Some(tag) => Err(at(line, format!("a value of the type {tag}: Kubernetes has none"))),
    }
}

fn check_tag(tag: Option<&Cow<'_, Tag>>, fits: &str, line: usize) -> Result<(), Problem> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() || tag.suffix != fits => {
            Err(at(line, format!("a value of the type {tag}: Kubernetes has none")))
        }
        _ => Ok(()),
    }
}

fn size(node: &Node) -> usize {
    match node {
        Node::Raw(_) | Node::Text(_) => 1,
        Node::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Node::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + size(value)).sum::<usize>(),
    }
}
