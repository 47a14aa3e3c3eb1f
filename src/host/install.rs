//! Starting at boot: a systemd user unit, or the line for a crontab where there is no systemd.

use std::path::{Path, PathBuf};

use super::{HostConfig, HostError};

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
    let (exe, home) = (in_one_line("program", &config.exe)?, in_one_line("home", &paths.home)?);
    let unit_name = format!("tidegate-{}.service", paths.short_hash());
    Ok(Install {
        unit: unit_text(exe, home),
        enable: vec![
            "systemctl --user daemon-reload".to_owned(),
            format!("systemctl --user enable --now {unit_name}"),
            "loginctl enable-linger".to_owned(),
        ],
        crontab: format!("@reboot {} up --home {}", crontab_quote(exe), crontab_quote(home)),
        unit_name,
    })
}

/// The path as text that can stand in a line of a unit and of a crontab: neither has a way to write a line's end.
fn in_one_line<'a>(what: &str, path: &'a Path) -> Result<&'a str, HostError> {
    const HINT: &str = "use a home (--home, TIDEGATE_HOME) and a place for the program without them";
    let Some(text) = path.to_str() else {
        return Err(HostError::invalid(format!("the path of the {what} is no Unicode: {path:?}"), HINT));
    };
    if text.chars().any(char::is_control) {
        return Err(HostError::invalid(format!("the path of the {what} has control characters: {path:?}"), HINT));
    }
    Ok(text)
}

/// `up` at start and `down` at stop, with the keeper living on in between; so the state knows that a machine was shut down in order.
/// `KillMode=mixed` leaves the order of stopping to `down` and ends what is left afterwards.
fn unit_text(exe: &str, home: &str) -> String {
    let exe = systemd_quote(exe);
    // Of arguments, not of the program, systemd takes `$` for the beginning of a variable.
    let home_argument = systemd_quote(home).replace('$', "$$");
    // The bracket keeps a backslash at the home's end from continuing the line.
    let title = home.replace('%', "%%");
    format!(
        "[Unit]\n\
         Description=Tidegate host daemon (home {title})\n\
         After=network.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={exe} up --home {home_argument}\n\
         ExecStop={exe} down --home {home_argument}\n\
         KillMode=mixed\n\
         TimeoutStopSec=90\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

fn systemd_quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// Quoted for the shell, and for cron before it, which ends the command at a `%` without a backslash, in quotes or not. Outside of the
/// quotes `\%` is a `%` for a cron that knows of this and for one that does not.
fn crontab_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('%', r"'\%'"))
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

    fn install(exe: &str, home: &Path) -> Result<Install, HostError> {
        install_unit(&HostConfig { exe: exe.into(), ..HostConfig::new(home).unwrap() })
    }

    #[test]
    fn unit_and_crontab_quote_their_paths() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join(r#"it's "100%" $HOME\"#);
        let install = install("/opt/$tide gate/50%/tidegate", &home).unwrap();
        let root = root.path().canonicalize().unwrap();
        let of_root = |text: &str| text.replace("ROOT", root.to_str().unwrap());
        for (command, key) in [("up", "ExecStart"), ("down", "ExecStop")] {
            let line = r#"KEY="/opt/$tide gate/50%%/tidegate" COMMAND --home "ROOT/it's \"100%%\" $$HOME\\""#;
            let line = of_root(&line.replace("KEY", key).replace("COMMAND", command));
            assert!(install.unit.lines().any(|l| l == line), "{line}\n{}", install.unit);
        }
        let title = of_root(r#"Description=Tidegate host daemon (home ROOT/it's "100%%" $HOME\)"#);
        assert!(install.unit.lines().any(|l| l == title), "{}", install.unit);
        let line = r#"@reboot '/opt/$tide gate/50'\%'/tidegate' up --home 'ROOT/it'\''s "100'\%'" $HOME\'"#;
        assert_eq!(install.crontab, of_root(line));
        let path = write_unit(&install, &root).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), install.unit);
    }

    /// What cron makes of a command: `\%` is a `%`, a `%` alone ends it.
    fn as_cron_reads(command: &str) -> String {
        let (mut read, mut escaped) = (String::new(), false);
        for c in command.chars() {
            match (escaped, c) {
                (true, '%') => drop(read.pop()),
                (false, '%') => return read,
                _ => {}
            }
            read.push(c);
            escaped = !escaped && c == '\\';
        }
        read
    }

    #[test]
    fn the_crontabs_line_means_the_paths() {
        for path in ["/a b", "/it's", "/100%", r"/a\%b", r"/a\\%", "/$HOME `id` \"x\"", "/%%'%", "/;&|<>*?#!~"] {
            let quoted = crontab_quote(path);
            for command in [as_cron_reads(&quoted), quoted.clone()] {
                let script = format!("printf %s {command}");
                let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
                assert_eq!(String::from_utf8_lossy(&said.stdout), path, "{quoted}");
            }
        }
    }

    #[test]
    fn what_no_line_can_hold_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let root = tempfile::tempdir().unwrap();
        let plain = root.path().join("home");
        assert!(install("/bin/tidegate", &plain).is_ok());
        let not_unicode = PathBuf::from(std::ffi::OsString::from_vec(b"caf\xe9".to_vec()));
        for home in
            ["a\nb", "a\rb", "a\tb", "a\u{1b}[31mb", "a\u{85}b"].map(PathBuf::from).into_iter().chain([not_unicode])
        {
            let error = install("/bin/tidegate", &root.path().join(home)).unwrap_err().to_port();
            assert_eq!((error.code.as_str(), error.retryable), ("invalid_host_request", false));
            assert!(error.message.starts_with("the path of the home ") && !error.message.contains('\n'), "{error:?}");
            assert!(error.hint.is_some());
        }
        let error = install("/bin/tide\ngate", &plain).unwrap_err().to_string();
        assert!(error.starts_with("the path of the program has control characters"), "{error}");
    }
}
