//! Reads manifests as kubectl does, with the line of each value.
//!
//! # Guarantees
//! The result is what kubectl sends to the API server, or an error. `docs/design/20261130-reads-as-kubectl.md` explains
//! why no YAML library for serde does this.

mod composer;
mod node;
mod scalars;
mod stream;

pub use node::{Content, Entry, Fault, Node};

/// Returns the documents of a file. An unreadable document does not hide the others.
///
/// # Errors
/// The bytes are not text.
pub fn read(bytes: &[u8]) -> Result<Vec<Result<Node, Fault>>, Fault> {
    let text = decode(bytes)?;
    Ok(stream::documents(&text))
}

/// Decodes UTF-8, or the encoding of a byte order mark, as kubectl does.
fn decode(bytes: &[u8]) -> Result<String, Fault> {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(read)).collect();
        String::from_utf16_lossy(&units)
    };
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return Ok(utf16(rest, u16::from_le_bytes));
    }
    if let Some(rest) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return Ok(utf16(rest, u16::from_be_bytes));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let before = bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Fault { line, message: "neither YAML nor JSON: not encoded in UTF-8".to_owned() }
    })
}

#[cfg(test)]
mod tests;
