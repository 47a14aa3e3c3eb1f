//! Files of earlier formats, read as today's state.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use super::state::{FORMAT, FenceRecord, HostState, RouteRecord, SlotRecord};
use crate::ports::{Fence, TrafficPlan};

/// Reads a state of any format that was ever written; says why not.
pub(super) fn read(text: &str) -> Result<HostState, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    match value.get("format").and_then(Value::as_u64) {
        Some(1) => serde_json::from_value::<StateV1>(value).map(HostState::from).map_err(|e| e.to_string()),
        Some(format) if format == u64::from(FORMAT) => serde_json::from_value(value).map_err(|e| e.to_string()),
        Some(format) => Err(format!("format {format} is not known to this version of tidegate")),
        None => Err("it has no format number".to_owned()),
    }
}

/// Format 1: a route was one live slot and its standby.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateV1 {
    #[serde(rename = "format")]
    _format: u32,
    public_addr: Option<SocketAddr>,
    down: bool,
    slots: BTreeMap<String, SlotRecord>,
    routes: BTreeMap<String, RouteV1>,
    fences: BTreeMap<String, FenceRecord>,
    fence_count: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteV1 {
    generation: u64,
    live: Option<String>,
    standby: Option<String>,
    changed_by_gateway: Option<String>,
    by: Option<Fence>,
}

impl From<StateV1> for HostState {
    fn from(old: StateV1) -> Self {
        let StateV1 { _format, public_addr, down, slots, routes, fences, fence_count } = old;
        let version = |token: &String| slots.get(token).map_or_else(String::new, |slot| slot.request.version.clone());
        let route = |(model, old): (String, RouteV1)| {
            let traffic = match old.live {
                Some(live) => TrafficPlan::all_to(version(&live), vec![live], old.standby),
                None => TrafficPlan { standby: old.standby, ..TrafficPlan::default() },
            };
            let RouteV1 { generation, changed_by_gateway, by, .. } = old;
            (model, RouteRecord { generation, traffic, changed_by_gateway, by, standby: None })
        };
        let routes = routes.into_iter().map(route).collect();
        Self { format: FORMAT, public_addr, down, slots, routes, fences, fence_count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Leg, WHOLE};

    const FORMAT_1: &str = r#"{
      "format": 1, "public_addr": "127.0.0.1:7311", "down": false,
      "slots": {"a": {"request": {"token": "a", "model": "iris", "version": "v1", "argv": ["x"], "cwd": "/", "slot_dir": "/s/a",
        "env": {}, "env_file": null, "ready_path": "/readyz"}, "port": 4000, "life": {"is": "ready"}, "process": null, "restarts": 0,
        "last_exit": null, "started_at": null, "ready_at": null}},
      "routes": {
        "iris": {"generation": 3, "live": "a", "standby": null, "changed_by_gateway": "why", "by": {"thread": "t", "epoch": 2}},
        "gone": {"generation": 8, "live": null, "standby": null, "changed_by_gateway": null, "by": null}},
      "fences": {"t": {"epoch": 2, "touched": 1}}, "fence_count": 1}"#;

    #[test]
    fn a_file_of_format_1_becomes_legs() {
        let state = read(FORMAT_1).unwrap();
        assert_eq!(state.format, FORMAT);
        let iris = &state.routes["iris"];
        assert_eq!((iris.generation, iris.changed_by_gateway.as_deref()), (3, Some("why")));
        assert_eq!(iris.by.as_ref().unwrap().epoch, 2);
        assert_eq!(iris.traffic.legs, [Leg { version: "v1".into(), slots: vec!["a".into()], weight: WHOLE }]);
        let gone = &state.routes["gone"];
        assert_eq!((gone.generation, gone.traffic.legs.len()), (8, 0));
        // What is written from now on is read as it is.
        assert_eq!(read(&serde_json::to_string(&state).unwrap()).unwrap(), state);
    }
}
