//! Test bucket with the operations that Writ uses. The bucket speaks S3 over HTTP, checks no signature, and keeps
//! objects in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::output::{LiveOutput, Recorder, StreamKind};
use crate::policy::Redaction;

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    /// Unfinished uploads by ID, with their parts by number.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    requests: Vec<String>,
}

type Answer = Response<Full<bytes::Bytes>>;

fn answer(status: StatusCode, body: impl Into<bytes::Bytes>) -> Answer {
    let response = Response::builder().status(status).header("ETag", "\"tag\"");
    let response = response.header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT");
    response.body(Full::new(body.into())).unwrap()
}

impl Bucket {
    fn serve(&mut self, parts: &http::request::Parts, body: Vec<u8>) -> Answer {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let key = parts.uri.path().trim_start_matches("/bucket").trim_start_matches('/').to_owned();
        self.requests.push(format!("{} {}", parts.method, parts.uri));
        assert!(parts.headers.contains_key("authorization"), "it is signed");
        let upload = query.get("uploadId").cloned();
        match (&parts.method, upload) {
            (&Method::POST, None) if query.contains_key("uploads") => {
                let id = format!("id-{}", self.requests.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                let xml =
                    format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
                answer(StatusCode::OK, xml)
            }
            (&Method::POST, None) => {
                let (text, mut deleted) = (String::from_utf8(body).unwrap(), String::new());
                for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()) {
                    self.objects.remove(key);
                    deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
                }
                answer(StatusCode::OK, format!("<DeleteResult>{deleted}</DeleteResult>"))
            }
            (&Method::PUT, Some(id)) => {
                let number = query["partNumber"].parse().unwrap();
                self.uploads.get_mut(&id).unwrap().insert(number, body);
                answer(StatusCode::OK, "")
            }
            (&Method::POST, Some(id)) => {
                let parts = self.uploads.remove(&id).unwrap();
                let (last, others) =
                    parts.values().collect::<Vec<_>>().split_last().map(|(l, o)| (*l, o.to_vec())).unwrap();
                assert!(others.iter().all(|part| part.len() == 5 << 20) && last.len() <= 5 << 20, "S3 refuses it");
                self.objects.insert(key, parts.into_values().flatten().collect());
                answer(
                    StatusCode::OK,
                    "<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>",
                )
            }
            (&Method::DELETE, Some(id)) => {
                self.uploads.remove(&id);
                answer(StatusCode::NO_CONTENT, "")
            }
            (&Method::PUT, None) => {
                let body = match parts.headers.get("x-amz-copy-source") {
                    Some(source) => self.objects[source.to_str().unwrap().trim_start_matches("bucket/")].clone(),
                    None => body,
                };
                self.objects.insert(key, body);
                answer(StatusCode::OK, "<CopyObjectResult><ETag>tag</ETag></CopyObjectResult>")
            }
            (&Method::GET, _) if query.contains_key("list-type") => answer(StatusCode::OK, self.list(&query["prefix"])),
            (&Method::GET, _) => match self.objects.get(&key) {
                Some(object) => answer(StatusCode::OK, object.clone()),
                None => answer(StatusCode::NOT_FOUND, ""),
            },
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, prefix: &str) -> String {
        let objects = self.objects.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, object)| {
            let size = object.len();
            format!("<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-11-21T12:00:00.000Z</LastModified></Contents>")
        });
        format!("<ListBucketResult>{}</ListBucketResult>", objects.collect::<String>())
    }
}

async fn start() -> (Arc<Mutex<Bucket>>, Store) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let environment = [
        ("AWS_ENDPOINT", format!("http://{}", listener.local_addr().unwrap())),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "here".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("HOME", "/ignored".to_owned()),
    ];
    let bucket = Arc::new(Mutex::new(Bucket::default()));
    let own = Arc::clone(&bucket);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let bucket = Arc::clone(&own);
            let service = service_fn(move |request: Request<Incoming>| {
                let bucket = Arc::clone(&bucket);
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes().to_vec();
                    Ok::<_, Infallible>(bucket.lock().unwrap().serve(&parts, body))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    (bucket, Store::open("s3://bucket/some/prefix", environment).unwrap())
}

async fn recorded(store: &Store, bytes: &[u8]) -> StreamRecord {
    let claim = LiveOutput::default().claimed(owner(), "count", false);
    let mut recorder = Recorder::new(&claim, 100, &Redaction::default(), Some(store.clone()));
    for piece in bytes.chunks(32_768) {
        recorder.push(StreamKind::Stdout, piece).await;
    }
    recorder.finish(false, std::future::pending()).await.stdout_record
}

#[tokio::test]
async fn a_bucket_gives_back_what_was_written_in_one_call_and_in_parts() {
    let (bucket, store) = start().await;
    for (bytes, calls) in [(5000_usize, 1), (11 << 20, 8)] {
        bucket.lock().unwrap().requests.clear();
        let bytes: Vec<u8> = (0..bytes).map(|index| (index / 3 % 251) as u8).collect();
        let record = recorded(&store, &bytes).await;
        assert!(
            record.stored,
            "{:?} {:#?}",
            record.not_stored,
            bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).requests
        );
        let mut read = Vec::new();
        let requests = bucket.lock().unwrap().requests.clone();
        assert_eq!(requests.len(), calls, "{requests:#?}");
        store.fetch(&owner(), &record, &mut read).await.unwrap();
        assert!(read == bytes);
        let name = format!("some/prefix/team/0-1/{}", record.sha256);
        assert!(bucket.lock().unwrap().objects.contains_key(&name));
    }
    assert_eq!(bucket.lock().unwrap().objects.len(), 2, "no partial is left");
    store.remove(&owner()).await.unwrap();
    assert!(bucket.lock().unwrap().objects.is_empty());
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted_in_the_bucket() {
    let (bucket, store) = start().await;
    let claim = LiveOutput::default().claimed(owner(), "count", false);
    let mut recorder = Recorder::new(&claim, 100, &Redaction::default(), Some(store));
    recorder.push(StreamKind::Stdout, &[b'x'; 6 << 20]).await;
    let started = std::time::Instant::now();
    while bucket.lock().unwrap().uploads.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "the upload does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(recorder);
    while !bucket.lock().unwrap().uploads.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is not aborted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bucket.lock().unwrap().objects.is_empty());
}
