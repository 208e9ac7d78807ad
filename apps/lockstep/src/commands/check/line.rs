//! One check: what it is about, how it ended, what was found, and what to do about it.

use serde_json::{Value, json};

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Not healthy, or not for much longer.
    Unhealthy,
    /// A certificate that is refused.
    Invalid,
}

/// What a check is about; in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    /// Certificates, on the disk and in use.
    Certificates,
    /// Parts that answer and are ready.
    Parts,
    /// A majority that agrees on a leader.
    Quorum,
    /// Links between the parts.
    Links,
    /// Replicas that are behind.
    Lag,
    /// Replies that differ.
    Divergence,
    /// Room on the disk and for the log, and how long a sync takes.
    Disk,
    /// UDP buffers, ports and open files.
    System,
    /// Clocks that differ.
    Clocks,
    /// Parts of different versions.
    Versions,
}

impl Category {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Parts => "parts",
            Self::Quorum => "quorum",
            Self::Links => "links",
            Self::Lag => "lag",
            Self::Divergence => "divergence",
            Self::Disk => "disk",
            Self::System => "system",
            Self::Clocks => "clocks",
            Self::Versions => "versions",
        }
    }
}

/// One check.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) category: Category,
    pub(super) name: String,
    pub(super) state: Verdict,
    /// One word for programs.
    pub(super) label: String,
    /// What was found.
    pub(super) text: String,
    /// What to do about it; every check that failed has one.
    pub(super) hint: Option<String>,
}

impl Check {
    /// All is well.
    pub(super) fn good(category: Category, name: impl Into<String>, label: &str, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        Self { category, name, state: Verdict::Ok, label: label.to_owned(), text, hint: None }
    }

    /// Something is not.
    pub(super) fn bad(
        category: Category,
        name: impl Into<String>,
        label: &str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (name, text, hint) = (name.into(), text.into(), Some(hint.into()));
        Self { category, name, state: Verdict::Unhealthy, label: label.to_owned(), text, hint }
    }

    pub(super) fn is_good(&self) -> bool {
        self.state == Verdict::Ok
    }

    pub(super) fn show(&self) -> Value {
        json!({
            "category": self.category.as_str(),
            "name": self.name,
            "ok": self.is_good(),
            "label": self.label,
            "text": self.text,
            "hint": self.hint,
        })
    }

    fn line(&self) -> String {
        let word = if self.is_good() { "ok    " } else { "FAILED" };
        let hint = self.hint.as_ref().map(|hint| format!("\n         hint: {hint}")).unwrap_or_default();
        format!("  {word} {}: {}{hint}\n", self.name, self.text)
    }
}

/// The checks for people, a heading over those of each category.
pub(super) fn text(checks: &[Check]) -> String {
    let mut checks: Vec<&Check> = checks.iter().collect();
    checks.sort_by_key(|check| check.category);
    let mut text = String::new();
    let mut last = None;
    for check in checks {
        if last.replace(check.category) != Some(check.category) {
            text.push_str(check.category.as_str());
            text.push('\n');
        }
        text.push_str(&check.line());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_shown_by_category_and_failed_ones_with_their_hint() {
        let checks = [
            Check::good(Category::Lag, "sidecar 0", "level", "level"),
            Check::bad(Category::Parts, "sidecar 1", "unreachable", "cannot be reached", "start it again"),
            Check::good(Category::Lag, "sidecar 1", "level", "level"),
        ];
        let expected = "parts\n  FAILED sidecar 1: cannot be reached\n         hint: start it again\n\
            lag\n  ok     sidecar 0: level\n  ok     sidecar 1: level\n";
        assert_eq!(text(&checks), expected);
    }
}
