//! This machine: slots and traffic by the home's host daemon.

use std::path::Path;

use async_trait::async_trait;

use crate::host::{HostClient, HostConfig, HostError, ensure_started, secrets};
use crate::ports::{
    MirrorPage, PortError, RenewRequest, Route, RouteRequest, SecretFiles, Secrets, SeriesPage, Slot, SlotRequest,
    StandbyRequest, SwitchRequest, Target, TrafficRouter, VersionTraffic,
};

/// This machine as a target and as a router. Starts the host daemon when it is first needed, and again when it is gone.
#[derive(Debug, Clone)]
pub struct LocalHost {
    config: HostConfig,
}

impl LocalHost {
    /// The host daemon with this configuration; nothing is started yet.
    pub fn new(config: HostConfig) -> Self {
        Self { config }
    }

    /// A client of the running daemon.
    pub async fn client(&self) -> Result<HostClient, HostError> {
        ensure_started(&self.config).await
    }
}

#[async_trait]
impl Target for LocalHost {
    async fn start_slot(&self, request: &SlotRequest) -> Result<Slot, PortError> {
        Ok(self.client().await?.start_slot(request).await?)
    }

    async fn slot(&self, token: &str) -> Result<Option<Slot>, PortError> {
        Ok(self.client().await?.slot(token).await?)
    }

    async fn slots(&self) -> Result<Vec<Slot>, PortError> {
        Ok(self.client().await?.slots().await?)
    }

    async fn remove_slot(&self, token: &str, grace_ms: u64) -> Result<(), PortError> {
        Ok(self.client().await?.remove_slot(token, grace_ms).await?)
    }

    async fn slot_log(&self, token: &str, lines: usize) -> Result<Vec<String>, PortError> {
        Ok(self.client().await?.slot_log(token, lines).await?)
    }
}

#[async_trait]
impl SecretFiles for LocalHost {
    /// By the same rules as the daemon reads it for a slot; and what the daemon remembers of it.
    async fn read(&self, env_file: &Path) -> Result<Secrets, PortError> {
        let path = env_file.to_owned();
        let read = tokio::task::spawn_blocking(move || secrets(&path)).await;
        let mut secrets =
            read.map_err(|e| HostError::io("reading an environment file")(std::io::Error::other(e)))??;
        secrets.join(self.client().await?.secrets(env_file).await?);
        Ok(secrets)
    }
}

#[async_trait]
impl TrafficRouter for LocalHost {
    async fn route(&self, model: &str) -> Result<Option<Route>, PortError> {
        Ok(self.client().await?.route(model).await?)
    }

    async fn routes(&self) -> Result<Vec<Route>, PortError> {
        Ok(self.client().await?.routes().await?)
    }

    async fn switch(&self, request: &SwitchRequest) -> Result<Route, PortError> {
        Ok(self.client().await?.switch(request).await?)
    }

    async fn put_route(&self, request: &RouteRequest) -> Result<Route, PortError> {
        Ok(self.client().await?.put_route(request).await?)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Route, PortError> {
        Ok(self.client().await?.renew(request).await?)
    }

    async fn keep_standby(&self, request: &StandbyRequest) -> Result<(), PortError> {
        Ok(self.client().await?.keep_standby(request).await?)
    }

    async fn drain(&self, token: &str, timeout_ms: u64) -> Result<u64, PortError> {
        Ok(self.client().await?.drain(token, timeout_ms).await?)
    }

    async fn traffic(&self, model: &str) -> Result<Vec<VersionTraffic>, PortError> {
        Ok(self.client().await?.traffic(model).await?)
    }

    async fn series(&self, model: &str, after: u64) -> Result<SeriesPage, PortError> {
        Ok(self.client().await?.series(model, after).await?)
    }

    async fn mirrored(&self, model: &str, after: u64) -> Result<MirrorPage, PortError> {
        Ok(self.client().await?.mirrored(model, after).await?)
    }

    async fn endpoint_url(&self, model: &str) -> Result<String, PortError> {
        Ok(self.client().await?.endpoint_url(model).await?)
    }
}
