//! What the machine takes for the parts of the chain that no program can leave out.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

use super::{Error, failed, histogram, nanos};
use crate::edgeai::{Model, Prediction};

/// Length of the file that is synced; as long as one turn through it.
const FILE_LEN: u64 = 4 << 20;
const BLOCK: usize = 4096;
/// As long as a reading, and about as long as a verdict.
const MESSAGE: usize = 160;

/// What the disk and the network take.
pub(super) struct Floor {
    pub(super) fdatasync: Histogram<u64>,
    pub(super) loopback: Histogram<u64>,
}

impl Floor {
    pub(super) fn new() -> Self {
        Self { fdatasync: histogram(), loopback: histogram() }
    }

    /// The median of the two together, microseconds.
    pub(super) fn p50_us(&self) -> f64 {
        median_us(&self.fdatasync) + median_us(&self.loopback)
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), Error> {
        let added = self.fdatasync.add(&other.fdatasync);
        added.and_then(|()| self.loopback.add(&other.loopback)).map_err(|error| {
            failed(format!("two measurements of the floor do not fit together: {error}"))
        })
    }

    /// Adds `count` measurements of each.
    pub(super) fn measure(&mut self, directory: &Path, count: u32) -> Result<(), Error> {
        let measured = self.sync(directory, count).and_then(|()| self.round_trips(count));
        measured.map_err(|error| failed(format!("the floor could not be measured: {error}")))
    }

    fn sync(&mut self, directory: &Path, count: u32) -> io::Result<()> {
        let path = directory.join("floor");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        // As the log's segments are made.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_LEN)?;
        file.sync_all()?;
        let block = [0x5a; BLOCK];
        for n in 0..u64::from(count) {
            let offset = n * BLOCK as u64 % FILE_LEN;
            let started = Instant::now();
            file.write_all_at(&block, offset)?;
            file.sync_data()?;
            self.fdatasync.saturating_record(nanos(started.elapsed()));
        }
        drop(file);
        std::fs::remove_file(path)
    }

    fn round_trips(&mut self, count: u32) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let echo = std::thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut message = [0; MESSAGE];
            loop {
                match stream.read_exact(&mut message) {
                    Ok(()) => stream.write_all(&message)?,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE];
        for _ in 0..count {
            let started = Instant::now();
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            self.loopback.saturating_record(nanos(started.elapsed()));
        }
        drop(stream);
        echo.join().map_err(|_| io::Error::other("the echo ended badly"))?
    }
}

/// How long the model takes for one row, median, microseconds.
pub(super) fn inference_us(model: &Model, rows: &[Vec<f32>]) -> Result<f64, Error> {
    let mut times = histogram();
    let mut prediction = Prediction::default();
    for row in rows.iter().cycle().take(rows.len() * 4) {
        let started = Instant::now();
        model.predict(row, &mut prediction).map_err(|error| failed(error.to_string()))?;
        times.saturating_record(nanos(started.elapsed()));
    }
    Ok(median_us(&times))
}

pub(super) fn median_us(histogram: &Histogram<u64>) -> f64 {
    histogram.value_at_quantile(0.5) as f64 / 1e3
}
