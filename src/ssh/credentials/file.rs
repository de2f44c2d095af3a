//! Reads the private key file of a Secret. The key is a block between a BEGIN and an END line, in one of the formats
//! that OpenSSH opens. Tolerates line ends of Windows, a byte order mark, indentation and text around the block.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::error::CredentialsError;

/// Format of a block, according to the label in its BEGIN line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// OpenSSH's own format, encrypted or not.
    OpenSsh,
    /// PKCS#8, not encrypted.
    Pkcs8,
    /// PKCS#8, encrypted.
    EncryptedPkcs8,
    /// PKCS#1, an RSA key.
    Pkcs1,
    /// SEC 1, an EC key.
    Sec1,
}

/// Legacy encryption of a PKCS#1 or SEC 1 block by OpenSSL (RFC 1421).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sealed {
    /// Name of the cipher, for example `AES-128-CBC`.
    pub cipher: String,
    /// Initialization vector, in hexadecimal.
    pub start: String,
}

/// A block that holds a private key.
pub(super) struct Block {
    pub form: Form,
    pub sealed: Option<Sealed>,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Returns the first private key of a file.
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
            // Skips other blocks before the key, for example the parameters that `openssl ecparam -genkey` writes.
            _ => {}
        }
    };
    let (sealed, bytes) = body(lines, text.len())?;
    Ok(Block { form, sealed, bytes })
}

/// Returns the error for a text without a private key.
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

/// Reads the lines up to the END line: optional headers, then base64. `most` is the maximum size of the base64, in
/// bytes. No buffer grows, because a growing buffer would leave copies of the key in memory. All buffers are wiped when
/// they are dropped.
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
            // Other headers are not needed.
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
