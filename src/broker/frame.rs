//! Splits bytes into MQTT packets and checks that each is well-formed, before the protocol library
//! sees it. Pure.
//!
//! The library takes some packets that the standards call malformed: reserved bits, identifiers of
//! zero, fields that reach past the packet, properties in the wrong place. Such a packet ends its
//! connection ([MQTT-4.8.0-1] of 3.1.1, [MQTT-4.13.1-1] of 5). Everything here follows from the
//! packet alone, except what a topic alias stands for.
//!
//! Sources: OASIS MQTT 3.1.1 and 5.0; chapter 2 (format), 3 (packets), 4.7 (topics).

/// Reasons of MQTT 5, also used for 3.1.1, where they only decide that the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// 0x81: cannot be parsed.
    Malformed,
    /// 0x82: parses and is not allowed.
    ProtocolError,
    /// 0x84: a protocol level that is not served.
    UnsupportedVersion,
    /// 0x86: a password without a user name, in MQTT 5.
    BadCredentials,
    /// 0x90: a topic name with wildcards.
    TopicNameInvalid,
    /// 0x94: a topic alias of zero or above the maximum.
    TopicAliasInvalid,
    /// 0x95: longer than announced.
    TooLarge,
}

/// Takes bytes, gives packets. One a connection.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
    len_max: usize,
    alias_max: u16,
    version: Option<u8>,
    /// The level that a CONNECT named, served or not.
    attempted: Option<u8>,
    aliases: Vec<bool>,
}

impl Framer {
    /// * `len_max`: largest packet in bytes, its header included.
    /// * `alias_max`: largest topic alias that a client may use.
    pub fn new(len_max: u32, alias_max: u16) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            len_max: len_max as usize,
            alias_max,
            version: None,
            attempted: None,
            aliases: vec![false; usize::from(alias_max) + 1],
        }
    }

    /// Whether the client spoke MQTT 5 in its CONNECT, be it otherwise malformed.
    pub fn speaks_five(&self) -> bool {
        self.attempted == Some(5)
    }

    /// Adds bytes that arrived. Packets that [`Framer::next_packet`] did not give yet stay.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet, checked; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Violation`]: the connection is to end, and nothing behind is looked at.
    pub fn next_packet(&mut self) -> Result<Option<&[u8]>, Violation> {
        let rest = &self.buffer[self.start..];
        let Some((&first, after)) = rest.split_first() else { return Ok(None) };
        if self.version.is_none() && first >> 4 != 1 {
            return Err(Violation::ProtocolError);
        }
        let Some((body_len, len_len)) = variable_int(after)? else { return Ok(None) };
        let total = 1 + len_len + body_len;
        if total > self.len_max {
            return Err(Violation::TooLarge);
        }
        if rest.len() < total {
            return Ok(None);
        }
        let range = self.start..self.start + total;
        let body_at = self.start + 1 + len_len;
        self.check(first, body_at, range.end)?;
        self.start = range.end;
        Ok(Some(&self.buffer[range]))
    }

    fn check(&mut self, first: u8, body_at: usize, end: usize) -> Result<(), Violation> {
        let (kind, flags) = (first >> 4, first & 0x0f);
        let mut body = Reader { bytes: &self.buffer[body_at..end] };
        if kind == 1 {
            if self.version.is_some() {
                return Err(Violation::ProtocolError);
            }
            let connect = connect(&mut body, &mut self.attempted);
            need(flags == 0)?;
            let Connect { level, zero_aliases } = connect?;
            self.version = Some(level);
            if let Some(from_end) = zero_aliases {
                // The library cannot count to zero aliases; one that we never use is the same.
                self.buffer[end - from_end - 1] = 1;
            }
            return Ok(());
        }
        let five = self.version == Some(5);
        match kind {
            3 => {
                if let Some(alias) = publish(&mut body, flags, five, self.alias_max)? {
                    let Alias { number, sets } = alias;
                    let known = &mut self.aliases[usize::from(number)];
                    if !sets && !*known {
                        return Err(Violation::ProtocolError);
                    }
                    *known = true;
                }
                Ok(())
            }
            4..=7 => {
                need(flags == if kind == 6 { 2 } else { 0 })?;
                need(body.u16()? != 0)?;
                if five && !body.bytes.is_empty() {
                    need(acknowledgement_code(kind, body.u8()?))?;
                    if !body.bytes.is_empty() {
                        body.properties(&[31, 38])?;
                    }
                }
                body.end()
            }
            8 => {
                need(flags == 2)?;
                need(body.u16()? != 0)?;
                if five {
                    body.properties(&[11, 38])?;
                }
                need(!body.bytes.is_empty())?;
                while !body.bytes.is_empty() {
                    need(!body.text()?.is_empty())?;
                    let options = body.u8()?;
                    let reserved = if five { 0xc0 } else { 0xfc };
                    need(options & reserved == 0 && options & 3 != 3 && options >> 4 & 3 != 3)?;
                }
                Ok(())
            }
            10 => {
                need(flags == 2)?;
                need(body.u16()? != 0)?;
                if five {
                    body.properties(&[38])?;
                }
                need(!body.bytes.is_empty())?;
                while !body.bytes.is_empty() {
                    need(!body.text()?.is_empty())?;
                }
                Ok(())
            }
            12 => {
                need(flags == 0)?;
                body.end()
            }
            14 => {
                need(flags == 0)?;
                if five && !body.bytes.is_empty() {
                    need(disconnect_code(body.u8()?))?;
                    if !body.bytes.is_empty() {
                        body.properties(&[17, 31, 38])?;
                    }
                }
                body.end()
            }
            15 if five => {
                need(flags == 0)?;
                // No authentication method is offered.
                Err(Violation::ProtocolError)
            }
            2 | 9 | 11 | 13 => Err(Violation::ProtocolError),
            _ => Err(Violation::Malformed),
        }
    }
}

struct Alias {
    number: u16,
    /// Whether the packet also names the topic.
    sets: bool,
}

fn need(holds: bool) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::Malformed) }
}

/// A length of one to four bytes, in the fewest: the value and its size.
fn variable_int(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            need(at == 0 || byte != 0)?;
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Violation::Malformed) } else { Ok(None) }
}

struct Connect {
    level: u8,
    /// Distance from the packet's end to the end of a Topic Alias Maximum of zero.
    zero_aliases: Option<usize>,
}

fn connect(body: &mut Reader<'_>, attempted: &mut Option<u8>) -> Result<Connect, Violation> {
    let name = body.text()?;
    let level = body.u8()?;
    *attempted = Some(level);
    if name != "MQTT" {
        return Err(Violation::ProtocolError);
    }
    if level != 4 && level != 5 {
        return Err(Violation::UnsupportedVersion);
    }
    let five = level == 5;
    let flags = body.u8()?;
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let (will, will_qos) = (flag(2), flags >> 3 & 3);
    need(!flag(0) && will_qos != 3)?;
    need(will || (will_qos == 0 && !flag(5)))?;
    let (user_name, password) = (flag(7), flag(6));
    need(five || user_name || !password)?;
    body.u16()?;
    let mut zero_aliases = None;
    if five {
        zero_aliases = body.properties(&[17, 21, 22, 23, 25, 33, 34, 38, 39])?.zero_aliases;
    }
    body.text()?;
    if will {
        if five {
            body.properties(&[1, 2, 3, 8, 9, 24, 38])?;
        }
        body.text()?;
        body.binary()?;
    }
    if user_name {
        body.text()?;
    }
    if password {
        body.binary()?;
    }
    body.end()?;
    if password && !user_name {
        return Err(Violation::BadCredentials);
    }
    Ok(Connect { level, zero_aliases })
}

fn publish(
    body: &mut Reader<'_>,
    flags: u8,
    five: bool,
    alias_max: u16,
) -> Result<Option<Alias>, Violation> {
    let (dup, qos) = (flags >> 3 & 1 == 1, flags >> 1 & 3);
    need(qos != 3 && (qos != 0 || !dup))?;
    let topic = body.text()?;
    if topic.contains(['+', '#']) {
        return Err(Violation::TopicNameInvalid);
    }
    need(five || !topic.is_empty())?;
    if qos > 0 {
        need(body.u16()? != 0)?;
    }
    if !five {
        return Ok(None);
    }
    let found = body.properties(&[1, 2, 3, 8, 9, 11, 35, 38])?;
    if found.subscription_identifier {
        return Err(Violation::ProtocolError);
    }
    match found.topic_alias {
        Some(number) if number == 0 || number > alias_max => Err(Violation::TopicAliasInvalid),
        Some(number) => Ok(Some(Alias { number, sets: !topic.is_empty() })),
        None if topic.is_empty() => Err(Violation::ProtocolError),
        None => Ok(None),
    }
}

/// Reason codes of PUBACK and PUBREC (4, 5), PUBREL and PUBCOMP (6, 7).
fn acknowledgement_code(kind: u8, code: u8) -> bool {
    match kind {
        4 | 5 => matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        _ => matches!(code, 0x00 | 0x92),
    }
}

/// Reason codes that a client may send in DISCONNECT.
fn disconnect_code(code: u8) -> bool {
    matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
}

#[derive(Default)]
struct Properties {
    topic_alias: Option<u16>,
    subscription_identifier: bool,
    /// See [`Connect`].
    zero_aliases: Option<usize>,
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(Violation::Malformed)?;
        self.bytes = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// Well-formed UTF-8 without the null character.
    fn text(&mut self) -> Result<&'a str, Violation> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Violation::Malformed)?;
        need(!text.contains('\0'))?;
        Ok(text)
    }

    fn end(&self) -> Result<(), Violation> {
        need(self.bytes.is_empty())
    }

    /// Reads properties, each of them one of `allowed` and, but for user properties, at most once.
    fn properties(&mut self, allowed: &[u8]) -> Result<Properties, Violation> {
        let (len, size) = variable_int(self.bytes)?.ok_or(Violation::Malformed)?;
        self.take(size)?;
        let mut inner = Reader { bytes: self.take(len)? };
        let mut found = Properties::default();
        let mut seen = [false; 64];
        let mut authentication = (false, false);
        while !inner.bytes.is_empty() {
            let id = inner.u8()?;
            need(allowed.contains(&id))?;
            if id != 38 && std::mem::replace(&mut seen[usize::from(id)], true) {
                return Err(Violation::ProtocolError);
            }
            let valid = match id {
                1 | 23 | 25 => inner.u8()? <= 1,
                2 | 17 | 24 => inner.u32().map(|_| true)?,
                39 => inner.u32()? != 0,
                33 => inner.u16()? != 0,
                34 => {
                    if inner.u16()? == 0 {
                        found.zero_aliases = Some(inner.bytes.len() + self.bytes.len());
                    }
                    true
                }
                35 => {
                    found.topic_alias = Some(inner.u16()?);
                    true
                }
                11 => {
                    let (value, size) = variable_int(inner.bytes)?.ok_or(Violation::Malformed)?;
                    inner.take(size)?;
                    found.subscription_identifier = true;
                    value != 0
                }
                8 => !inner.text()?.contains(['+', '#']),
                9 => inner.binary().map(|_| true)?,
                22 => {
                    inner.binary()?;
                    authentication.1 = true;
                    true
                }
                21 => {
                    inner.text()?;
                    authentication.0 = true;
                    true
                }
                3 | 31 => inner.text().map(|_| true)?,
                38 => {
                    inner.text()?;
                    inner.text().map(|_| true)?
                }
                _ => return Err(Violation::Malformed),
            };
            if !valid {
                return Err(Violation::ProtocolError);
            }
        }
        if authentication == (false, true) {
            return Err(Violation::ProtocolError);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONNECT_4: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
    const CONNECT_5: &[u8] = &[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'c'];

    fn connected(connect: &[u8]) -> Framer {
        let mut framer = Framer::new(1000, 4);
        framer.push(connect);
        assert_eq!(framer.next_packet().unwrap(), Some(connect));
        framer
    }

    fn judge(connect: &[u8], packet: &[u8]) -> Result<(), Violation> {
        let mut framer = connected(connect);
        framer.push(packet);
        framer.next_packet().map(|found| assert_eq!(found, Some(packet)))
    }

    #[test]
    fn packets_come_whole_however_they_are_cut() {
        let mut framer = Framer::new(1000, 4);
        let mut all = CONNECT_5.to_vec();
        all.extend([0xc0, 0, 0xc0, 0]);
        let mut found = Vec::new();
        for byte in &all {
            framer.push(&[*byte]);
            while let Some(packet) = framer.next_packet().unwrap() {
                found.push(packet.to_vec());
            }
        }
        assert_eq!(found, [CONNECT_5, &[0xc0, 0], &[0xc0, 0]]);
    }

    #[test]
    fn malformed_packets_are_refused() {
        for (packet, violation) in [
            (&[0x38, 4, 0, 1, b't', b'x'][..], Violation::Malformed), // DUP at QoS 0
            (&[0x32, 6, 0, 1, b't', 0, 0, b'x'], Violation::Malformed), // identifier 0
            (&[0x30, 4, 0, 1, b'#', b'x'], Violation::TopicNameInvalid),
            (&[0x30, 3, 0, 9, b't'], Violation::Malformed), // string beyond
            (&[0x30, 0x83, 0x00], Violation::Malformed),    // padded length
            (&[0x80, 6, 0, 1, 0, 1, b't', 0], Violation::Malformed), // flags of SUBSCRIBE
            (&[0x82, 6, 0, 1, 0, 1, b't', 3], Violation::Malformed), // QoS 3
            (&[0x82, 2, 0, 1], Violation::Malformed),       // no filter
            (&[0x40, 3, 0, 1, 0], Violation::Malformed),    // PUBACK of 3.1.1
            (&[0xc1, 0], Violation::Malformed),
            (&[0xd0, 0], Violation::ProtocolError),
            (&[0xf0, 0], Violation::Malformed),
            (CONNECT_4, Violation::ProtocolError), // a second one
            (&[0x30, 0xff, 0xff, 0x7f], Violation::TooLarge),
        ] {
            assert_eq!(judge(CONNECT_4, packet), Err(violation), "{packet:x?}");
        }
    }

    #[test]
    fn aliases_stand_for_what_was_named() {
        let sets = [0x30, 8, 0, 1, b't', 3, 35, 0, 2, b'x'];
        let uses = [0x30, 7, 0, 0, 3, 35, 0, 2, b'x'];
        assert_eq!(judge(CONNECT_5, &uses), Err(Violation::ProtocolError));
        let mut framer = connected(CONNECT_5);
        framer.push(&sets);
        framer.push(&uses);
        assert!(framer.next_packet().unwrap().is_some());
        assert!(framer.next_packet().unwrap().is_some());
        let beyond = [0x30, 8, 0, 1, b't', 3, 35, 0, 9, b'x'];
        assert_eq!(judge(CONNECT_5, &beyond), Err(Violation::TopicAliasInvalid));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), five in any::<bool>()) {
            let mut framer = connected(if five { CONNECT_5 } else { CONNECT_4 });
            framer.push(&bytes);
            while let Ok(Some(_)) = framer.next_packet() {}
        }
    }
}
