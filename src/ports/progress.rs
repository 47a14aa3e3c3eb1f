//! Where long work says what it is doing.

/// A sink for short human-readable lines; called often, must not block.
pub trait Progress: Send + Sync {
    /// One line, without a newline.
    fn line(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn line(&self, _text: &str) {}
}
