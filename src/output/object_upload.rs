//! Upload of one object in parts, under a temporary name until the digest of its content is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayloadMut};

use super::OutputKey;
use super::live::CHUNK_BYTES;
use super::store::{Store, StoreError};

/// Minimum size of bytes that a part takes without a copy.
const MIN_SHARED_BYTES: usize = CHUNK_BYTES;

/// Upload of one object. A small object needs one call, at its end.
pub(super) struct ObjectUpload {
    store: Store,
    key: OutputKey,
    /// Beginning of the temporary name.
    name: &'static str,
    part_bytes: usize,
    /// Bytes of the next part. For a small object, all of its bytes. Whole chunks share the memory of their source.
    buffer: PutPayloadMut,
    /// The multipart upload, while it is open.
    upload: Option<Box<dyn MultipartUpload>>,
    /// Temporary name of the object, until the object gets its digest as its name.
    partial: Option<Path>,
    /// Number of finished parts, for the wait for the store.
    parts: Arc<AtomicU64>,
}

impl ObjectUpload {
    /// Prepares the upload of an object. Makes no call to the store.
    pub fn new(store: Store, key: OutputKey, name: &'static str, part_bytes: usize, parts: Arc<AtomicU64>) -> Self {
        Self { store, key, name, part_bytes, buffer: PutPayloadMut::new(), upload: None, partial: None, parts }
    }

    /// Appends bytes. Sends each full part.
    pub async fn append(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let now = bytes.split_to(bytes.len().min(self.part_bytes - self.buffer.content_length()));
            match now.len() {
                // A slice of a chunk would keep the memory of the whole chunk.
                ..MIN_SHARED_BYTES => self.buffer.extend_from_slice(&now),
                _ => self.buffer.push(now),
            }
            if self.buffer.content_length() == self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                self.store.remove_partials(&self.key, self.name).await?;
                let (partial, upload) = self.store.begin(&self.key, self.name).await?;
                self.partial = Some(partial);
                upload
            }
        };
        let part = upload.put_part(std::mem::take(&mut self.buffer).freeze());
        self.upload = Some(upload);
        self.store.with_deadline("write a part", part).await?;
        self.parts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the rest, and gives the object its final name.
    pub async fn complete(&mut self, sha256: &str) -> Result<(), StoreError> {
        if self.upload.is_none() {
            return self.store.put(&self.key, sha256, std::mem::take(&mut self.buffer).freeze()).await;
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        if let Some(upload) = self.upload.as_mut() {
            self.store.with_deadline("finish", upload.complete()).await?;
            self.upload = None;
        }
        if let Some(partial) = &self.partial {
            self.store.rename(&self.key, partial, sha256).await?;
            self.partial = None;
        }
        Ok(())
    }

    /// Deletes the parts as far as possible. Remaining parts are deleted with the execution.
    pub async fn discard(&mut self) {
        self.buffer = PutPayloadMut::new();
        if let Some(mut upload) = self.upload.take() {
            let _ = self.store.with_deadline("abort", upload.abort()).await;
        } else if let Some(partial) = self.partial.take() {
            let _ = self.store.delete(&partial).await;
        }
    }
}
