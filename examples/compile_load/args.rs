//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use reqwest::Url;

#[path = "../http_server/arguments.rs"]
#[expect(dead_code, reason = "the servers use the rest")]
mod arguments;

use arguments::{count, positive_seconds};

/// Loads compile_servers with requests for a mix of shaders, each in several spellings, and shows
/// throughput, times by where the artifacts came from, errors, and how often answers were compiled.
///
/// Without --rate each client asks again as soon as it has its answer, which shows the most that
/// the servers can do. With --rate the requests start at fixed times, however long others take,
/// and times are counted from there: what users of so many requests a second would see. What the
/// clients do not come to is told.
///
/// The exit code is 1 if a request failed or an answer differs from another for the same key.
#[derive(Debug, Parser)]
#[command(name = "compile_load", verbatim_doc_comment)]
pub(crate) struct Args {
    /// The servers, by their base URLs without TLS, as in http://127.0.0.1:8430. Clients are shared
    /// out among them
    #[arg(required = true, value_name = "URL", value_parser = server)]
    pub(crate) servers: Vec<Url>,
    /// WGSL files, and folders to search for *.wgsl. Without any: the 23 shaders of vello
    #[arg(long = "shaders", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// How many requests are under way at once
    #[arg(long, value_name = "N", value_parser = up_to::<65_536>, default_value = "256")]
    pub(crate) clients: usize,
    /// How long new requests are sent
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "10")]
    pub(crate) seconds: Duration,
    /// How many requests are sent at most in that time
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<u64>,
    /// How many requests start in a second, of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
    /// The exponent of Zipf's law: the shader in place n is asked for 1/n^EXPONENT times as often
    /// as the first. 0 for all equally
    #[arg(long, value_name = "EXPONENT", value_parser = exponent, default_value = "1")]
    pub(crate) zipf: f64,
    /// In how many spellings each shader is sent
    #[arg(long, value_name = "N", value_parser = up_to::<10_000>, default_value = "4")]
    pub(crate) spellings: usize,
    /// What it is compiled to, with the options of the server, as in msl?version=2.4
    #[arg(long, value_name = "TARGET", default_value = "spirv")]
    pub(crate) target: String,
    /// The number that the random choices follow from
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() == "http" && url.path() == "/" {
        true => Ok(url),
        false => Err("not the base URL of an http server".to_owned()),
    }
}

fn up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    match count(text)? {
        count if count <= MOST => Ok(count),
        _ => Err(format!("more than {MOST}")),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    let exponent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.0..=10.0).contains(&exponent) {
        true => Ok(exponent),
        false => Err("not from 0 to 10".to_owned()),
    }
}
