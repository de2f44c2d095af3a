//! Reads ECDSA keys in OpenSSH's format whose scalar (the secret number) is short. OpenSSH omits the leading zero bytes
//! of a scalar. One P-256 key in 512 therefore has a scalar of fewer than 32 bytes, which ssh-key refuses. Writ pads
//! the scalar before ssh-key reads the key.

#[cfg(test)]
mod tests;

use russh::keys::PrivateKey;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key;
use zeroize::Zeroizing;

/// Start of an unencrypted container with one key. A container is a decoded key file in OpenSSH's format.
const PLAIN: &[u8] = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01";
/// Length in bytes of the two check numbers at the start of the secret section. This section contains the private key.
const CHECKS: usize = 8;
/// Minimum length of a scalar that ssh-key reads, in bytes: the full length for P-256. Writ pads only shorter scalars.
const MIN_SCALAR: usize = 32;
/// Block size of a section that is not encrypted, in bytes.
const BLOCK: usize = 8;
/// Maximum number of filling bytes that ssh-key accepts at the end of the secret section. The filling aligns the
/// section to its block size.
const MAX_FILLING: usize = 16;
/// Length in bytes of the tag that AES-GCM and ChaCha20-Poly1305 put at the end of the container.
const TAG: usize = 16;

/// Reads a container. An encrypted container stays encrypted.
pub(super) fn parse(container: &[u8]) -> ssh_key::Result<PrivateKey> {
    PrivateKey::from_bytes(pad(container).as_deref().map_or(container, Vec::as_slice))
}

/// Decrypts a container that [`parse`] has read. Differs from [`PrivateKey::decrypt`] only by the padding of the
/// scalar.
pub(super) fn decrypt(key: &PrivateKey, container: &[u8], passphrase: &[u8]) -> Option<PrivateKey> {
    let cipher = key.cipher();
    let (secret, start) = key.kdf().derive_key_and_iv(cipher, passphrase).ok()?;
    let tag = if cipher.has_tag() { Some((*container.last_chunk::<TAG>()?).into()) } else { None };
    let mut section = Zeroizing::new(key.key_data().encrypted()?.to_vec());
    cipher.decrypt(&secret, &start, &mut section, tag).ok()?;
    let section = pad_section(&section).unwrap_or(section);
    PrivateKey::from_bytes(&plain(&key.public_key().to_bytes().ok()?, &section)?).ok()
}

/// Returns the container with a padded scalar. Returns `None` if the container needs no padding, is encrypted or is
/// broken.
fn pad(container: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = container.strip_prefix(PLAIN)?;
    let (public, section) = (take(&mut rest)?, take(&mut rest)?);
    let section = pad_section(section)?;
    if rest.is_empty() { plain(public, &section) } else { None }
}

/// Returns a container that is not encrypted.
fn plain(public: &[u8], section: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // A buffer that grows would leave copies of the key in memory.
    let length = PLAIN.len() + public.encoded_len().ok()? + section.encoded_len().ok()?;
    let mut container = Zeroizing::new(Vec::with_capacity(length));
    container.extend_from_slice(PLAIN);
    public.encode(&mut *container).ok()?;
    section.encode(&mut *container).ok()?;
    Some(container)
}

/// Returns the secret section with a padded scalar. Returns `None` if the section needs no padding, is broken, or has a
/// scalar of zero, which has no bytes.
fn pad_section(section: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = section.get(CHECKS..)?;
    if !take(&mut rest)?.starts_with(b"ecdsa-sha2-") {
        return None;
    }
    let (_curve, _point) = (take(&mut rest)?, take(&mut rest)?);
    let head = section.get(..section.len().checked_sub(rest.len())?)?;
    let (scalar, comment) = (take(&mut rest)?, take(&mut rest)?);
    let is_filling = rest.iter().copied().eq((1..).take(rest.len().min(MAX_FILLING)));
    if !(1..MIN_SCALAR).contains(&scalar.len()) || !is_filling {
        return None;
    }
    let mut padded = Zeroizing::new(Vec::with_capacity(section.len() + MIN_SCALAR + BLOCK));
    padded.extend_from_slice(head);
    MIN_SCALAR.encode(&mut *padded).ok()?;
    padded.extend(std::iter::repeat_n(0, MIN_SCALAR - scalar.len()));
    padded.extend_from_slice(scalar);
    comment.encode(&mut *padded).ok()?;
    let filling = padded.len().next_multiple_of(BLOCK) - padded.len();
    padded.extend((1..).take(filling));
    Some(padded)
}

/// Takes a string from the front: its length in four bytes, then its content.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (string, after) = after.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    *rest = after;
    Some(string)
}
