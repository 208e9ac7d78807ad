//! Durations and sizes as people write them: `300ms`, `1m 30s`, `8MiB`.

use std::time::Duration;

/// Units of sizes, the longest first where one ends another.
const UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

/// A duration such as `300ms`, `20s` or `1m 30s`.
///
/// # Errors
/// Says what is wrong with `text`, and how a duration is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}: write a number with a unit, such as 300ms, 20s or 5m"))
}

/// A duration that is longer than nothing.
///
/// # Errors
/// As [`parse_duration`], and for zero.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() { Err("must be longer than 0s".to_owned()) } else { Ok(duration) }
}

/// A size in bytes such as `8MiB`, `64kB` or `4096`. Case does not matter; there are no fractions.
///
/// # Errors
/// Says what is wrong with `text`, and how a size is written.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((lower.as_str(), 1));
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("\"{text}\" is no size: write a whole number with a unit, such as 8MiB, 64kB or 4096"))?;
    number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is more bytes than there are"))
}

/// A duration as [`parse_duration`] reads it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size as [`parse_size`] reads it: in the largest binary unit that loses nothing.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (unit, factor) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (text, bytes) in [
            ("8MiB", 8 << 20),
            ("64kB", 64_000),
            ("64 KiB", 65_536),
            ("4096", 4096),
            ("1b", 1),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5MiB", "8 miles", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("10").is_err() && parse_duration("").is_err() && parse_duration("soon").is_err());
        assert!(parse_positive_duration("0s").is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1_000_000, 8 << 20, 3 << 40, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        let duration = Duration::from_millis(90_300);
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
}
