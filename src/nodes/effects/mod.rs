//! The side effects of a release, and those of the generic nodes, one file each: what is performed, how one finds out whether it happened, how it is taken back.

mod build;
mod command;
mod divide;
mod env;
mod http;
mod ledger;
mod registry;
mod replicas;
mod retire;
mod slot;
mod switch;
mod vacate;

pub use build::BuildModel;
pub use command::{PROBE_NOT_DONE, RunCommand};
pub use divide::{DivideTraffic, Side};
pub use env::EnsureEnv;
pub use http::{HttpWorld, LaterCall, SendHttp, expected, query_of, result, url_of};
pub use ledger::{CompleteRelease, OpenRelease, UpdateRelease};
pub use registry::RegisterModel;
pub use replicas::{GiveUpReplicas, StartReplicas};
pub use retire::{KeepStandby, RemoveSlots};
pub use slot::StartSlot;
pub use switch::SwitchTraffic;
pub use vacate::{HoldRequests, VacateSlot};

use std::sync::Arc;

use super::World;
use crate::graph::Effects;

/// All effects of release nodes, bound to one home's world.
pub fn effects(world: &Arc<World>) -> Effects {
    Effects::new()
        .with::<OpenRelease>(world.clone())
        .with::<UpdateRelease>(world.clone())
        .with::<CompleteRelease>(world.clone())
        .with::<EnsureEnv>(world.clone())
        .with::<BuildModel>(world.clone())
        .with::<StartSlot>(world.clone())
        .with::<RegisterModel>(world.clone())
        .with::<SwitchTraffic>(world.clone())
        .with::<DivideTraffic>(world.clone())
        .with::<HoldRequests>(world.clone())
        .with::<StartReplicas>(world.clone())
        .with::<GiveUpReplicas>(world.clone())
        .with::<VacateSlot>(world.clone())
        .with::<RemoveSlots>(world.clone())
        .with::<KeepStandby>(world.clone())
}
