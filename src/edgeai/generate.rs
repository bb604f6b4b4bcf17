//! Synthetic data of an office: what the quickstart trains on and simulated nodes send.
//!
//! A [`Generator`] is one node in one room. Asked for time `t` it answers with temperature,
//! humidity, loudness and light as four cheap sensors would report them, and with the fault that
//! distorts them, if any. The same seed, node and times give the same samples.
//!
//! How a room is made, with `t` in seconds since a Monday's midnight:
//!
//! * *outdoors*: a daily wave (warmest at 15 h) on weather of a few days, the same for all nodes
//!   of a seed;
//! * *people*: on weekdays from about 8:30 to 17:30 with a thinner lunch hour, at random within a
//!   day; they warm and moisten the air slowly, switch the lamp on, and make noise at once;
//! * *temperature* follows people and outdoors; *humidity* falls as temperature rises and follows
//!   the weather; *light* is daylight through a window under passing clouds, plus the lamp;
//!   *loudness* is a quiet room, people, and bursts;
//! * every channel has noise that decays over minutes (Ornstein-Uhlenbeck), so samples close in
//!   time are alike, and the sensor's own resolution.
//!
//! Faults come in episodes, counted in samples, on one channel at a time ([`Fault`]); their sizes
//! are in units of [`SCALE`]. About a fifth of all samples are faulty by default. A sample is
//! labelled anomalous if a fault moved its value by [`VISIBLE`] at least: a sensor that is stuck at
//! the right value looks like one that is not. Rows to train on are of all hours and have faults of
//! a single sample each, so that all kinds and sizes of faults are among few rows. The kinds and the idea of scales follow the usual taxonomy of sensor faults: Ni et al., "Sensor
//! Network Data Fault Types", ACM TOSN 5(3), 2009.
//!
//! Not here: how nodes send (`node`), transmission programs (firmware), recorded data (none is
//! part of this project).

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dataset::{DataError, Dataset};

/// The channels, in the order of [`Sample::values`]: °C, % relative humidity, dB, lx.
pub const CHANNELS: [&str; 4] = ["temperature", "humidity", "loudness", "light"];

/// One unit of a fault's size on each channel, in the channel's unit.
pub const SCALE: [f64; 4] = [1.0, 3.0, 5.0, 120.0];

/// Steps of the sensors' output, in the channel's unit.
const RESOLUTION: [f64; 4] = [0.1, 0.1, 0.1, 1.0];

/// What the sensors can output.
const RANGE: [(f64, f64); 4] = [(-40.0, 85.0), (0.0, 100.0), (0.0, 130.0), (0.0, 65_535.0)];

/// The labels of a generated data set, sorted.
pub const LABELS: [&str; 2] = ["anomalous", "normal"];

/// What is wrong with a sensor, for how many samples, and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 1 to 3 samples off by 4 to 10 scales, either way.
    Spike,
    /// 20 to 120 samples repeat the first.
    Stuck,
    /// 40 to 180 samples, off by a ramp from 0 to 3 to 8 scales.
    Drift,
    /// 10 to 60 samples with white noise of 2 to 5 scales.
    Noise,
    /// 20 to 120 samples times 1.3 to 2 or 0.4 to 0.75: a wrong gain.
    Scale,
    /// 20 to 120 samples off by 3 to 6 scales: a wrong zero.
    Offset,
    /// 5 to 30 samples of 0: unplugged.
    Zero,
}

impl Fault {
    /// All of them, as likely as each other to begin.
    pub const ALL: [Self; 7] =
        [Self::Spike, Self::Stuck, Self::Drift, Self::Noise, Self::Scale, Self::Offset, Self::Zero];

    /// Shortest and longest episode, in samples.
    fn samples(self) -> (u32, u32) {
        match self {
            Self::Spike => (1, 3),
            Self::Drift => (40, 180),
            Self::Noise => (10, 60),
            Self::Zero => (5, 30),
            Self::Stuck | Self::Scale | Self::Offset => (20, 120),
        }
    }
}

/// What a node's sensors report at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// One value for each of [`CHANNELS`].
    pub values: [f32; 4],
    /// The fault that is active, and the index of the channel it is on.
    pub fault: Option<(Fault, usize)>,
    /// How far the fault moved the value, in units of [`SCALE`].
    pub moved: f64,
}

/// Least distance, in units of [`SCALE`], from which on a fault makes a sample anomalous.
pub const VISIBLE: f64 = 1.0;

impl Sample {
    /// `anomalous` while a fault is active and visible, else `normal`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        if self.moved >= VISIBLE { LABELS[0] } else { LABELS[1] }
    }
}

/// Samples between two faults, on average, by default.
pub const FAULT_GAP_DEFAULT: u32 = 200;

/// Samples between two faults, on average, among rows to train on: with it a good quarter of them
/// is anomalous.
const FAULT_GAP_TRAINING: u32 = 2;

/// One node in one room.
#[derive(Debug, Clone)]
pub struct Generator {
    room: Room,
    random: ChaCha8Rng,
    fault_gap: u32,
    /// Whether each fault shows a single sample of its episode.
    single: bool,
    episode: Episode,
    /// Time of the last sample, in seconds.
    last: Option<f64>,
    air: Air,
}

/// What does not change over time.
#[derive(Debug, Clone)]
struct Room {
    /// Periods (days), phases and heights of the weather: the same for every node of a seed.
    weather: [(f64, f64, f64); 3],
    /// Scatters each day's hours.
    seed: u64,
    temperature: f64,
    humidity: f64,
    quiet: f64,
    /// Daylight at noon, lx.
    window: f64,
    lamp: f64,
}

/// What changes slowly: people's effect on the air, and the noise of each channel.
#[derive(Debug, Clone)]
struct Air {
    warmth: f64,
    noise: [f64; 4],
    cloud: f64,
}

/// Where a node is between faults and within one.
#[derive(Debug, Clone)]
enum Episode {
    /// So many samples until the next fault; then `Faulty`.
    Healthy { left: u32 },
    /// `left` samples of `of` remain; then `Healthy`.
    Faulty { fault: Fault, channel: usize, size: f64, first: Option<f64>, left: u32, of: u32 },
}

impl Generator {
    /// A node of the world that `seed` makes; nodes share its weather and working hours.
    #[must_use]
    pub fn new(seed: u64, node: u32) -> Self {
        let mut world = ChaCha8Rng::seed_from_u64(seed);
        let weather = [2.3, 3.9, 6.7]
            .map(|days| (days, world.gen_range(0.0..TAU), world.gen_range(1.0..2.5)));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(1 + u64::from(node));
        let room = Room {
            weather,
            seed,
            temperature: random.gen_range(20.0..22.0),
            humidity: random.gen_range(38.0..46.0),
            quiet: random.gen_range(32.0..36.0),
            window: random.gen_range(150.0..450.0),
            lamp: random.gen_range(300.0..420.0),
        };
        let mut generator = Self {
            room,
            random,
            fault_gap: FAULT_GAP_DEFAULT,
            single: false,
            episode: Episode::Healthy { left: 0 },
            last: None,
            air: Air { warmth: 0.0, noise: [0.0; 4], cloud: 0.0 },
        };
        generator.episode = generator.healthy();
        generator
    }

    /// Changes how many samples lie between two faults on average; 0 means no faults at all.
    #[must_use]
    pub fn fault_gap(mut self, samples: u32) -> Self {
        self.fault_gap = samples;
        self.episode = self.healthy();
        self
    }

    /// Makes each fault show a single sample, from anywhere in its episode.
    #[must_use]
    pub fn single_faults(mut self) -> Self {
        self.single = true;
        self
    }

    /// The node's report at time `t`.
    ///
    /// * `t`: seconds since a Monday's midnight, not before the last sample's (an earlier time
    ///   counts as the last one).
    pub fn next(&mut self, t: f64) -> Sample {
        let last = self.last.unwrap_or(t);
        let t = t.max(last);
        self.last = Some(t);
        let mut values = self.room_at(t, t - last);
        let real = values;
        let fault = self.distort(&mut values);
        let mut out = [0.0; 4];
        for (c, (out, value)) in out.iter_mut().zip(values).enumerate() {
            let stepped = (value / RESOLUTION[c]).round() * RESOLUTION[c];
            *out = stepped.clamp(RANGE[c].0, RANGE[c].1) as f32;
        }
        // What the sensor cannot output is not moved that far.
        let moved = fault.map_or(0.0, |(_, c)| (f64::from(out[c]) - real[c]).abs() / SCALE[c]);
        Sample { values: out, fault, moved }
    }

    /// The room itself, `passed` seconds after the last sample.
    fn room_at(&mut self, t: f64, passed: f64) -> [f64; 4] {
        let (day, hour) = ((t / 86_400.0).floor(), (t / 3600.0).rem_euclid(24.0));
        let weather: f64 = self
            .room
            .weather
            .iter()
            .map(|(days, phase, height)| height * (TAU * t / (days * 86_400.0) + phase).sin())
            .sum();
        let outdoors = weather + 6.0 * (TAU * (hour - 9.0) / 24.0).sin();
        let people = self.room.people(day, hour);

        // Each slow quantity moves towards its aim by the share of its time constant that passed.
        let towards = |seconds: f64| 1.0 - (-passed / seconds).exp();
        self.air.warmth += (people - self.air.warmth) * towards(2400.0);
        let memory = (-passed / 300.0).exp();
        let fresh = (1.0 - memory * memory).sqrt();
        for (noise, sd) in self.air.noise.iter_mut().zip([0.12, 0.6, 1.2, 6.0]) {
            *noise = *noise * memory + gauss(&mut self.random) * sd * fresh;
        }
        let memory = (-passed / 1800.0).exp();
        self.air.cloud = self.air.cloud * memory
            + gauss(&mut self.random) * 0.25 * (1.0 - memory * memory).sqrt();

        let temperature =
            self.room.temperature + 0.12 * outdoors + 1.6 * self.air.warmth + self.air.noise[0];
        let humidity = self.room.humidity - 1.8 * (temperature - self.room.temperature)
            + 0.8 * weather
            + 3.0 * self.air.warmth
            + self.air.noise[1];
        let burst = if self.random.gen_bool(0.02 + 0.06 * people) {
            self.random.gen_range(3.0..9.0)
        } else {
            0.0
        };
        let loudness = self.room.quiet
            + 14.0 * people
            + self.air.noise[2]
            + gauss(&mut self.random) * 0.5
            + burst;
        let sun = (TAU * (hour - 6.0) / 24.0).sin().max(0.0);
        let daylight = self.room.window * sun * (0.75 + self.air.cloud).clamp(0.1, 1.2);
        let lamp = if people > 0.1 { self.room.lamp } else { 0.0 };
        let light = (daylight + lamp + self.air.noise[3] * (0.1 + sun)).max(0.0);
        [temperature, humidity, loudness, light]
    }

    /// Moves the episode on by one sample and lets it distort `values`.
    fn distort(&mut self, values: &mut [f64; 4]) -> Option<(Fault, usize)> {
        if let Episode::Healthy { left } = &mut self.episode {
            if self.fault_gap == 0 {
                return None;
            }
            if *left > 0 {
                *left -= 1;
                return None;
            }
            self.episode = self.faulty();
        }
        let Episode::Faulty { fault, channel, size, first, left, of } = &mut self.episode else {
            return None;
        };
        let (kind, c) = (*fault, *channel);
        let value = &mut values[c];
        match kind {
            Fault::Spike | Fault::Offset => *value += *size * SCALE[c],
            Fault::Stuck => *value = *first.get_or_insert(*value),
            Fault::Drift => {
                let done = f64::from(*of - *left) / f64::from((*of).max(2) - 1);
                *value += done * *size * SCALE[c];
            }
            Fault::Noise => *value += gauss(&mut self.random) * *size * SCALE[c],
            Fault::Scale => *value *= *size,
            Fault::Zero => *value = 0.0,
        }
        *left -= 1;
        if *left == 0 || self.single {
            self.episode = self.healthy();
        }
        Some((kind, c))
    }

    /// A healthy stretch of random length: as a rule short, at times long, as real ones are.
    fn healthy(&mut self) -> Episode {
        let u: f64 = self.random.gen_range(f64::MIN_POSITIVE..1.0);
        let gap = f64::from(self.fault_gap);
        Episode::Healthy { left: (-u.ln() * gap).min(20.0 * gap) as u32 }
    }

    fn faulty(&mut self) -> Episode {
        let random = &mut self.random;
        let fault = Fault::ALL[random.gen_range(0..Fault::ALL.len() as u32) as usize];
        let channel = random.gen_range(0..CHANNELS.len() as u32) as usize;
        let (least, most) = fault.samples();
        let of = random.gen_range(least..=most);
        let sign = if random.gen_bool(0.5) { 1.0 } else { -1.0 };
        let size = match fault {
            Fault::Spike => sign * random.gen_range(4.0..10.0),
            Fault::Drift => sign * random.gen_range(3.0..8.0),
            Fault::Offset => sign * random.gen_range(3.0..6.0),
            Fault::Noise => random.gen_range(2.0..5.0),
            Fault::Scale if sign > 0.0 => random.gen_range(1.3..2.0),
            Fault::Scale => random.gen_range(0.4..0.75),
            Fault::Stuck | Fault::Zero => 0.0,
        };
        let left = if self.single { random.gen_range(1..=of) } else { of };
        Episode::Faulty { fault, channel, size, first: None, left, of }
    }
}

impl Room {
    /// How full the room is, 0 to 1.
    fn people(&self, day: f64, hour: f64) -> f64 {
        if day.rem_euclid(7.0) >= 5.0 {
            return 0.0;
        }
        // A day's hours are scattered by a hash of the day, not drawn: any t can be asked first.
        let scatter = |n: u64| {
            let x = (self.seed ^ (day as u64).wrapping_mul(4).wrapping_add(n))
                .wrapping_add(0x9e37_79b9_7f4a_7c15)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        let (start, end) = (8.5 + scatter(0), 17.5 + 1.5 * scatter(1));
        let lunch = 12.25 + 0.5 * scatter(2);
        if !(start..end).contains(&hour) {
            0.0
        } else if (lunch..lunch + 0.75).contains(&hour) {
            0.25
        } else {
            0.8 + 0.4 * scatter(3)
        }
    }
}

/// A standard normal variate (Box & Muller 1958).
fn gauss(random: &mut ChaCha8Rng) -> f64 {
    let u: f64 = random.gen_range(f64::MIN_POSITIVE..1.0);
    let v: f64 = random.gen_range(0.0..TAU);
    (-2.0 * u.ln()).sqrt() * v.cos()
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyntheticWorld {
    /// Seed of the world.
    pub seed: u64,
    /// Number of nodes, numbered from 0.
    pub nodes: u32,
    /// Length, in days from Monday's midnight.
    pub days: f64,
    /// Time between two samples of a node, in seconds.
    pub interval_s: f64,
}

impl SyntheticWorld {
    /// Every sample with its node and time, node after node.
    pub fn samples(&self) -> impl Iterator<Item = (u32, f64, Sample)> + use<> {
        self.samples_of(|generator| generator)
    }

    /// The same nodes and times with faults of a single sample each, to train on.
    pub fn training_samples(&self) -> impl Iterator<Item = (u32, f64, Sample)> + use<> {
        self.samples_of(|generator| generator.fault_gap(FAULT_GAP_TRAINING).single_faults())
    }

    fn samples_of(
        &self,
        adapt: fn(Generator) -> Generator,
    ) -> impl Iterator<Item = (u32, f64, Sample)> + use<> {
        let plan = *self;
        let count = (plan.days * 86_400.0 / plan.interval_s).max(0.0) as u64;
        (0..plan.nodes).flat_map(move |node| {
            let mut generator = adapt(Generator::new(plan.seed, node));
            (0..count).map(move |i| {
                let t = i as f64 * plan.interval_s;
                (node, t, generator.next(t))
            })
        })
    }

    /// Samples as rows to train on: inputs are [`CHANNELS`], labels are [`LABELS`].
    ///
    /// # Errors
    /// [`DataError::TooFew`] for a plan without faults or samples, [`DataError::TooLarge`].
    pub fn dataset(&self) -> Result<Dataset, DataError> {
        let samples: Vec<Sample> = self.training_samples().map(|(_, _, s)| s).collect();
        let inputs = CHANNELS.map(str::to_owned);
        Dataset::from_rows(&inputs, samples.iter().map(|s| (&s.values[..], s.label())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edgeai::Classifier;
    use crate::edgeai::train::{Recipe, fit_and_test};

    const PLAN: SyntheticWorld = SyntheticWorld { seed: 7, nodes: 4, days: 7.0, interval_s: 120.0 };

    #[test]
    fn same_seed_gives_the_same_stream_and_others_differ() {
        let stream = |seed, node| -> Vec<Sample> {
            let mut g = Generator::new(seed, node);
            (0..500).map(|i| g.next(f64::from(i) * 30.0)).collect()
        };
        assert_eq!(stream(1, 2), stream(1, 2));
        assert_ne!(stream(1, 2), stream(1, 3));
        assert_ne!(stream(1, 2), stream(2, 2));
    }

    #[test]
    fn a_fault_that_moves_nothing_is_not_labelled() {
        for (_, _, sample) in PLAN.samples() {
            assert_eq!(sample.label() == LABELS[0], sample.moved >= VISIBLE, "{sample:?}");
            assert!(sample.fault.is_some() || sample.moved == 0.0, "{sample:?}");
        }
        let stuck = |sample: &Sample| matches!(sample.fault, Some((Fault::Stuck, _)));
        let mut all = PLAN.samples().map(|(_, _, sample)| sample).filter(stuck);
        assert!(all.any(|sample| sample.label() == LABELS[1]));
    }

    #[test]
    fn values_are_those_of_an_office() {
        let (mut day, mut night) = (vec![], vec![]);
        let mut g = Generator::new(3, 0).fault_gap(0);
        for minute in 0..5 * 1440 {
            let s = g.next(f64::from(minute) * 60.0);
            assert_eq!(s.fault, None);
            let [temperature, humidity, loudness, light] = s.values;
            assert!((15.0..30.0).contains(&temperature), "{s:?}");
            assert!((20.0..70.0).contains(&humidity), "{s:?}");
            assert!((25.0..70.0).contains(&loudness), "{s:?}");
            assert!((0.0..1500.0).contains(&light), "{s:?}");
            match minute % 1440 / 60 {
                10 | 15 => day.push(s.values),
                2 | 3 => night.push(s.values),
                _ => {}
            }
        }
        let mean = |rows: &[[f32; 4]], c: usize| {
            rows.iter().map(|r| r[c]).sum::<f32>() / rows.len() as f32
        };
        assert!(mean(&day, 0) > mean(&night, 0) + 1.0, "people and sun warm the room");
        assert!(mean(&day, 2) > mean(&night, 2) + 8.0, "people are loud");
        assert!(mean(&day, 3) > 300.0 && mean(&night, 3) < 5.0, "lamp and daylight");
    }

    #[test]
    fn every_fault_appears_and_a_good_fifth_of_the_samples_is_faulty() {
        let samples: Vec<Sample> = PLAN.samples().map(|(_, _, s)| s).collect();
        let faulty = samples.iter().filter(|s| s.fault.is_some()).count();
        let share = faulty as f64 / samples.len() as f64;
        assert!((0.12..0.3).contains(&share), "{share}");
        for fault in Fault::ALL {
            assert!(samples.iter().any(|s| s.fault.is_some_and(|(f, _)| f == fault)), "{fault:?}");
        }
    }

    #[test]
    fn time_that_runs_backwards_counts_as_no_time() {
        let mut g = Generator::new(1, 1).fault_gap(0);
        let a = g.next(1e6);
        let b = g.next(0.0);
        assert!((a.values[0] - b.values[0]).abs() < 0.5);
    }

    #[test]
    fn a_forest_learns_the_faults_that_one_sample_can_show() {
        let mut recipe = Recipe::new(Classifier::Forest);
        recipe.set("trees", "20").unwrap();
        let (_, report) = fit_and_test(&PLAN.dataset().unwrap(), &recipe).unwrap();
        let test = report.test.unwrap();
        assert!(test.f1("anomalous") > 0.85, "{test}");
    }
}
