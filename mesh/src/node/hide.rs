//! What must not be seen of a command line: passwords and their like, wherever settings are shown.

/// In the place of what is hidden.
pub const HIDDEN: &str = "(hidden)";

/// Parts of names that promise a secret.
const NAMES: [&str; 6] = ["pass", "secret", "token", "auth", "credential", "apikey"];

/// The words of a command, without the values of what is named like a secret: `--password=X`, `--requirepass X`,
/// `PASSWORD=X`.
#[must_use]
pub fn secrets(words: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(words.len());
    let mut hide_next = false;
    for word in words {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let lower = name.to_ascii_lowercase();
        let is_secret = NAMES.iter().any(|part| lower.contains(part));
        if std::mem::take(&mut hide_next) && !word.starts_with('-') {
            shown.push(HIDDEN.to_owned());
        } else if is_secret && value.is_some() {
            shown.push(format!("{name}={HIDDEN}"));
        } else {
            // Its value is the next word, if it is a flag.
            hide_next = is_secret && name.starts_with('-');
            shown.push(word.clone());
        }
    }
    shown
}

/// The same of a request in the application's protocol: everything after a word that is named like a secret.
#[must_use]
pub fn request(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let lower = |word: &str| word.to_ascii_lowercase();
    let at = words.iter().position(|word| NAMES.iter().any(|part| lower(word).contains(part)));
    at.map_or_else(|| text.to_owned(), |at| format!("{} {HIDDEN}", words[..=at].join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        secrets(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn values_of_secrets_are_hidden_and_nothing_else() {
        assert_eq!(
            shown("redis-server --port 1 --requirepass abc --save x"),
            "redis-server --port 1 --requirepass (hidden) --save x"
        );
        assert_eq!(shown("app --token=abc DB_PASSWORD=abc"), "app --token=(hidden) DB_PASSWORD=(hidden)");
        assert_eq!(shown("app --no-auth --port 1"), "app --no-auth --port 1");
        assert_eq!(shown("app author passes"), "app author passes");
        assert_eq!(request("AUTH user abc"), "AUTH (hidden)");
        assert_eq!(request("FLUSHALL"), "FLUSHALL");
    }
}
