//! Private keys in files of their own.

use rand_chacha::rand_core::Rng;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a key file begins with.
const PREFIX: &str = "privkey:";

/// A Curve25519 private key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PrivateKey(pub [u8; 32]);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("cannot read or make the key file {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} has mode {mode:o}, so that others may read this private key; run: chmod 600 {path}")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "{path} is no key file ({why}); restore it, or remove it to have a new key made (a new identity)"
    )]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

/// Reads what a key file holds: `privkey:` and 64 hexadecimal digits, then a newline or nothing.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_key(text: &[u8]) -> Result<PrivateKey, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text")?;
    let digits = text
        .trim_end_matches(['\n', '\r'])
        .strip_prefix(PREFIX)
        .ok_or("it does not begin with `privkey:`")?;
    decode_hex(digits).map(PrivateKey)
}

/// 64 hexadecimal digits.
pub(super) fn decode_hex(digits: &str) -> Result<[u8; 32], &'static str> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    if digits.len() != 64 {
        return Err("a key has 64 hexadecimal digits");
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err("a key has hexadecimal digits only"),
        }
    }
    Ok(key)
}

pub(super) fn encode_hex(key: &[u8; 32]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    key.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The key in a file, which is made if there is none yet, for its owner alone.
pub(super) fn load_or_make(path: &Path, rng: &mut impl Rng) -> Result<PrivateKey, KeyError> {
    match load(path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            let failed = |source| KeyError::Io { path: path.to_owned(), source };
            match make(path, &key, rng.next_u64()).map_err(failed) {
                // Somebody else was faster.
                Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    load(path)
                }
                result => result.map(|()| PrivateKey(key)),
            }
        }
        result => result,
    }
}

fn load(path: &Path) -> Result<PrivateKey, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read(path).map_err(failed)?;
    parse_key(&text).map_err(|why| KeyError::Malformed { path: path.to_owned(), why })
}

/// Puts another key in the place of that in a file, whole or not at all.
pub(super) fn replace(path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{PREFIX}{}", encode_hex(key)).and_then(|()| file.sync_all())?;
    fs::rename(&draft, path)
}

/// Writes it whole or not at all: under another name first, which then becomes its own unless that is taken.
fn make(path: &Path, key: &[u8; 32], unique: u64) -> io::Result<()> {
    let draft = path.with_extension(format!("{unique:x}.new"));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{PREFIX}{}", encode_hex(key)).and_then(|()| file.sync_all());
    let result = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_refused_when_others_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let made = load_or_make(&path, &mut rng).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(&path, &mut rng).unwrap(), made, "the same the next time");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load_or_make(&path, &mut rng).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o644, .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "privkey:12").unwrap();
        let error = load_or_make(&path, &mut rng).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"privkey:12", "what is there is never overwritten");
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in any::<[u8; 32]>()) {
            let text = format!("{PREFIX}{}\n", encode_hex(&key));
            prop_assert_eq!(parse_key(text.as_bytes()), Ok(PrivateKey(key)));
        }

        #[test]
        fn any_bytes_are_a_key_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_key(&bytes);
        }

        #[test]
        fn nearly_a_key_is_an_error_or_a_key(text in "privkey:[0-9a-fA-Fé]{60,66}\n?") {
            prop_assert_eq!(parse_key(text.as_bytes()).is_ok(), text.is_ascii() && text.trim_end().len() == 8 + 64);
        }
    }
}
