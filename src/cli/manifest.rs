//! Reads manifests as kubectl does, and records the line of each value.
//!
//! # Guarantees
//! The result is the object that kubectl would send to the API server, or an error.
//! `docs/design/20261130-reads-as-kubectl.md` explains why this module does not use a YAML library for serde.

mod composer;
mod node;
mod scalars;
mod stream;

pub use node::{Content, Entry, Fault, Node};

/// Returns the documents of a file. After an unreadable document, the other documents are still read.
///
/// # Errors
/// The bytes are not valid text.
pub fn read(bytes: &[u8]) -> Result<Vec<Result<Node, Fault>>, Fault> {
    let text = decode(bytes)?;
    Ok(stream::documents(&text))
}

/// Decodes the bytes as kubectl does: as UTF-8, or in the encoding that a byte order mark names.
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
