//! Times as text: RFC 3339 in UTC. Reads no clock; that is `base::clock`.

/// A time in microseconds since 1970 as RFC 3339, in UTC to the millisecond.
pub fn rfc3339(time_us: i64) -> String {
    let ms = time_us.div_euclid(1000);
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (s, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, s) = (s / 3600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{s:02}.{ms:03}Z")
}

/// Reads what [`rfc3339`] writes; `None` for anything else.
pub fn time_us(text: &str) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, s, ms) =
        (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    // The days before a date, by the inverse of `civil`.
    let shifted = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let time = ((((days * 24 + hour) * 60 + minute) * 60 + s) * 1000 + ms) * 1000;
    (rfc3339(time) == text).then_some(time)
}

/// Reads any instant of RFC 3339: with `T` or a space, with or without decimals, with its zone.
/// `None` for anything else, a time without a zone among it.
pub fn instant_us(text: &str) -> Option<i64> {
    let date = text.get(..10)?;
    let clock = text.get(11..19)?;
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let rest = text.get(19..)?;
    let (decimals, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    if decimals.is_empty() {
        return None;
    }
    // A leap second counts as the one before it.
    let clock = clock.replace(":60", ":59");
    let whole = time_us(&format!("{date}T{clock}.000Z"))?;
    let micros = format!("{decimals:0<6}").get(..6)?.parse::<i64>().ok()?;
    let ahead = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let two = |text: &str| {
                (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
                    .then(|| text.parse::<i64>().ok())?
            };
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes) * 60_000_000
        }
    };
    Some(whole + micros - ahead)
}

/// Year, month and day of a number of days since 1970.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_582_979_696_789_000, "2020-02-29T12:34:56.789Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (4_102_444_799_999_000, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(us), text);
            assert_eq!(time_us(text), Some(us.div_euclid(1000) * 1000));
        }
        for text in ["", "1970-01-01", "1970-02-30T00:00:00.000Z", "1970-01-01T00:00:00.000+00:00"]
        {
            assert_eq!(time_us(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_read_in_every_form_of_the_standard() {
        for (text, us) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01 01:00:00.25+01:00", 250_000),
            ("1969-12-31T19:30:00.000001-04:30", 1),
            ("1970-01-01t00:00:00.123456789z", 123_456),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),
        ] {
            assert_eq!(instant_us(text), Some(us), "{text}");
        }
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-13-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00 Z",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00.5",
            "1970-01-01\u{e4}00:00:00Z",
        ] {
            assert_eq!(instant_us(text), None, "{text}");
        }
    }
}
