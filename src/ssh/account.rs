//! Recognizes banners about accounts that cannot be used for a login.

/// Phrases of OpenSSH, PAM, shadow and util-linux about unusable accounts, in lower case.
const ACCOUNT_WORDS: [&str; 9] = [
    "password change required",
    "password has expired",
    "password expired",
    "change your password",
    "account has expired",
    "account expired",
    "account is locked",
    "account has been locked",
    "account is currently not available",
];

/// Returns true if the banner says that the account needs manual action.
pub fn is_about_account(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ACCOUNT_WORDS.iter().any(|known| words.contains(known))
}
