//! Lines of a serial connection: a message or a command, framed with a checksum.
//!
//! Not here: what stands in the frame (`uplink`, `command`), MQTT's frames (`broker::frame`).

use std::fmt;

/// Longest framed line, bytes, that the edge takes from a serial node. Firmware computes its own,
/// shorter, worst case.
pub const LINE_LEN_MAX: usize = 4096;

/// CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, not reflected.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |mut crc: u16, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

/// A line for the edge: `{…}*CCCC`, without its end.
#[cfg(test)]
pub fn frame_up(json: &str) -> String {
    format!("{json}*{:04X}", crc16(json.as_bytes()))
}

/// A line for a node: `!body*CCCC`, without its end.
pub fn frame_down(body: &str) -> String {
    format!("!{body}*{:04X}", crc16(body.as_bytes()))
}

/// What a line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A message of a node: JSON.
    Up(&'a str),
    /// A command's body.
    Down(&'a str),
}

/// Why a line is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`LINE_LEN_MAX`].
    TooLong,
    /// Not text.
    NotText,
    /// Neither `{…}*CCCC` nor `!…*CCCC`.
    Shape,
    /// The checksum is another's.
    Crc,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the line is too long",
            Self::NotText => "the line is not text",
            Self::Shape => "the line is no frame",
            Self::Crc => "the checksum of the line is wrong",
        })
    }
}

impl std::error::Error for FrameError {}

/// Checks a line and takes its frame off; a carriage return at its end is ignored.
///
/// # Errors
/// [`FrameError`].
pub fn unframe(line: &[u8]) -> Result<Line<'_>, FrameError> {
    if line.len() > LINE_LEN_MAX {
        return Err(FrameError::TooLong);
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| FrameError::NotText)?;
    let (content, crc) = text.rsplit_once('*').ok_or(FrameError::Shape)?;
    let hex =
        crc.len() == 4 && crc.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    let down = content.strip_prefix('!');
    if !hex || (down.is_none() && !(content.starts_with('{') && content.ends_with('}'))) {
        return Err(FrameError::Shape);
    }
    let checked = down.unwrap_or(content);
    if u16::from_str_radix(crc, 16) != Ok(crc16(checked.as_bytes())) {
        return Err(FrameError::Crc);
    }
    Ok(match down {
        Some(body) => Line::Down(body),
        None => Line::Up(content),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::vectors;
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
    }

    #[test]
    fn frames_are_those_of_the_vectors() {
        for vector in vectors("frames") {
            let line = vector["line"].as_str().unwrap();
            let read = unframe(line.as_bytes());
            match (vector["up"].as_str(), vector["down"].as_str()) {
                (Some(json), None) => {
                    assert_eq!(read, Ok(Line::Up(json)));
                    assert_eq!(frame_up(json), line);
                }
                (None, Some(body)) => {
                    assert_eq!(read, Ok(Line::Down(body)));
                    assert_eq!(frame_down(body), line);
                }
                _ => {
                    let error = match vector["error"].as_str().unwrap() {
                        "crc" => FrameError::Crc,
                        _ => FrameError::Shape,
                    };
                    assert_eq!(read, Err(error), "{line}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_is_unframed(json in "\\{[ -~]{0,80}\\}") {
            let line = frame_up(&json);
            prop_assert_eq!(unframe(line.as_bytes()), Ok(Line::Up(&json)));
        }

        #[test]
        fn one_wrong_byte_is_noticed(body in "[ -~]{1,80}", at in 0_usize..80, flip in 1_u8..32) {
            let mut line = frame_down(&body).into_bytes();
            let at = 1 + at % (line.len() - 1);
            line[at] ^= flip;
            prop_assert!(unframe(&line) != Ok(Line::Down(&body)) );
        }
    }
}
