//! What people put into a Secret as a private key: one block between a BEGIN and an END line, in any of the forms that OpenSSH
//! opens, however the text was carried there (line ends of Windows, a byte order mark, indentation, text around the block).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::CredentialsError;

/// The form of a block, by its label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// OpenSSH's own, encrypted or not.
    OpenSsh,
    /// PKCS#8.
    Pkcs8,
    /// PKCS#8, encrypted.
    EncryptedPkcs8,
    /// PKCS#1: an RSA key.
    Pkcs1,
    /// SEC 1: an EC key.
    Sec1,
}

/// How a PKCS#1 or SEC 1 block is encrypted (RFC 1421, as OpenSSL has it).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sealed {
    /// The cipher: `AES-128-CBC`.
    pub cipher: String,
    /// What it starts with, in hexadecimal.
    pub start: String,
}

/// The first block that holds a private key.
pub(super) struct Block {
    pub form: Form,
    pub sealed: Option<Sealed>,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// The first private key in a file.
pub(super) fn first_key(file: &[u8]) -> Result<Block, CredentialsError> {
    let text = std::str::from_utf8(file).map_err(|_| CredentialsError::NotText)?;
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let form = loop {
        let Some(line) = lines.next() else { return Err(no_key(text)) };
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        match label {
            "OPENSSH PRIVATE KEY" => break Form::OpenSsh,
            "PRIVATE KEY" => break Form::Pkcs8,
            "ENCRYPTED PRIVATE KEY" => break Form::EncryptedPkcs8,
            "RSA PRIVATE KEY" => break Form::Pkcs1,
            "EC PRIVATE KEY" => break Form::Sec1,
            "DSA PRIVATE KEY" => return Err(CredentialsError::Unsupported("ssh-dss".to_owned())),
            // `openssl ecparam -genkey` has the parameters before the key, others a certificate.
            _ => {}
        }
    };
    let (sealed, bytes) = body(lines, text.len())?;
    Ok(Block { form, sealed, bytes })
}

/// What there is instead of a private key.
fn no_key(text: &str) -> CredentialsError {
    const PUBLIC: [&str; 8] = [
        "ssh-ed25519 ",
        "ssh-rsa ",
        "ssh-dss ",
        "ecdsa-sha2-",
        "sk-",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN RSA PUBLIC KEY-----",
        "---- BEGIN SSH2 PUBLIC KEY ----",
    ];
    let is_first = |word: &str| text.lines().any(|line| line.trim_start_matches('\u{feff}').trim().starts_with(word));
    if is_first("PuTTY-User-Key-File") {
        return CredentialsError::Putty;
    }
    if PUBLIC.into_iter().any(is_first) {
        return CredentialsError::Public;
    }
    let mut once = Zeroizing::new(Vec::with_capacity(text.len()));
    let packed: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
    let is_base64 = STANDARD.decode_vec(packed.as_bytes(), &mut once).is_ok();
    if is_base64 && once.starts_with(b"-----BEGIN ") {
        return CredentialsError::EncodedTwice;
    }
    CredentialsError::Unparsable
}

/// The lines up to the END line: headers, where there are any, and base64; in memory that is wiped. `most` is as much as there
/// can be: what grows leaves copies behind.
fn body<'a>(
    lines: impl Iterator<Item = &'a str>,
    most: usize,
) -> Result<(Option<Sealed>, Zeroizing<Vec<u8>>), CredentialsError> {
    let mut base64 = Zeroizing::new(String::with_capacity(most));
    let (mut is_encrypted, mut sealed, mut is_whole) = (false, None, false);
    for line in lines {
        if line.starts_with("-----END ") {
            is_whole = true;
            break;
        }
        match line.split_once(':') {
            Some(("Proc-Type", kind)) => is_encrypted = kind.trim().ends_with("ENCRYPTED"),
            Some(("DEK-Info", kind)) => {
                let (cipher, start) = kind.trim().split_once(',').unwrap_or((kind.trim(), ""));
                sealed = Some(Sealed { cipher: cipher.trim().to_owned(), start: start.trim().to_owned() });
            }
            // Other headers say nothing that is needed.
            Some(_) => {}
            None => base64.extend(line.split_whitespace()),
        }
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(base64.len()));
    let decoded = STANDARD.decode_vec(base64.as_bytes(), &mut bytes);
    if !is_whole || bytes.is_empty() || decoded.is_err() {
        return Err(CredentialsError::Unparsable);
    }
    let unknown = || Sealed { cipher: "none that is named".to_owned(), start: String::new() };
    let sealed = if is_encrypted { Some(sealed.unwrap_or_else(unknown)) } else { None };
    Ok((sealed, bytes))
}

/// A PKCS#1 key in the frame that PKCS#8 has for RSA (RFC 5208): version 0, the algorithm, and the key as a string of octets.
pub(super) fn pkcs8_of_rsa(key: &[u8]) -> Zeroizing<Vec<u8>> {
    const VERSION_AND_ALGORITHM: [u8; 18] =
        [0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let octets = header(0x04, key.len());
    let all = header(0x30, VERSION_AND_ALGORITHM.len() + octets.len() + key.len());
    let parts = [&all[..], &VERSION_AND_ALGORITHM, &octets, key];
    let mut der = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| der.extend_from_slice(part));
    der
}

/// Tag and length as DER has them.
fn header(tag: u8, length: usize) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![tag, short],
        // At most 8 bytes, so the number of them fits.
        _ => [tag, 0x80 | (significant.len() as u8)].into_iter().chain(significant).collect(),
    }
}
