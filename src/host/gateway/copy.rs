//! Copies of bodies that pass, for mirroring: bounded each, and bounded together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that all copies may still take.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What a copy has taken of the budget, until it is dropped.
#[derive(Debug)]
struct Taken {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The first bytes of a body.
#[derive(Debug)]
pub(super) struct Copy {
    bytes: Vec<u8>,
    most: usize,
    /// There was more than that, or no budget for it.
    cut: bool,
    taken: Taken,
}

impl Copy {
    pub(super) fn new(most: usize, budget: &Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), most, cut: false, taken: Taken { budget: Arc::clone(budget), bytes: 0 } }
    }

    /// Adds what has just passed, as far as it fits.
    pub(super) fn push(&mut self, data: &[u8]) {
        if self.cut {
            return;
        }
        let fits = data.len().min(self.most - self.bytes.len());
        if !self.taken.budget.take(fits) {
            self.cut = true;
            return;
        }
        self.taken.bytes += fits;
        self.bytes.extend_from_slice(&data[..fits]);
        self.cut = fits < data.len();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }
}

/// The copy of a request's body, made while the slot reads it.
#[derive(Debug, Clone)]
pub(super) struct RequestCopy(Arc<Mutex<Growing>>);

#[derive(Debug)]
struct Growing {
    copy: Copy,
    ended: bool,
}

impl RequestCopy {
    /// `ended`: there is no body.
    pub(super) fn new(most: usize, budget: &Arc<Budget>, ended: bool) -> Self {
        Self(Arc::new(Mutex::new(Growing { copy: Copy::new(most, budget), ended })))
    }

    pub(super) fn push(&self, data: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).copy.push(data);
    }

    pub(super) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    }

    /// The whole body, or why there is none.
    pub(super) fn whole(&self) -> Result<Vec<u8>, &'static str> {
        let growing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (growing.copy.is_cut(), growing.ended) {
            (true, _) => Err("too_large"),
            (false, false) => Err("incomplete"),
            (false, true) => Ok(growing.copy.bytes().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_each_and_together() {
        let budget = Budget::new(10);
        let mut first = Copy::new(6, &budget);
        first.push(b"abcd");
        first.push(b"efgh");
        assert_eq!((first.bytes(), first.is_cut()), (&b"abcdef"[..], true));
        let mut second = Copy::new(6, &budget);
        second.push(b"12345");
        assert_eq!((second.bytes(), second.is_cut()), (&b""[..], true), "four bytes are left");
        drop(first);
        let mut third = Copy::new(10, &budget);
        third.push(b"0123456789");
        assert_eq!((third.bytes().len(), third.is_cut()), (10, false));
    }

    #[test]
    fn a_request_is_repeated_whole_or_not_at_all() {
        let budget = Budget::new(100);
        let copy = RequestCopy::new(4, &budget, false);
        copy.push(b"abc");
        assert_eq!(copy.whole(), Err("incomplete"));
        copy.end();
        assert_eq!(copy.whole(), Ok(b"abc".to_vec()));
        copy.push(b"de");
        assert_eq!(copy.whole(), Err("too_large"));
        assert_eq!(RequestCopy::new(4, &budget, true).whole(), Ok(vec![]));
    }
}
