//! Finding a few bytes in many megabytes (R. N. Horspool, "Practical fast searching in strings", 1980). It skips most of
//! what it searches, which an emulated CPU needs: there every byte that is looked at is dear.

/// Where `needle` begins, each time that it occurs, from the front. An empty needle occurs nowhere.
pub fn occurrences<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    // How far the needle may move when its last byte faces a certain byte of the haystack.
    let mut shift = [needle.len().max(1); 256];
    for (at, byte) in needle.iter().enumerate().take(needle.len().saturating_sub(1)) {
        shift[usize::from(*byte)] = needle.len() - 1 - at;
    }
    let mut at = 0;
    std::iter::from_fn(move || {
        while !needle.is_empty() {
            let window = haystack.get(at..at + needle.len())?;
            let last = window[window.len() - 1];
            let here = at;
            at += shift[usize::from(last)];
            if window == needle {
                return Some(here);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
        occurrences(haystack, needle).collect()
    }

    #[test]
    fn edges() {
        assert_eq!(found(b"abcabc", b"abc"), [0, 3]);
        assert_eq!(found(b"aaaa", b"aa"), [0, 1, 2]);
        assert_eq!(found(b"ab", b"abc"), [0; 0]);
        assert_eq!(found(b"ab", b""), [0; 0]);
        assert_eq!(found(b"", b"a"), [0; 0]);
    }

    proptest! {
        #[test]
        fn as_a_plain_search_finds_them(haystack in "[ab]{0,60}", needle in "[ab]{1,4}") {
            let plain: Vec<usize> = (0..haystack.len()).filter(|at| haystack[*at..].starts_with(&needle)).collect();
            prop_assert_eq!(found(haystack.as_bytes(), needle.as_bytes()), plain);
        }
    }
}
