//! Starting at boot: a systemd user unit, or the line for a crontab where there is no systemd.

use std::path::{Path, PathBuf};

use super::{HostConfig, HostError, HostPaths};

/// What has to be put where so that a home comes up at boot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Install {
    /// The unit's file name, e.g. `tidegate-1a2b3c4d5e6f.service`; one per home.
    pub unit_name: String,
    /// The unit's text.
    pub unit: String,
    /// Commands that switch the unit on, in order.
    pub enable: Vec<String>,
    /// The line for `crontab -e` (or the start of /etc/rc.local) on machines without systemd.
    pub crontab: String,
}

/// The texts for a home.
pub fn install_unit(config: &HostConfig) -> Result<Install, HostError> {
    let paths = config.paths()?;
    let unit_name = format!("tidegate-{}.service", paths.short_hash());
    Ok(Install {
        unit: unit_text(&config.exe, &paths),
        enable: vec![
            "systemctl --user daemon-reload".to_owned(),
            format!("systemctl --user enable --now {unit_name}"),
            "loginctl enable-linger".to_owned(),
        ],
        crontab: format!("@reboot {} up --home {}", shell_quote(&config.exe), shell_quote(&paths.home)),
        unit_name,
    })
}

/// `up` at start and `down` at stop, with the keeper living on in between; so the state knows that a machine was shut down in order.
/// `KillMode=mixed` leaves the order of stopping to `down` and ends what is left afterwards.
fn unit_text(exe: &Path, paths: &HostPaths) -> String {
    let (exe, home) = (systemd_quote(exe), systemd_quote(&paths.home));
    format!(
        "[Unit]\n\
         Description=Tidegate host daemon of {title}\n\
         After=network.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={exe} up --home {home}\n\
         ExecStop={exe} down --home {home}\n\
         KillMode=mixed\n\
         TimeoutStopSec=90\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        title = paths.home.display().to_string().replace('%', "%%"),
    )
}

fn systemd_quote(path: &Path) -> String {
    let text =
        path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}

fn shell_quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Writes the unit where systemd looks for a user's units; returns the path.
pub fn write_unit(install: &Install, config_home: &Path) -> Result<PathBuf, HostError> {
    let dir = config_home.join("systemd/user");
    std::fs::create_dir_all(&dir).map_err(HostError::io(format!("creating {}", dir.display())))?;
    let path = dir.join(&install.unit_name);
    std::fs::write(&path, &install.unit).map_err(HostError::io(format!("writing {}", path.display())))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_and_crontab_quote_their_paths() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("it's 100% home");
        let config = HostConfig { exe: "/opt/tide gate/tidegate".into(), ..HostConfig::new(&home).unwrap() };
        let install = install_unit(&config).unwrap();
        assert!(install.unit.contains("ExecStart=\"/opt/tide gate/tidegate\" up --home \""), "{}", install.unit);
        assert!(install.unit.contains("100%% home"), "{}", install.unit);
        assert!(install.crontab.starts_with("@reboot '/opt/tide gate/tidegate' up --home '"), "{}", install.crontab);
        assert!(install.crontab.contains(r"it'\''s"), "{}", install.crontab);
        let path = write_unit(&install, root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), install.unit);
    }
}
