//! What was answered, counted and held against each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use blake3::Hash;
use hdrhistogram::Histogram;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};

/// What a server made of a request.
pub(crate) enum Answer {
    Artifact {
        /// Where it came from, in the server's words.
        source: String,
        /// Absent for what cannot be cached.
        key: Option<String>,
        hash: Hash,
        bytes: u64,
    },
    /// Anything else, in a few words.
    Error(String),
}

impl Answer {
    pub(crate) async fn receive(request: RequestBuilder) -> Self {
        let whole = async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok((status, headers, response.bytes().await?))
        };
        let (status, headers, body) = match whole.await {
            Ok(whole) => whole,
            Err(error) => return Self::Error(reason(&error).to_owned()),
        };
        if status != StatusCode::OK {
            return Self::Error(status.to_string());
        }
        let Some(source) = text(&headers, "artifact-source") else {
            return Self::Error("an answer that is not a compile_server's".to_owned());
        };
        Self::Artifact {
            source,
            key: text(&headers, "artifact-key"),
            hash: blake3::hash(&body),
            bytes: body.len() as u64,
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Few words, so that errors of a kind are counted together.
fn reason(error: &reqwest::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "no connection",
        _ => "connection lost",
    }
}

/// Times, exact to a thousandth of their size.
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // In microseconds, from one to the longest wait for an answer and more.
        Self(Histogram::new_with_max(1 << 32, 3).expect("the digits and the bound are in range"))
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1e3
    }
}

/// All that was answered.
#[derive(Default)]
pub(crate) struct Tally {
    /// The times of the answers from each source.
    pub(crate) times: BTreeMap<String, Times>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) bytes: u64,
    /// How many answers ended in each second.
    pub(crate) seconds: Vec<u64>,
    /// How often each server compiled each key.
    pub(crate) compiles: Vec<HashMap<String, u64>>,
    /// The keys of each shader: more than one where a spelling is not known for the same program.
    pub(crate) keys: BTreeMap<usize, BTreeSet<String>>,
    /// What the first answer under each key had. All others must have the same.
    artifacts: HashMap<String, Hash>,
    pub(crate) different: u64,
}

impl Tally {
    pub(crate) fn new(servers: usize) -> Self {
        Self {
            compiles: vec![HashMap::new(); servers],
            ..Self::default()
        }
    }

    /// Counts an answer, which took the first of the times and ended at the second.
    pub(crate) fn add(
        &mut self,
        server: usize,
        shader: usize,
        answer: Answer,
        (took, ended): (Duration, Duration),
    ) {
        let (source, key, hash, bytes) = match answer {
            Answer::Error(error) => {
                *self.errors.entry(error).or_default() += 1;
                return;
            }
            Answer::Artifact {
                source,
                key,
                hash,
                bytes,
            } => (source, key, hash, bytes),
        };
        let second = ended.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
        self.bytes += bytes;
        if let Some(key) = key {
            if source == "compiled" {
                *self.compiles[server].entry(key.clone()).or_default() += 1;
            }
            if *self.artifacts.entry(key.clone()).or_insert(hash) != hash {
                self.different += 1;
            }
            self.keys.entry(shader).or_default().insert(key);
        }
        self.times.entry(source).or_default().add(took);
    }

    /// How many answers there are, and how many errors.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.seconds.iter().sum(), self.errors.values().sum())
    }
}
