//! Queues jobs for the spill thread, and holds the number of bytes in all spill files.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::super::StreamKind;
use super::lock;
use super::spill_file::SpillFile;

/// Queue through which all other threads send jobs to the spill thread. `E` is the type of an execution.
#[derive(Debug)]
pub(super) struct SpillQueue<E> {
    /// Jobs for the thread: for each stream, at most one write and one release.
    jobs: Mutex<VecDeque<Job<E>>>,
    wake: Condvar,
    is_stopping: AtomicBool,
    /// Number of bytes in all files.
    used: AtomicU64,
}

/// A job for the spill thread.
#[derive(Debug)]
pub(super) enum Job<E> {
    /// Write the next bytes of a stream.
    Write(Arc<E>, StreamKind),
    /// Delete a file.
    Release(Arc<SpillFile>),
}

impl<E> SpillQueue<E> {
    pub fn new() -> Self {
        Self {
            jobs: Mutex::default(),
            wake: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            used: AtomicU64::new(0),
        }
    }

    pub fn enqueue(&self, job: Job<E>) {
        lock(&self.jobs).push_back(job);
        self.wake.notify_one();
    }

    /// Ends the thread after it has done all queued jobs.
    pub fn stop(&self) {
        let jobs = lock(&self.jobs);
        self.is_stopping.store(true, Ordering::Release);
        drop(jobs);
        self.wake.notify_one();
    }

    /// Returns the number of bytes in all files.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Sets the number of bytes in all files.
    pub fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Waits for the next job. Returns `None` if the thread must end.
    pub fn next(&self) -> Option<Job<E>> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.pop_front() {
                return Some(job);
            }
            if self.is_stopping.load(Ordering::Acquire) {
                return None;
            }
            jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
