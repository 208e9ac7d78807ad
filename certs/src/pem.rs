//! PEM as OpenSSL writes it: 64 characters a line, LF.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        block.push_str(line);
        block.push('\n');
        rest = more;
    }
    block.push_str(&format!("-----END {label}-----\n"));
    block
}
