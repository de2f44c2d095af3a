//! Proxy that simulates a bad connection to the API server, because the real server does not lose answers on demand. A
//! test chooses the fate of status writes and of deletions of executions, and the resources whose watches hang. The
//! proxy passes all other requests on, and counts them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::world::World;

/// Fate of one write by a holder (the claim, its progress, the result), or of one deletion of an execution.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The proxy passes the request and the answer on.
    Passes,
    /// The request never arrives: the proxy cuts the connection.
    IsLost,
    /// The request arrives. When the test notifies `release`, the proxy cuts the connection instead of answering.
    AnswerIsLost { arrived: Arc<Notify>, release: Arc<Notify> },
    /// The request arrives when the test notifies `go_on`.
    IsHeldBack { held: Arc<Notify>, go_on: Arc<Notify> },
    /// When the test notifies `go_on`, the proxy cuts the connection. The request arrives just before the next status
    /// write.
    ArrivesBeforeTheNext { cut: Arc<Notify>, go_on: Arc<Notify> },
}

/// Proxy between a controller and the API server.
pub struct Proxy {
    pub port: u16,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    policies_read: Arc<AtomicUsize>,
    watches: Arc<Mutex<BTreeMap<String, usize>>>,
    date: Arc<Mutex<Option<http::HeaderValue>>>,
    hanging: Arc<Mutex<BTreeSet<String>>>,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
    held_finalizer: Arc<Mutex<Option<Held>>>,
}

/// A request that the proxy holds back: notified when the request is there, and when it may continue.
type Held = (Arc<Notify>, Arc<Notify>);

type BodyError = <Body as hyper::body::Body>::Error;
type Answer = http::Response<UnsyncBoxBody<Bytes, BodyError>>;

struct Line {
    client: Client,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    policies_read: Arc<AtomicUsize>,
    /// Number of open watches of each resource.
    watches: Arc<Mutex<BTreeMap<String, usize>>>,
    late: Mutex<Option<http::Request<Vec<u8>>>>,
    /// Date header of all answers, in place of the API server's own.
    date: Arc<Mutex<Option<http::HeaderValue>>>,
    /// Resources whose watches deliver nothing.
    hanging: Arc<Mutex<BTreeSet<String>>>,
    /// Number of requests that are not watches, by method and resource, for example `GET machines`.
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Set if the next request that adds a finalizer to an execution is held back.
    held_finalizer: Arc<Mutex<Option<Held>>>,
}

impl Proxy {
    /// Starts a proxy that uses the chart's ServiceAccount. `fates` apply to the next writes and deletions, in order.
    pub async fn start(world: &World, fates: Vec<Fate>) -> Self {
        let kubeconfig = Kubeconfig::read_from(&world.operator).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a config")).expect("a client");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let fates = Arc::new(Mutex::new(VecDeque::from(fates)));
        let policies_read = Arc::new(AtomicUsize::new(0));
        let (watches, date, hanging, requests) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let held_finalizer = Arc::default();
        let line = Arc::new(Line {
            client,
            fates: Arc::clone(&fates),
            policies_read: Arc::clone(&policies_read),
            watches: Arc::clone(&watches),
            late: Mutex::default(),
            date: Arc::clone(&date),
            hanging: Arc::clone(&hanging),
            requests: Arc::clone(&requests),
            held_finalizer: Arc::clone(&held_finalizer),
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let line = Arc::clone(&line);
                let service = service_fn(move |request| {
                    let line = Arc::clone(&line);
                    async move { line.serve(request).await }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { port, fates, policies_read, watches, date, hanging, requests, held_finalizer }
    }

    /// Returns the number of full lists of Whitelists.
    pub fn policies_read(&self) -> usize {
        self.policies_read.load(Ordering::Relaxed)
    }

    /// Returns the number of open watches of each resource.
    pub fn open_watches(&self) -> BTreeMap<String, usize> {
        self.watches.lock().expect("a lock").clone()
    }

    /// Sets the `Date` header of all later answers.
    pub fn says_that_it_is(&self, date: &'static str) {
        *self.date.lock().expect("a lock") = Some(http::HeaderValue::from_static(date));
    }

    /// Lets later watches of a resource hang: the API server is connected, and delivers nothing. Lists still work.
    pub fn hang_watches_of(&self, resource: &str) {
        self.hanging.lock().expect("a lock").insert(resource.to_owned());
    }

    /// Returns and resets the number of requests that are not watches, by method and resource: `GET machines` for one
    /// Machine, `LIST machines` for a list.
    pub fn take_requests(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.requests.lock().expect("a lock"))
    }

    /// Holds back the next request that adds a finalizer to an execution. Returns the notification that the request is
    /// there, and the notification with which the test lets it continue.
    pub fn hold_next_finalizer(&self) -> (Arc<Notify>, Arc<Notify>) {
        let held = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        *self.held_finalizer.lock().expect("a lock") = Some((Arc::clone(&held.0), Arc::clone(&held.1)));
        held
    }

    /// Returns the number of unused fates.
    pub fn fates_left(&self) -> usize {
        self.fates.lock().expect("no test panics while it holds this").len()
    }
}

impl Line {
    /// Answers a request. A watch counts as open until either side ends its answer.
    async fn serve(&self, request: http::Request<Incoming>) -> Result<Answer, String> {
        let uri = request.uri();
        let is_watch = uri.query().unwrap_or_default().contains("watch=");
        let resource = uri.path().rsplit('/').next().filter(|_| is_watch);
        let open = resource.map(|resource| OpenWatch::new(&self.watches, resource.to_owned()));
        let answer = self.answer(request).await?;
        Ok(answer.map(|body| {
            let counted = body.map_frame(move |frame| {
                let _open = &open;
                frame
            });
            counted.boxed_unsync()
        }))
    }

    /// Answers a request. An error cuts the connection.
    async fn answer(&self, request: http::Request<Incoming>) -> Result<Answer, String> {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(http::header::HOST);
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        // The claim and the result contain a token. Earlier writes of the controller contain none.
        let is_status_write = parts.uri.path().ends_with("/status")
            && parts.method != http::Method::GET
            && body.windows(7).any(|window| window == b"\"token\"");
        let is_deletion = parts.method == http::Method::DELETE && parts.uri.path().contains("/commandexecutions/");
        let is_fateful = is_status_write || is_deletion;
        let wants_metadata = parts
            .headers
            .get(http::header::ACCEPT)
            .is_some_and(|accept| accept.to_str().unwrap_or_default().contains("PartialObjectMetadataList"));
        let is_watch = parts.uri.query().unwrap_or_default().contains("watch=");
        if parts.uri.path().ends_with("/whitelists") && !is_watch && !wants_metadata {
            self.policies_read.fetch_add(1, Ordering::Relaxed);
        }
        self.count(&parts, is_watch);
        let resource = parts.uri.path().rsplit('/').next().unwrap_or_default();
        if is_watch && self.hanging.lock().expect("a lock").contains(resource) {
            // The answer has begun, and nothing follows.
            let nothing = futures::stream::pending::<Result<hyper::body::Frame<Bytes>, BodyError>>();
            return Ok(http::Response::new(http_body_util::StreamBody::new(nothing).boxed_unsync()));
        }
        self.hold_back(&parts, &body).await;
        let request = http::Request::from_parts(parts, body);
        let fate = if is_fateful { self.fates.lock().expect("a lock").pop_front() } else { None };
        if is_status_write {
            let late = self.late.lock().expect("a lock").take();
            if let Some(late) = late {
                let _ = self.pass(late).await;
            }
        }
        match fate.unwrap_or(Fate::Passes) {
            Fate::Passes => self.pass(request).await,
            Fate::IsLost => Err("lost".to_owned()),
            Fate::AnswerIsLost { arrived, release } => {
                self.pass(request).await?;
                arrived.notify_one();
                release.notified().await;
                Err("the answer is lost".to_owned())
            }
            Fate::IsHeldBack { held, go_on } => {
                held.notify_one();
                go_on.notified().await;
                self.pass(request).await
            }
            Fate::ArrivesBeforeTheNext { cut, go_on } => {
                cut.notify_one();
                go_on.notified().await;
                *self.late.lock().expect("a lock") = Some(request);
                Err("late".to_owned())
            }
        }
    }

    /// If the test holds back the addition of a finalizer, and this request is one, waits until it may continue.
    async fn hold_back(&self, parts: &http::request::Parts, body: &[u8]) {
        let adds_finalizer = parts.method == http::Method::PATCH
            && parts.uri.path().contains("/commandexecutions/")
            && String::from_utf8_lossy(body).contains(r#""op":"add","path":"/metadata/finalizers"#);
        let held = if adds_finalizer { self.held_finalizer.lock().expect("a lock").take() } else { None };
        if let Some((arrived, may_continue)) = held {
            arrived.notify_one();
            may_continue.notified().await;
        }
    }

    fn count(&self, parts: &http::request::Parts, is_watch: bool) {
        let path: Vec<&str> = parts.uri.path().split('/').collect();
        let namespaced = path.iter().position(|word| *word == "namespaces");
        let Some(rest) = namespaced.and_then(|at| path.get(at + 2..)) else { return };
        let Some(resource) = rest.first().filter(|_| !is_watch) else { return };
        let method = match (parts.method.as_str(), rest.len()) {
            ("GET", 1) => "LIST",
            (method, _) => method,
        };
        *self.requests.lock().expect("a lock").entry(format!("{method} {resource}")).or_default() += 1;
    }

    async fn pass(&self, request: http::Request<Vec<u8>>) -> Result<Answer, String> {
        let mut answer = self.client.send(request.map(Body::from)).await.map_err(|error| error.to_string())?;
        if let Some(date) = self.date.lock().expect("a lock").clone() {
            answer.headers_mut().insert(http::header::DATE, date);
        }
        Ok(answer.map(|body| body.boxed_unsync()))
    }
}

/// Open watch, counted until it is dropped.
struct OpenWatch {
    watches: Arc<Mutex<BTreeMap<String, usize>>>,
    resource: String,
}

impl OpenWatch {
    fn new(watches: &Arc<Mutex<BTreeMap<String, usize>>>, resource: String) -> Self {
        *watches.lock().expect("a lock").entry(resource.clone()).or_default() += 1;
        Self { watches: Arc::clone(watches), resource }
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut watches = self.watches.lock().expect("a lock");
        watches.entry(self.resource.clone()).and_modify(|open| *open -= 1);
    }
}
