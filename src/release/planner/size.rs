//! How many replicas, how many workers in each, and the memory that they take: from what was asked for, measured, and is free.
//!
//! A *worker* is a process of BentoML's that answers calls; a *replica* is a slot of its own with one or more of them. Replicas come first:
//! each has its own health, drain and ejection. Workers come where replicas are too dear: a further worker takes no further arbiter.

use serde_json::Value;

use super::super::plan::{PlanInput, Workers};
use super::super::resources::{cpus, memory_mb, resource};
use super::{PlanError, Reasons};

/// Memory of BentoML's arbiter, in MB: what a replica takes beside its workers, measured.
const ARBITER_MB: u64 = 83;
/// Memory of one copy where nothing is known, in MB: the arbiter and one worker (179), measured with a small model.
pub const DEFAULT_MEMORY_MB: u64 = ARBITER_MB + 179;
/// Replicas of a version on one machine: as many as the gateway takes.
pub const MOST_REPLICAS: u32 = 64;
/// Workers of a replica.
const MOST_WORKERS: u32 = 64;
/// What replicas are sized for beyond what is asked for: load is never even.
const HEADROOM: f64 = 1.25;

/// How a version is spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Slots.
    pub(super) replicas: u32,
    /// Workers in each; `None`: as the service's code says.
    pub(super) workers: Option<u32>,
    /// Whether they were sized, not asked for.
    pub(super) workers_sized: bool,
}

impl Size {
    fn of(replicas: u32, workers: Option<u32>) -> Self {
        Self { replicas, workers, workers_sized: workers.is_some() }
    }
}

/// What a version was measured with, and what is asked of the next one.
struct Load {
    /// Requests per second that are asked for.
    rps: f64,
    /// Requests per second that were answered at most.
    most: f64,
    /// By how many replicas.
    replicas: u32,
    /// With how many workers each; not known: each replica counts as one worker, whoever asks for how many, and workers are not sized.
    workers: Option<Workers>,
}

impl Load {
    fn of(input: &PlanInput) -> Option<Self> {
        let (rps, most) = input.request.serving.throughput_rps.zip(input.seen.most_rps)?;
        let workers = input.seen.workers.filter(|workers| workers.each > 0 && workers.own > 0);
        Some(Self { rps, most, replicas: input.seen.replicas.unwrap_or(1).max(1), workers })
    }

    fn processes(&self) -> u32 {
        self.replicas.saturating_mul(self.workers.map_or(1, |workers| workers.each))
    }

    /// Requests per second that one worker answered.
    fn one(&self) -> f64 {
        self.most / f64::from(self.processes())
    }

    /// How many workers are needed, in all replicas together.
    fn needed(&self) -> u32 {
        let needed = replicas_for(self.rps, self.one()).unwrap_or(MOST_REPLICAS * MOST_WORKERS);
        // What was enough is enough: workers that share processors do less each, and that is no reason for more of them.
        if self.was_enough() { needed.min(self.processes()) } else { needed }
    }

    fn was_enough(&self) -> bool {
        self.most >= self.rps
    }

    /// More workers than the code asks for, in so many replicas, were enough and are needed still: then it stays at that. What they take is
    /// theirs already where the next version takes the place of this one, and who has no place for both says so with the figures.
    fn stays(&self, replicas: u32) -> Option<u32> {
        let workers = self.workers.filter(|workers| workers.each > workers.own)?;
        let stays =
            self.was_enough() && self.replicas == replicas && self.needed() > replicas.saturating_mul(workers.own);
        stays.then_some(workers.each)
    }
}

pub(super) fn size(input: &PlanInput, why: &mut Reasons) -> Result<Size, PlanError> {
    let asked = count(input, "replicas")?;
    if let Some(replicas) = asked.filter(|count| *count > u64::from(MOST_REPLICAS)) {
        return Err(PlanError::ReplicasUnavailable { replicas });
    }
    let workers = asked_workers(input)?;
    let load = Load::of(input);
    let size = match asked.and_then(|count| u32::try_from(count).ok()) {
        Some(replicas) => {
            why.add("replicas", format!("{replicas}: as asked for, each in a slot of its own"));
            let more = load.as_ref().filter(|_| workers.is_none()).map(|load| more_workers(input, load, replicas));
            Size::of(replicas, more.transpose()?.flatten())
        }
        None => measured(input, load.as_ref(), workers, why)?,
    };
    match (workers, size.workers, &load) {
        (Some(asked), ..) => why.add("workers", format!("{asked} in each replica, as asked for")),
        (None, Some(sized), Some(load)) => why.add("workers", sized_workers(load, size.replicas, sized)),
        (None, ..) => {}
    }
    Ok(if workers.is_some() { Size { workers, workers_sized: false, ..size } } else { size })
}

fn sized_workers(load: &Load, replicas: u32, workers: u32) -> String {
    let needed = load.needed();
    let bound = match workers.saturating_mul(replicas) < needed {
        true => "; no more have a processor and memory",
        false => "",
    };
    let (one, rps) = (load.one(), load.rps);
    format!(
        "{workers} in each of {replicas} replica(s): one answered {one:.0} requests/s at most when last measured, {rps} need {needed}{bound}"
    )
}

/// How many replicas what was measured asks for, and workers where memory has no place for as many.
fn measured(input: &PlanInput, load: Option<&Load>, asked: Option<u32>, why: &mut Reasons) -> Result<Size, PlanError> {
    // What is not known of the workers that were measured is counted by replicas, as they are.
    let own = load.and_then(|load| load.workers).map_or(1, |workers| asked.unwrap_or(workers.own));
    let Some(load) = load.filter(|load| load.rps > load.one() * f64::from(own)) else {
        why.add("replicas", "1 by default");
        return Ok(Size::of(1, None));
    };
    if let Some(workers) = load.stays(load.replicas).filter(|_| asked.is_none()) {
        why.add("replicas", format!("{}: as many as were enough when last measured", load.replicas));
        return Ok(Size::of(load.replicas, Some(workers)));
    }
    let needed = load.needed().div_ceil(own);
    // More of them than processors would only take turns.
    let cpus = input.machine.cpu_count.unwrap_or(MOST_REPLICAS);
    let each = copy_mb(input, asked)?.0.max(1);
    let fit =
        input.machine.memory_free_mb.map_or(MOST_REPLICAS, |free| u32::try_from(free / each).unwrap_or(MOST_REPLICAS));
    let replicas = needed.min(cpus).min(fit).clamp(1, MOST_REPLICAS);
    if replicas < needed.min(cpus)
        && asked.is_none()
        && let Some(size) = denser(input, load, replicas)?
    {
        let Size { replicas, .. } = size;
        why.add("replicas", format!("{replicas}: {needed} are needed, at {each} MB each they do not fit into memory"));
        return Ok(size);
    }
    let bound = match replicas < needed {
        true if fit < cpus => format!(", and no more fit into memory at {each} MB each"),
        true => format!(", and there are {} processors", cpus),
        false => String::new(),
    };
    let because = format!(
        "{replicas}: {} answered {:.0} requests/s at most when last measured, {} need {needed}{bound}",
        load.replicas, load.most, load.rps
    );
    why.add("replicas", because);
    Ok(Size::of(replicas, None))
}

/// Fewer replicas with more workers in each, where `replicas` are all that fit: the most workers that memory has a place for, in as many
/// replicas as go with that. `None` where that is no gain, or not known.
fn denser(input: &PlanInput, load: &Load, replicas: u32) -> Result<Option<Size>, PlanError> {
    let Some(own) = load.workers.map(|workers| workers.own) else { return Ok(None) };
    let wanted = load.needed().min(input.machine.cpu_count.unwrap_or(MOST_REPLICAS));
    let mut best = (replicas.saturating_mul(own), None);
    for replicas in (1..=replicas).rev() {
        let workers = most_workers(input, replicas, wanted.div_ceil(replicas))?;
        let all = workers.saturating_mul(replicas).min(wanted);
        if workers > own && all > best.0 {
            best = (all, Some(Size::of(replicas, Some(workers))));
        }
    }
    Ok(best.1)
}

/// The workers that so many replicas need, where that is more than the code says.
fn more_workers(input: &PlanInput, load: &Load, replicas: u32) -> Result<Option<u32>, PlanError> {
    let Some(own) = load.workers.map(|workers| workers.own) else { return Ok(None) };
    if let Some(workers) = load.stays(replicas) {
        return Ok(Some(workers));
    }
    let most = input.machine.cpu_count.map_or(MOST_WORKERS, |cpus| cpus / replicas);
    let workers = most_workers(input, replicas, load.needed().div_ceil(replicas).min(most))?;
    Ok((workers > own).then_some(workers))
}

/// As many workers in each of the replicas as are wanted and fit; 0 where not even one does, or what one takes is not known.
fn most_workers(input: &PlanInput, replicas: u32, wanted: u32) -> Result<u32, PlanError> {
    // Who says what a replica needs says it of a replica as it is.
    if input.request.infrastructure.resources.contains_key("memory") {
        return Ok(0);
    }
    let free = input.machine.memory_free_mb.unwrap_or(u64::MAX);
    for workers in (1..=wanted.min(MOST_WORKERS)).rev() {
        if copy_mb(input, Some(workers))?.0.saturating_mul(u64::from(replicas)) <= free {
            return Ok(workers);
        }
    }
    Ok(0)
}

/// A count below `infrastructure.resources`.
fn count(input: &PlanInput, key: &str) -> Result<Option<u64>, PlanError> {
    let count = |value: &Value| {
        value.as_u64().filter(|count| *count > 0).ok_or_else(|| resource(key, value, "a number, such as 1"))
    };
    input.request.infrastructure.resources.get(key).map(count).transpose()
}

fn asked_workers(input: &PlanInput) -> Result<Option<u32>, PlanError> {
    let Some(asked) = count(input, "workers")? else { return Ok(None) };
    let workers = u32::try_from(asked).ok().filter(|count| *count <= MOST_WORKERS);
    workers.map(Some).ok_or_else(|| resource("workers", &asked.into(), &format!("a number up to {MOST_WORKERS}")))
}

/// How many replicas answer so many requests per second with a fifth to spare, where one answers `one`; `None` where that cannot be said.
pub fn replicas_for(rps: f64, one: f64) -> Option<u32> {
    let needed = (rps * HEADROOM / one).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the limit")]
    (needed.is_finite() && needed >= 1.0 && needed <= f64::from(MOST_REPLICAS)).then_some(needed as u32)
}

/// What one copy takes that has so many workers, in MB, as measured at the live version or as a small service does; and who says so.
/// `workers`: `None`: as its code says, which is taken to be as it is now.
fn measured_mb(input: &PlanInput, workers: Option<u32>) -> (u64, &'static str) {
    let own = input.seen.workers.or(input.machine.workers).map(|workers| workers.own);
    match (input.machine.memory_needed_mb, input.machine.workers.map(|now| now.each), workers.or(own)) {
        (None, _, workers) => {
            (with_workers(DEFAULT_MEMORY_MB, 1, workers.unwrap_or(1)), "what a small BentoML service takes")
        }
        (Some(measured), Some(now), Some(then)) if now > 0 && now != then => {
            (with_workers(measured, now, then), "by what a worker takes now")
        }
        (Some(measured), ..) => (measured, "what a replica takes now"),
    }
}

/// A copy of `mb` MB with `now` workers, with `then` of them instead.
fn with_workers(mb: u64, now: u32, then: u32) -> u64 {
    let worker = mb.saturating_sub(ARBITER_MB).div_ceil(u64::from(now.max(1))).max(1);
    mb.saturating_sub(worker * u64::from(now)).saturating_add(worker.saturating_mul(u64::from(then)))
}

/// What one copy needs, in MB, and who says so. What is asked for wins: the next version may need less than the one that serves.
pub(super) fn copy_mb(input: &PlanInput, workers: Option<u32>) -> Result<(u64, &'static str), PlanError> {
    let asked = input.request.infrastructure.resources.get("memory").map(memory_mb).transpose()?;
    let (measured, source) = measured_mb(input, workers);
    Ok(match asked {
        Some(asked) if measured > asked && input.machine.memory_needed_mb.is_some() => {
            (asked, "as the request says; a replica takes more now")
        }
        Some(asked) => (asked, "as the request says"),
        None => (measured, source),
    })
}

/// The memory that `copies` further replicas need, in MB; for none further, what all of `size` do in the place of the live version.
pub(super) fn memory(input: &PlanInput, copies: u32, size: Size, why: &mut Reasons) -> Result<u64, PlanError> {
    let resources = &input.request.infrastructure.resources;
    let asked = resources.get("memory").map(memory_mb).transpose()?;
    let (measured, source) = measured_mb(input, size.workers);
    let (one, source) = match asked {
        Some(asked) if measured > asked && input.machine.memory_needed_mb.is_some() => {
            (measured, "what a replica takes now, more than asked for")
        }
        Some(asked) => (asked, "as the request says"),
        None => (measured, source),
    };
    let all = one.saturating_mul(u64::from(size.replicas));
    // What the live version leaves, where it stops first.
    let (needed, left) = match copies {
        0 => (all, left_by_live(input)),
        copies => (one.saturating_mul(u64::from(copies)), 0),
    };
    match input.machine.memory_free_mb.map(|free| free.saturating_add(left)) {
        Some(free_mb) if needed > free_mb => {
            let model = input.request.model.to_string();
            return Err(PlanError::InsufficientMemory { model, needed_mb: needed, free_mb });
        }
        Some(have) if left > 0 => why.add(
            "memory",
            format!(
                "{needed} MB ({source}) fit into {have} MB once the live version has stopped and left its {left} MB"
            ),
        ),
        Some(free) => why.add("memory", format!("{needed} MB ({source}) fit into {free} MB beside what runs already")),
        None => why.add("memory", format!("{needed} MB ({source}); what is free is not known and not checked")),
    }
    if let Some(value) = resources.get("cpu") {
        let cpus = cpus(value)?;
        why.add(
            "cpu",
            match input.machine.cpu_count {
                Some(have) if cpus > f64::from(have) => {
                    format!("{cpus} were asked for and {have} are there: slower, not impossible")
                }
                Some(have) => format!("{cpus} of {have}; this machine does not reserve them"),
                None => format!("{cpus}; how many are there is not known"),
            },
        );
    }
    Ok(needed)
}

/// Memory that the live version leaves when it stops, in MB; 0 where nothing serves.
pub(super) fn left_by_live(input: &PlanInput) -> u64 {
    let replicas = input.live.as_ref().map_or(0, |live| u64::from(live.replicas.unwrap_or(1)));
    input.machine.memory_needed_mb.unwrap_or(DEFAULT_MEMORY_MB).saturating_mul(replicas)
}
