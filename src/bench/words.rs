//! What is written: words in no order, as packing a state well would flatter the figures otherwise. LZ4 takes about half of them away.

use std::sync::LazyLock;

/// Longer than what LZ4 looks back at: what repeats is words, not sentences.
const BYTES: usize = 256 << 10;

const WORDS: [&str; 64] = [
    "model",
    "release",
    "traffic",
    "canary",
    "sample",
    "feature",
    "label",
    "weight",
    "score",
    "threshold",
    "latency",
    "error",
    "request",
    "answer",
    "version",
    "slot",
    "gateway",
    "judge",
    "metric",
    "median",
    "quantile",
    "baseline",
    "candidate",
    "window",
    "approve",
    "reject",
    "pending",
    "deploy",
    "rollback",
    "healthy",
    "failed",
    "ready",
    "2026-11-23",
    "0.9871",
    "17.25",
    "404",
    "north",
    "harbour",
    "tide",
    "current",
    "vessel",
    "berth",
    "pilot",
    "anchor",
    "morning",
    "evening",
    "measured",
    "expected",
    "between",
    "within",
    "because",
    "although",
    "several",
    "nothing",
    "whole",
    "part",
    "first",
    "second",
    "third",
    "last",
    "a",
    "of",
    "and",
    "is",
];

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::with_capacity(BYTES + 16);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < BYTES {
        // xorshift64 (Marsaglia): the same words on every machine.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state >> 58) as usize]);
        text.push(' ');
    }
    text
});

/// So many bytes of text; another one for each `nth`.
pub fn words(nth: usize, bytes: usize) -> &'static str {
    let from = nth.wrapping_mul(bytes + 1) % (BYTES - bytes);
    &TEXT[from..from + bytes]
}
