//! Whether text is a unit in the Unified Code for Units of Measure (case sensitive form). Pure.
//!
//! The grammar is whole; of the atoms those are known that something on an edge may measure.
//!
//! Source: Schadow & McDonald, "The Unified Code for Units of Measure", version 2.1, §§ 2 to 4.
//!
//! Not here: what a unit means, conversion, SenML's names (`units`).

/// Prefixes, longer ones first where one begins another.
const PREFIXES: &[&str] = &[
    "Ki", "Mi", "Gi", "Ti", "da", "Y", "Z", "E", "P", "T", "G", "M", "k", "h", "d", "c", "m", "u",
    "n", "p", "f", "a",
];

/// Atoms that take a prefix.
const METRIC: &[&str] = &[
    "m", "s", "g", "rad", "K", "cd", "mol", "sr", "Hz", "N", "Pa", "J", "W", "A", "V", "F", "Ohm",
    "S", "Wb", "Cel", "T", "H", "lm", "lx", "Bq", "Gy", "Sv", "l", "L", "ar", "t", "bar", "eV",
    "C", "cal", "bit", "By", "Bd", "B", "B[SPL]", "B[V]", "B[mV]", "B[uV]", "B[W]", "B[kW]", "Np",
    "kat", "U", "eq", "osm", "m[Hg]", "m[H2O]", "gf", "G", "Gal", "dyn", "erg", "P", "St", "Ci",
    "R", "RAD", "REM",
];

/// Atoms that take none.
const PLAIN: &[&str] = &[
    "%",
    "10*",
    "10^",
    "[pi]",
    "[ppth]",
    "[ppm]",
    "[ppb]",
    "[pptr]",
    "deg",
    "'",
    "''",
    "gon",
    "min",
    "h",
    "d",
    "wk",
    "mo",
    "a",
    "AU",
    "u",
    "atm",
    "[g]",
    "[c]",
    "[degF]",
    "[degR]",
    "[psi]",
    "[in_i]",
    "[ft_i]",
    "[yd_i]",
    "[mi_i]",
    "[nmi_i]",
    "[kn_i]",
    "[mil_i]",
    "[acr_us]",
    "[gal_us]",
    "[qt_us]",
    "[pt_us]",
    "[foz_us]",
    "[gal_br]",
    "[lb_av]",
    "[oz_av]",
    "[ston_av]",
    "[lbf_av]",
    "[Btu]",
    "[HP]",
    "[pH]",
    "[in_i'Hg]",
    "[in_i'H2O]",
    "[NTU]",
    "[FTU]",
    "circ",
];

/// Whether `text` is a unit.
pub(super) fn is_unit(text: &str) -> bool {
    let mut rest = text;
    if rest.is_empty() || rest.len() > 64 {
        return false;
    }
    rest = rest.strip_prefix('/').unwrap_or(rest);
    term(&mut rest, 0) && rest.is_empty()
}

/// Components with `.` or `/` between them.
fn term(rest: &mut &str, depth: usize) -> bool {
    loop {
        if !component(rest, depth) {
            return false;
        }
        match rest.strip_prefix(['.', '/']) {
            Some(after) => *rest = after,
            None => return true,
        }
    }
}

/// A term in brackets, a number, or an atom with prefix and exponent; each with a note in braces.
fn component(rest: &mut &str, depth: usize) -> bool {
    if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner;
        if depth > 4 || !term(rest, depth + 1) {
            return false;
        }
        return rest.strip_prefix(')').is_some_and(|after| {
            *rest = after;
            true
        });
    }
    let len = rest.find(['.', '/', '(', ')', '{']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(len);
    *rest = after;
    let number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let unit = number || simple(word);
    let noted = match rest.strip_prefix('{') {
        Some(note) => match note.split_once('}') {
            Some((note, after)) if note.chars().all(|c| c.is_ascii_graphic() && c != '{') => {
                *rest = after;
                true
            }
            _ => return false,
        },
        None => false,
    };
    unit || word.is_empty() && noted
}

/// An atom, with a prefix if it takes one, and an exponent.
fn simple(word: &str) -> bool {
    let atom = |word: &str| {
        METRIC.contains(&word)
            || PLAIN.contains(&word)
            || PREFIXES
                .iter()
                .any(|prefix| word.strip_prefix(prefix).is_some_and(|atom| METRIC.contains(&atom)))
    };
    let base = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = word.len() - base.len();
    let base = if digits > 0 { base.strip_suffix(['+', '-']).unwrap_or(base) } else { base };
    atom(base) || atom(word)
}
