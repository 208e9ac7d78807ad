//! A YAML document as it was written: scalars that were plain are kept letter by letter, for `0644`, `yes` and `1e3` mean
//! something else to each reader of YAML; nothing is interpreted here but what `inject` asks for.

/// A document, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A plain scalar that may be something else than a string, as it was written.
    Raw(String),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in its order; the keys are scalars, each there once.
    Map(Vec<(Node, Node)>),
}

/// Words that some reader of YAML takes for something else than a string.
const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// Whether every reader of YAML takes this for a string when it is written plainly. Other strings may be plain too, and are
/// quoted all the same.
pub(super) fn is_plainly_a_string(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = match chars.next() {
        Some('-') => text[1..].trim_start_matches('-').starts_with(|next: char| next.is_ascii_alphabetic()),
        Some(first) => first.is_ascii_alphabetic() || first == '/',
        None => false,
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@$()+%~".contains(c);
    begins && chars.all(inner) && !text.ends_with(':') && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// A scalar that is no string: `null`.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

impl Node {
    /// A plain scalar: what cannot be anything but a string is one.
    pub(super) fn plain(text: String) -> Self {
        if is_plainly_a_string(&text) || text.contains('\n') { Self::Text(text) } else { Self::Raw(text) }
    }

    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number.
    pub(super) fn number(number: u64) -> Self {
        Self::Raw(number.to_string())
    }

    /// `true` or `false`.
    pub(super) fn truth(value: bool) -> Self {
        Self::Raw(value.to_string())
    }

    /// A mapping.
    pub(super) fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Self::text(key), value)).collect())
    }

    /// A sequence.
    pub(super) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// Nothing was given.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Raw(text) if is_null(text))
    }

    /// What a scalar says.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Raw(text) if !is_null(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is written as one.
    pub(super) fn as_number(&self) -> Option<u64> {
        match self {
            Self::Raw(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// `true`, also as YAML 1.1 wrote it.
    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Raw(text) if ["true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str()))
    }

    /// What a mapping has there, if that is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(known, _)| known.as_str() == Some(key)).map(|(_, value)| value).filter(|v| !v.is_null())
    }

    /// The same, deeper.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// What a scalar says there.
    pub(super) fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// The items of the sequence that a mapping has there; none if there is no such thing.
    pub(super) fn items(&self, key: &str) -> &[Self] {
        match self.get(key) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }

    /// Puts a value into a mapping, in the place of the former one if there is one.
    pub(super) fn set(&mut self, key: &str, value: Self) {
        *self.entry(key) = value;
    }

    /// Takes a key out of a mapping.
    pub(super) fn remove(&mut self, key: &str) {
        if let Self::Map(entries) = self {
            entries.retain(|(known, _)| known.as_str() != Some(key));
        }
    }

    /// The mapping that a mapping has there, made where there is none.
    pub(super) fn child(&mut self, key: &str) -> &mut Self {
        let child = self.entry(key);
        if child.is_null() {
            *child = Self::Map(Vec::new());
        }
        child
    }

    /// Appends to the sequence that a mapping has there, made where there is none.
    pub(super) fn push(&mut self, key: &str, item: Self) {
        let list = self.entry(key);
        if list.is_null() {
            *list = Self::List(Vec::new());
        }
        match list {
            Self::List(items) => items.push(item),
            other => unreachable!("{key} was looked at before: {other:?}"),
        }
    }

    /// An item of the sequence that a mapping has there. Whoever asks has looked whether there are so many.
    pub(super) fn item(&mut self, key: &str, index: usize) -> &mut Self {
        match self.entry(key) {
            Self::List(items) => &mut items[index],
            other => unreachable!("{key} was looked at before: {other:?}"),
        }
    }

    fn entry(&mut self, key: &str) -> &mut Self {
        let Self::Map(entries) = self else { unreachable!("{self:?} was looked at before: a mapping with {key}") };
        let index = entries.iter().position(|(known, _)| known.as_str() == Some(key)).unwrap_or_else(|| {
            entries.push((Self::text(key), Self::Raw("null".to_owned())));
            entries.len() - 1
        });
        &mut entries[index].1
    }
}
