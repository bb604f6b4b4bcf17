//! Memory, message lengths and line capacity, and whether a plan fits its board.

use super::fit::Fitted;
use super::plan::{Firmware, PROGRAMS};
use super::problem::{Field, Problems};
use super::property::Property;
use crate::kinds::{Connection, Cost, NodeProfileSpec, Transport};

/// The bytes that a serial line of 115,200 Bd carries in a second.
pub const SERIAL_BYTES_PER_S: u64 = 11_520;

/// Share of a serial line that one node's own transmission may take, so that answers and resends
/// find room.
const SERIAL_SHARE: f64 = 0.7;

impl Firmware {
    /// Sizes, and whether they fit.
    pub(super) fn measure(&mut self, spec: &NodeProfileSpec, problems: &mut Problems) {
        let sample_record = 1 + 5 + 1 + 3 + 5 * self.sensors.len() as u32;
        let readings = spec.memory.as_ref().and_then(|memory| memory.ring);
        let wanted = readings.unwrap_or(self.board.ring);
        // A record of features has to fit, too.
        let features = if self.programs & 8 == 0 { 0 } else { 15 + 20 * self.sensors.len() as u32 };
        self.ring = (wanted.saturating_mul(sample_record)).max(features + 1).max(64);
        self.line = self.longest();
        let cost = &self.board.cost;
        let parts = |of: fn(&Cost) -> u64| -> u64 {
            cost.part * self.fitted.iter().map(|part| of(&part.cost)).sum::<u64>()
        };
        let on_bus = |part: &Fitted| part.part.is_some_and(|p| p.connection == Connection::I2c);
        let bus = self.board.i2c.as_ref().filter(|_| self.fitted.iter().any(on_bus));
        let bus = bus.map_or((0, 0), |bus| (bus.flash, bus.ram));
        self.flash = cost.flash + parts(|cost| cost.flash) + bus.0;
        let lines = if self.board.link == Transport::Mqtt { self.line as u64 } else { 0 };
        self.ram = cost.ram
            + cost.ram_of_property * self.sensors.len() as u64
            + parts(|cost| cost.ram)
            + bus.1
            + u64::from(self.ring)
            + lines;
        let at_ring = match readings {
            Some(_) => Field::at(&["memory", "ring"]),
            None => Field::at(&["sensors"]),
        };
        let reserve = spec.memory.as_ref().and_then(|memory| memory.reserve);
        let reserve = reserve.map_or(self.board.reserve, |size| size.as_bytes());
        if self.ram + reserve > self.board.ram {
            let over = self.ram + reserve - self.board.ram;
            let message = format!(
                "this takes about {} of the {}'s {} bytes of RAM and leaves less than {reserve} for \
                 the stack",
                self.ram, self.board.name, self.board.ram
            );
            let most = u64::from(wanted).saturating_sub(over.div_ceil(sample_record.into()));
            problems.too_big(at_ring.clone(), &message).help =
                vec![format!("a ring of {most} readings would fit")];
        }
        if self.ring > 60_000 {
            let message = format!("the ring takes {} bytes; 60000 are the most", self.ring);
            problems.too_big(at_ring, &message).help =
                vec![format!("a ring of {} readings would fit", 60_000 / sample_record)];
        }
        if self.flash > self.board.flash {
            let message = format!(
                "this takes about {} of the {}'s {} bytes of flash",
                self.flash, self.board.name, self.board.flash
            );
            problems.too_big(Field::at(&["sensors"]), &message);
        }
        if self.board.link == Transport::Serial {
            self.fit_line(spec, problems);
        }
    }

    /// What a serial line carries.
    fn fit_line(&mut self, spec: &NodeProfileSpec, problems: &mut Problems) {
        let frame = self.sample_line() + "*0000\n".len();
        let budget = SERIAL_BYTES_PER_S as f64 * SERIAL_SHARE;
        let least = (frame as f64 * 1000.0 / budget).ceil() as u32;
        self.period_min = self.period_min.max(least);
        let fastest = match PROGRAMS[self.transmission.program] {
            "on-request" => return,
            _ => self.transmission.pmin,
        };
        if fastest < self.period_min {
            let message = format!(
                "a message of up to {frame} bytes every {fastest} ms does not fit the serial line"
            );
            let field = ["interval", "pmin"].into_iter().find(|field| {
                let transmission = spec.transmission.as_ref();
                transmission.is_some_and(|t| match *field {
                    "interval" => t.interval.is_some(),
                    _ => t.pmin.is_some(),
                })
            });
            let field = field
                .map_or(Field::at(&["transmission"]), |field| Field::at(&["transmission", field]));
            problems.too_big(field, &message).help =
                vec![format!("at 115,200 Bd, {} ms or more do", self.period_min)];
        }
    }

    /// Longest data message without its frame, bytes.
    fn sample_line(&self) -> usize {
        let head = r#"{"k":"s","boot":,"seq":,"ms":,"program":"on-request","old":1,"time":}"#.len()
            + 30
            + 20;
        head + self.sensors.iter().map(|p| p.name().len() + 8 + p.digits()).sum::<usize>()
    }

    /// Longest message of all, bytes: what a buffer must hold.
    fn longest(&self) -> usize {
        let numbers = |property: &Property| property.name().len() + 4 + property.digits();
        let features = if self.programs & 8 == 0 {
            0
        } else {
            let stats = r#"{"min":,"max":,"mean":,"var":}"#.len();
            let each = |p: &Property| p.name().len() + 8 + stats + 3 * p.digits() + 12;
            120 + self.sensors.iter().map(each).sum::<usize>()
        };
        // A transmission: every property with three thresholds, every group with its head.
        let group =
            r#""":{"program":"on-request","pmin":,"pmax":,"st":{},"gt":{},"lt":{}},"#.len() + 16;
        let transmission = self.groups as usize * group
            + self.sensors.iter().map(|p| 3 * numbers(p) + p.name().len() + 1).sum::<usize>()
            + r#""tx":,"kept":0,"groups":{}"#.len();
        let state = r#"{"k":"b","up":1,"boot":,"ms":,"build":"","profile":"","board":"","cause":"power","lost":,"lease":,"rssi":-200,"battery":100,"version":}"#
            .len()
            + 8
            + 50
            + self.profile.len()
            + self.board.name.len();
        let topic = 256 + "et/v1//state".len() + 8;
        topic + (state + transmission).max(features).max(self.sample_line())
    }
}
