//! `writ ready`: checks if a `writ serve` is ready, for `helm test` and for images without a shell.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use kube::{Client, Config};

use super::CliExit;

/// Maximum time for the connect, for each read, and for a whole request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// Check if a `writ serve` is ready.
///
/// Prints the answer of the endpoint. Exit code 0: ready; 2: the URL cannot be used; 5: not ready, or no answer.
#[derive(Args, Debug)]
pub struct Ready {
    /// URL of the readiness endpoint, for example http://127.0.0.1:8081/readyz.
    #[arg(long, value_name = "URL")]
    url: String,

    /// Seconds to wait until the `writ serve` is ready, 0 to 3600.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait_seconds: u64,
}

impl Ready {
    /// Sends requests to the endpoint until `writ serve` is ready or the waiting time has passed.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub async fn run(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> anyhow::Result<CliExit> {
        let url: http::Uri = self.url.parse().with_context(|| format!("--url {} must be a URL", self.url))?;
        let host = url.authority().filter(|_| url.scheme_str() == Some("http")).map(ToString::to_string);
        let host = host.context("--url must start with http://HOST")?;
        // The client puts the path of the base URL in front of each request, so the base URL has no path.
        let mut config = Config::new(format!("http://{host}/").parse()?);
        (config.connect_timeout, config.read_timeout) = (Some(DEADLINE), Some(DEADLINE));
        // Only connections that leave the cluster need a proxy.
        (config.proxy_url, config.default_retry) = (None, false);
        let client = Client::try_from(config).context("--url cannot be used")?;
        let until = Instant::now() + Duration::from_secs(self.wait_seconds);
        loop {
            let request = http::Request::get(url.path_and_query().map_or("/", |path| path.as_str())).body(Vec::new())?;
            let answer = tokio::time::timeout(DEADLINE, client.request_text(request)).await;
            let says = match answer {
                Ok(Ok(body)) => {
                    writeln!(stdout, "{}", body.trim_end())?;
                    return Ok(CliExit::Success);
                }
                Ok(Err(kube::Error::Api(status))) => status.message.clone(),
                Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
                Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
            };
            if Instant::now() >= until {
                writeln!(stderr, "writ: not ready: {}", says.trim_end())?;
                return Ok(CliExit::NotReady);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
