//! nginx and HAProxy, as the system's packages bring them, in front of the same upstream.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A proxy that runs until it is dropped.
pub struct Rival {
    pub addr: SocketAddr,
    child: Child,
}

impl Rival {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// What a process and its children have taken of the processors so far.
pub fn cpu_time(pid: u32) -> Duration {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // Nanoseconds on a processor, by thread.
    let of = |dir: std::fs::DirEntry| {
        let text = std::fs::read_to_string(dir.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let own: Duration = threads.filter_map(of).sum();
    children.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu_time).sum::<Duration>() + own
}

impl Drop for Rival {
    fn drop(&mut self) {
        // nginx' master takes its workers along when it is asked; killed, it would leave them behind.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// The program in PATH, or where packages put servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// As many threads as our gateway takes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn free_addr() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn start(mut command: Command, addr: SocketAddr) -> Rival {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let rival = Rival { addr, child };
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(addr).is_err() {
        assert!(Instant::now() < until, "nobody listens at {addr}");
        std::thread::sleep(Duration::from_millis(10));
    }
    rival
}

/// nginx with an idle pool that is large enough for every load here, and without an access log, as our gateway's is off too. Under `/all` it repeats
/// every request at the candidate, under `/some` a tenth.
pub fn nginx(dir: &Path, upstream: SocketAddr, candidate: SocketAddr) -> Option<Rival> {
    let (program, addr, dir, threads) = (find("nginx")?, free_addr(), dir.display(), threads());
    let proxied = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Prefix /iris;
      proxy_set_header X-Request-Id $request_id;";
    let live = format!("proxy_pass http://up/; {proxied} add_header X-Request-Id $request_id;");
    let text = format!(
        "daemon off; worker_processes {threads}; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  upstream up {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  upstream candidate {{ server {candidate}; keepalive 256; keepalive_requests 1000000000; }}
  split_clients $request_id $tenth {{ 10% 1; * 0; }}
  server {{
    listen {addr} backlog=4096;
    location /iris/ {{ {live} }}
    location /all/ {{ mirror /to-all; {live} }}
    location /some/ {{ mirror /to-some; {live} }}
    location = /to-all {{ internal; proxy_pass http://candidate/predict; {proxied} }}
    location = /to-some {{ internal; if ($tenth = 0) {{ return 204; }} proxy_pass http://candidate/predict; {proxied} }}
  }}
}}
"
    );
    let file = PathBuf::from(format!("{dir}/nginx.conf"));
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program);
    command.arg("-p").arg(file.parent().expect("a folder")).arg("-c").arg(&file);
    if nix::unistd::geteuid().is_root() {
        // Its workers would change to a user who may not enter our folder.
        command.args(["-g", "user root;"]);
    }
    Some(start(command, addr))
}

/// HAProxy with the same headers and no log.
pub fn haproxy(dir: &Path, upstream: SocketAddr) -> Option<Rival> {
    let (program, addr, threads) = (find("haproxy")?, free_addr(), threads());
    let text = format!(
        "global
  nbthread {threads}
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  http-reuse always
frontend in
  bind {addr}
  unique-id-format %{{+X}}o%rt%pid%ci%cp
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Prefix /iris
  http-request replace-path /iris(/.*) \\1
  http-response set-header X-Request-Id %[unique-id]
  default_backend out
backend out
  server up {upstream} pool-max-conn 512
"
    );
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(program);
    command.arg("-db").arg("-q").arg("-f").arg(file);
    Some(start(command, addr))
}
