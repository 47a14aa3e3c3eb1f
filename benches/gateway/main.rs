//! The gateway beside nginx and HAProxy: the same upstream behind each, in one run, in turn. Only the ratios within one run mean something.
//!
//! `cargo bench --bench gateway` for everything, `cargo bench --bench gateway -- 3` for a glance with 3 rounds, `-- speed`, `-- switch`, `-- mirror`
//! or `-- recover` for one part. nginx and HAProxy come from the system's packages; what is not installed is said and left out.

#[path = "../figures/mod.rs"]
mod figures;
#[path = "../../tests/host_support/mod.rs"]
mod host_support;
mod load;
mod mirror;
mod rivals;
mod speed;
mod upheaval;
mod upstream;

pub use figures::median;
use figures::print;
use host_support::{Home, switch_to};
use std::net::SocketAddr;
use tidegate::host::HostClient;
use tidegate::ports::{SlotRequest, SlotState};
use tokio::runtime::Runtime;

/// Rounds of each part.
const ROUNDS: usize = 7;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, port, version] = args.as_slice()
        && first == "upstream"
    {
        return upstream::serve(port.parse().expect("a port"), version);
    }
    let rounds = args.iter().filter_map(|arg| arg.parse().ok()).next().unwrap_or(ROUNDS);
    let parts = ["speed", "switch", "mirror", "recover"];
    let chosen: Vec<&str> = parts.into_iter().filter(|part| args.iter().any(|arg| arg == part)).collect();
    let wanted = |part| chosen.is_empty() || chosen.contains(&part);
    let place = Place::new();
    if wanted("speed") {
        print("requests", &speed::figures(&place, rounds));
    }
    if wanted("switch") {
        print("switches under load", &upheaval::switches(&place, rounds));
    }
    if wanted("mirror") {
        print("mirroring", &mirror::figures(&place, rounds));
    }
    if wanted("recover") {
        print("recovery under load", &upheaval::recovery(&place, rounds));
    }
}

/// A home with its daemon as users run it, and two versions of the upstream as its slots: `a` is v1 and live, `b` is v2.
pub struct Place {
    pub runtime: Runtime,
    pub home: Home,
    pub client: HostClient,
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    /// The live upstream itself.
    pub direct: SocketAddr,
    /// The other one.
    pub candidate: SocketAddr,
}

impl Place {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let home = Home::new();
        let (client, gateway, [direct, candidate]) = runtime.block_on(async {
            let client = home.start().await;
            let mut ports = Vec::new();
            for (token, version) in [("a", "v1"), ("b", "v2")] {
                client.start_slot(&slot(&home, token, version)).await.expect("started");
                ports.push(home.wait_state(&client, token, SlotState::Ready).await.port);
            }
            client.switch(&switch_to("a", None, 0)).await.expect("switched");
            let gateway = client.status().await.expect("a status").public_addr.expect("an address");
            (client, gateway, [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
        });
        Self { runtime, home, client, gateway, direct, candidate }
    }

    /// Live and standby from now on.
    pub fn switch(&self, live: &str, standby: Option<&str>) {
        self.runtime.block_on(async {
            let generation = self.client.route("iris").await.expect("a route").map_or(0, |route| route.generation);
            self.client.switch(&switch_to(live, standby, generation)).await.expect("switched");
        });
    }
}

/// This program itself is the slot's.
fn slot(home: &Home, token: &str, version: &str) -> SlotRequest {
    let exe = std::env::current_exe().expect("this program").display().to_string();
    let argv = [exe.as_str(), "upstream", "{port}", version].map(str::to_owned).to_vec();
    SlotRequest { argv, ..home.request(token, version) }
}
