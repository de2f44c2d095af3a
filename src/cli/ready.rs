//! `writ ready`: whether a `writ serve` says that it is ready. For `helm test`, and for images without a shell.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use kube::{Client, Config};

use super::Ending;

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// Ask a `writ serve` whether it is ready.
///
/// Prints what it says. Exit codes: 0 it is ready; 2 the URL cannot be used; 5 it is not, or does not answer.
#[derive(Args, Debug)]
pub struct Ready {
    /// Where its operations are listened for, with the path: http://127.0.0.1:8081/readyz.
    #[arg(long, value_name = "URL")]
    url: String,

    /// Seconds to wait until it is.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait_seconds: u64,
}

impl Ready {
    /// Asks, again and again until it is ready or the time is over.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub async fn run(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> anyhow::Result<Ending> {
        let url: http::Uri = self.url.parse().with_context(|| format!("--url {} is not a URL", self.url))?;
        let host = url.authority().filter(|_| url.scheme_str() == Some("http")).map(ToString::to_string);
        let host = host.context("--url has to begin with http://HOST")?;
        // The client puts a path of its own before that of each request.
        let mut config = Config::new(format!("http://{host}/").parse()?);
        (config.connect_timeout, config.read_timeout) = (Some(DEADLINE), Some(DEADLINE));
        // A proxy is for the way out of a cluster.
        (config.proxy_url, config.default_retry) = (None, false);
        let client = Client::try_from(config).context("--url cannot be used")?;
        let until = Instant::now() + Duration::from_secs(self.wait_seconds);
        loop {
            let request = http::Request::get(url.path_and_query().map_or("/", |path| path.as_str())).body(Vec::new())?;
            let answer = tokio::time::timeout(DEADLINE, client.request_text(request)).await;
            let says = match answer {
                Ok(Ok(body)) => {
                    writeln!(stdout, "{}", body.trim_end())?;
                    return Ok(Ending::Good);
                }
                Ok(Err(kube::Error::Api(status))) => status.message.clone(),
                Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
                Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
            };
            if Instant::now() >= until {
                writeln!(stderr, "writ: not ready: {}", says.trim_end())?;
                return Ok(Ending::Unfinished);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
