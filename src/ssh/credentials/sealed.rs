//! Opens keys with the legacy encryption of OpenSSH and OpenSSL (`Proc-Type: 4,ENCRYPTED`): AES in CBC mode, with a key
//! from MD5. The decryption is fast, so no maximum number of rounds is necessary.

use aes::{Aes128, Aes192, Aes256};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit, KeyIvInit};
use zeroize::{Zeroize as _, Zeroizing};

use super::error::CredentialsError;
use super::file::Sealed;

/// Size of the salt, in bytes. The salt is the start of the initialization vector.
const SALT: usize = 8;

impl Sealed {
    /// Decrypts the block. A wrong passphrase yields an error, or bytes that are no key.
    pub(super) fn open(&self, bytes: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
        let start = hexadecimal(&self.start).ok_or(CredentialsError::Unparsable)?;
        let salt = start.get(..SALT).ok_or(CredentialsError::Unparsable)?;
        match self.cipher.as_str() {
            "AES-128-CBC" => decrypt::<Aes128>(bytes, &key(passphrase, salt, 16), &start),
            "AES-192-CBC" => decrypt::<Aes192>(bytes, &key(passphrase, salt, 24), &start),
            "AES-256-CBC" => decrypt::<Aes256>(bytes, &key(passphrase, salt, 32), &start),
            _ => Err(CredentialsError::Encryption),
        }
    }
}

fn decrypt<C>(bytes: &[u8], key: &[u8], start: &[u8]) -> Result<Zeroizing<Vec<u8>>, CredentialsError>
where
    C: BlockCipherDecrypt + KeyInit,
    Decryptor<C>: KeyIvInit + BlockModeDecrypt,
{
    let cipher = Decryptor::<C>::new_from_slices(key, start).map_err(|_| CredentialsError::Unparsable)?;
    let mut opened = Zeroizing::new(bytes.to_vec());
    let length = cipher.decrypt_padded::<Pkcs7>(&mut opened).map_err(|_| CredentialsError::PassphraseWrong)?.len();
    opened.truncate(length);
    Ok(opened)
}

/// Derives the key of the cipher with OpenSSL's EVP_BytesToKey and one round of MD5. Each part of the key is the digest
/// of the previous part, the passphrase and the salt.
fn key(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut part = Vec::new();
    while key.len() < length {
        let mut context = md5::Context::new();
        context.consume(&part);
        context.consume(passphrase);
        context.consume(salt);
        part.zeroize();
        part.extend_from_slice(&context.finalize().0);
        key.extend_from_slice(&part);
    }
    part.zeroize();
    key.truncate(length);
    key
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
