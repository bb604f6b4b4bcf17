//! Words in messages: the closest known word, and lists of words.

/// The known word that a misspelt one most likely stands for, if one is close enough: at most a
/// third of its letters differ (none of one or two), swaps counted once, letter case not at all.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let far = match word.chars().count() {
        0..=2 => 0,
        length => (length / 3).min(4),
    };
    known
        .into_iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Most fields that a message lists; more would bury the message.
const LISTED_MAX: usize = 16;

/// `a`, `b` and `c`; at most [`LISTED_MAX`] of them.
pub fn list_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    let hidden = words.len().saturating_sub(LISTED_MAX);
    if hidden > 0 {
        words.truncate(LISTED_MAX);
        return format!("{} and {hidden} more", words.join(", "));
    }
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "none".to_owned(),
    }
}
/// A text for people, without its end if it is longer than `max` characters.
pub fn cut(text: &str, max: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => text.into(),
        Some((at, _)) => {
            let left_out = text[at..].chars().count();
            format!("{}… ({left_out} more characters)", &text[..at]).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß!", 3), "äöü… (2 more characters)");
    }
}
