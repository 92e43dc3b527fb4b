//! The clients: each sends one request after another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use reqwest::{Client, Url};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until};

use crate::args::Args;
use crate::mix::Mix;
use crate::tally::{Answer, Tally};

/// How long an answer may take. Longer than any deadline of the server's.
const LIMIT: Duration = Duration::from_secs(120);

/// How often the progress bar moves.
const REDRAWN: Duration = Duration::from_millis(100);

struct Load {
    http: Client,
    /// Where each server compiles.
    urls: Vec<Url>,
    mix: Mix,
    tally: Mutex<Tally>,
    began: Instant,
    end: Instant,
    clients: usize,
    /// The time from one request to the next, of all clients together.
    spacing: Option<Duration>,
    /// How many were sent, and how many may be.
    sent: AtomicU64,
    most: u64,
}

/// Sends all requests. What was counted, and from the first request to the last answer.
pub(crate) async fn run(args: &Args, mix: Mix) -> Result<(Tally, Duration)> {
    let urls = args.servers.iter().map(|url| {
        url.join(&format!("compile/{}", args.target))
            .context("not a target")
    });
    let began = Instant::now();
    let load = Arc::new(Load {
        http: Client::builder().no_proxy().timeout(LIMIT).build()?,
        urls: urls.collect::<Result<_>>()?,
        mix,
        tally: Mutex::new(Tally::new(args.servers.len())),
        began,
        end: began + args.seconds,
        clients: args.clients,
        spacing: args.rate.map(|rate| Duration::from_secs(1) / rate),
        sent: AtomicU64::new(0),
        most: args.requests.unwrap_or(u64::MAX),
    });
    let bar = tokio::spawn(show(Arc::clone(&load)));
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        let random = SmallRng::seed_from_u64(args.seed.wrapping_add(number as u64));
        clients.spawn(Arc::clone(&load).client(number, random));
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client failed")?;
    }
    bar.abort();
    let elapsed = began.elapsed();
    let tally = std::mem::take(&mut *load.tally());
    Ok((tally, elapsed))
}

impl Load {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn client(self: Arc<Self>, number: usize, mut random: SmallRng) {
        let server = number % self.urls.len();
        for turn in 0.. {
            let due = match self.spacing {
                None => Instant::now(),
                Some(spacing) => {
                    let place = turn * self.clients as u64 + number as u64;
                    let due = self.began + spacing.mul_f64(place as f64);
                    sleep_until(due.into()).await;
                    due
                }
            };
            // Late requests are not made up for.
            let is_over = due.max(Instant::now()) >= self.end;
            if is_over || self.sent.fetch_add(1, Ordering::Relaxed) >= self.most {
                return;
            }
            let (shader, source) = self.mix.choose(&mut random);
            let request = self.http.post(self.urls[server].clone()).body(source);
            let answer = Answer::receive(request).await;
            let ended = Instant::now();
            let times = (ended - due, ended - self.began);
            self.tally().add(server, shader, answer, times);
        }
    }
}

/// Shows how far it is, where the standard error is a terminal.
async fn show(load: Arc<Load>) {
    let length = load.end - load.began;
    let bar = ProgressBar::new(length.as_millis() as u64);
    // The default style shows no text; it is better than none should this one be wrong.
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    let mut ticks = interval(REDRAWN);
    loop {
        ticks.tick().await;
        let (answers, errors) = load.tally().counts();
        bar.set_position(load.began.elapsed().as_millis() as u64);
        bar.set_message(format!("{answers} answers, {errors} errors"));
    }
}
