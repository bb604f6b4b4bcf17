//! What surrounds the CEL parser: duration literals, places, and plain words for its faults.

use super::term::{ExprError, Fault};
use crate::base::units::Duration;

/// Duration literals by byte offset.
pub(super) type Durations = Vec<(usize, u64)>;

/// Replaces `10s` by an identifier of the same length and remembers its value by its offset.
pub(super) fn take_out_durations(text: &str) -> Result<(String, Durations), Vec<ExprError>> {
    let bytes = text.as_bytes();
    let mut prepared = bytes.to_vec();
    let mut durations = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let start = at;
                while at < bytes.len()
                    && (bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'.' | b'_'))
                {
                    at += 1;
                }
                let word = &text[start..at];
                let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                let number = unit.is_empty()
                    || word.parse::<f64>().is_ok()
                    || word.starts_with("0x")
                    || word.trim_end_matches(['u', 'U']).bytes().all(|b| b.is_ascii_digit());
                if number {
                    continue;
                }
                match word.parse::<Duration>() {
                    Ok(duration) => {
                        durations.push((start, duration.as_ms()));
                        prepared[start..at].fill(b'_');
                    }
                    Err(error) => {
                        return Err(vec![ExprError {
                            fault: Fault::WrongOperand,
                            offset: start,
                            width: word.len(),
                            message: error.message,
                            help: error.help,
                        }]);
                    }
                }
            }
            b if b.is_ascii_alphabetic() || b == b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    // Only whole ASCII words were replaced, so this is UTF-8 as before.
    Ok((String::from_utf8_lossy(&prepared).into_owned(), durations))
}

/// The byte offset of a line and column (both from 1, the column in characters).
pub(super) fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let rest = text.get(line_start..).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or(0);
    line_start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
}

/// The parser's words made plainer, and what usually helps.
pub(super) fn explain_syntax(text: &str, offset: usize, words: &str) -> (String, String) {
    let rest = text.get(offset..).unwrap_or_default();
    let found = rest.split_whitespace().next();
    let doubled = |c: &str, right: &str| rest.starts_with(c) && !rest.starts_with(right);
    let help = if doubled("=", "==") {
        "equality is written `==`"
    } else if doubled("&", "&&") || rest.starts_with("and") {
        "and is written `&&`"
    } else if doubled("|", "||") || rest.starts_with("or") {
        "or is written `||`"
    } else if rest.starts_with("not ") {
        "not is written `!`"
    } else if words.contains("reserved") {
        "this word is reserved in CEL; use `value(\"feature/property\")` for a property of that name"
    } else if words.contains("has()") {
        "`has` takes `feature.property`"
    } else if found.is_none() {
        "something is missing at the end, such as an operand or a `)`"
    } else {
        ""
    };
    let message = match found {
        Some(_) if words.contains("reserved") || words.contains("has()") => {
            format!("not a CEL expression: {words}")
        }
        Some(found) => {
            format!("not a CEL expression at `{}`", found.chars().take(24).collect::<String>())
        }
        None => "not a CEL expression: it ends too early".to_owned(),
    };
    (message, help.to_owned())
}
