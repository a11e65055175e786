//! Text that is nearly always ASCII, and short.
use ascii::AsciiStr;

/// The bytes as text, None where they are not UTF-8: what `std::str::from_utf8` says, sooner where they are ASCII.
#[inline]
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    match AsciiStr::from_ascii(bytes) {
        Ok(text) => Some(text.as_str()),
        Err(_) => std::str::from_utf8(bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_std_says(bytes in proptest::collection::vec(any::<u8>(), 0..9), text in ".{0,40}") {
            prop_assert_eq!(utf8(&bytes), std::str::from_utf8(&bytes).ok());
            let cut = &text.as_bytes()[..text.len().saturating_sub(1)];
            prop_assert_eq!(utf8(text.as_bytes()), Some(&text[..]));
            prop_assert_eq!(utf8(cut), std::str::from_utf8(cut).ok());
        }
    }
}
