//! A home with a host daemon of its own for each test; nothing of it survives the test.
#![allow(dead_code, reason = "every test binary uses a part of it")]

#[path = "../support/scratch.rs"]
mod scratch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate::host::{HostClient, HostConfig, HostError, ensure_started};
use tidegate::ports::{Fence, Slot, SlotRequest, SlotState, SwitchRequest};

/// Long enough for two laden cores.
pub const WITHIN: Duration = Duration::from_secs(30);

pub struct Home {
    pub dir: tempfile::TempDir,
    pub config: HostConfig,
}

impl Home {
    pub fn new() -> Self {
        Self::with_settings("{}")
    }

    pub fn with_settings(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-host-").tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir_all(home.join("host")).unwrap();
        std::fs::write(home.join("host/settings.json"), settings).unwrap();
        std::fs::write(dir.path().join("server.py"), include_str!("server.py")).unwrap();
        let config = HostConfig {
            home,
            public_addr: Some("127.0.0.1:0".parse().unwrap()),
            exe: PathBuf::from(env!("CARGO_BIN_EXE_tidegate")),
        };
        Self { dir, config }
    }

    pub async fn start(&self) -> HostClient {
        match ensure_started(&self.config).await {
            Ok(client) => client,
            Err(error) => panic!("{error}: {:?}\n{}", error.to_port(), self.log()),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.config.home.join("host/host.log")).unwrap_or_default()
    }

    pub fn request(&self, token: &str, version: &str) -> SlotRequest {
        let home = self.config.home.canonicalize().unwrap();
        SlotRequest {
            token: token.to_owned(),
            model: "iris".to_owned(),
            version: version.to_owned(),
            argv: ["python3", "-u", self.path("server.py").to_str().unwrap(), "{port}", version]
                .map(str::to_owned)
                .to_vec(),
            cwd: self.dir.path().to_owned(),
            slot_dir: home.join("slots").join(token),
            env: Default::default(),
            env_file: None,
            ready_path: "/readyz".to_owned(),
        }
    }

    pub async fn ready_slot(&self, client: &HostClient, token: &str, version: &str) -> Slot {
        client.start_slot(&self.request(token, version)).await.unwrap();
        self.wait_state(client, token, SlotState::Ready).await
    }

    pub async fn wait_state(&self, client: &HostClient, token: &str, state: SlotState) -> Slot {
        self.until(&format!("{token} is {state:?}"), async || {
            client.slot(token).await.unwrap().filter(|slot| slot.state == state)
        })
        .await
    }

    /// Looks until there is something, bounded.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let end = Instant::now() + WITHIN;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < end, "in vain: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn fence(epoch: u64) -> Fence {
    Fence { thread: "thread-1".to_owned(), epoch }
}

pub fn switch_to(live: &str, standby: Option<&str>, expected_generation: u64) -> SwitchRequest {
    SwitchRequest {
        model: "iris".to_owned(),
        live: Some(live.to_owned()),
        standby: standby.map(str::to_owned),
        expected_generation,
        fence: fence(1),
    }
}

pub async fn url(client: &HostClient, rest: &str) -> String {
    client.endpoint_url("iris").await.unwrap() + rest
}

pub async fn get(client: &HostClient, rest: &str) -> String {
    reqwest::get(url(client, rest).await).await.unwrap().text().await.unwrap()
}

pub fn code(error: HostError) -> String {
    error.to_port().code
}

pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

pub fn kill9(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Every process that has the folder in its arguments or its environment: keeper, daemon, slots, and what they started.
pub fn processes_of(dir: &Path) -> Vec<u32> {
    let needle = dir.to_str().unwrap().as_bytes().to_vec();
    let has =
        |file: String| std::fs::read(file).is_ok_and(|text| text.windows(needle.len()).any(|window| window == needle));
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| has(format!("/proc/{pid}/cmdline")) || has(format!("/proc/{pid}/environ")))
        .collect()
}

impl Drop for Home {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = processes_of(self.dir.path());
            if left.is_empty() || Instant::now() > end {
                break;
            }
            for pid in left {
                let _ =
                    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        scratch::remove_scratch(&self.config.home);
        let pointer = self.config.home.join("host/admin-socket");
        if let Ok(socket) = std::fs::read_to_string(pointer)
            && let Some(dir) = Path::new(&socket).parent()
        {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A home with these settings, whose gateway answers for a ready slot `a` of version `v1`.
pub async fn serving(settings: &str) -> (Home, HostClient) {
    let home = Home::with_settings(settings);
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    (home, client)
}

/// A connection to the gateway.
pub async fn connect(client: &HostClient) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(client.status().await.unwrap().public_addr.unwrap()).await.unwrap()
}
