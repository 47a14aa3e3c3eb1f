"""A slot's program for tests: a small HTTP server whose behaviour is chosen by its arguments and environment."""
import hashlib, base64, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, version = int(sys.argv[1]), sys.argv[2]
started = time.time()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def answer(self, body, status=200, kind="text/plain", extra=()):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/readyz":
            gate = os.environ.get("READY_FILE")
            ok = time.time() - started >= float(os.environ.get("READY_AFTER", "0")) and (not gate or os.path.exists(gate))
            self.answer("ready" if ok else "not yet", 200 if ok else 503)
        elif path == "/version":
            self.answer(version)
        elif path == "/headers":
            self.answer(json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}))
        elif path == "/env":
            self.answer(json.dumps(dict(os.environ)))
        elif path == "/slow":
            print("slow", flush=True)
            time.sleep(float(query) / 1000)
            self.answer(version)
        elif path == "/lag":
            # Only the second version is slow.
            if version == "v2":
                time.sleep(float(query) / 1000)
            self.answer(version)
        elif path == "/sick":
            self.answer(version, 503 if os.environ.get("SICK") else 200)
        elif path == "/sse":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(3):
                self.chunk(b"data: %d\n\n" % i)
                time.sleep(0.3)
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/stream":
            # As many pieces, one every 50 ms; the last one says that nothing is missing.
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(query)):
                self.chunk(version.encode())
                time.sleep(0.05)
            self.chunk(b"whole")
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/torn":
            # Breaks off after the head, or after as many pieces.
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(query)):
                self.chunk(version.encode())
            self.close_connection = True
        elif path == "/redirect":
            self.answer("", 302, extra=[("Location", "/docs")])
        elif path == "/status":
            self.answer("as asked", int(query))
        elif path == "/ws":
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "echo")
            self.end_headers()
            self.close_connection = True
            while data := self.connection.recv(4096):
                self.connection.sendall(b"echo:" + data)
        elif path == "/die":
            os._exit(3)
        else:
            self.answer(version + " " + self.path)

    def do_POST(self):
        data = self.body()
        if os.environ.get("CURT"):
            # Ends the connection after its answer, and does not say so.
            self.close_connection = True
        self.answer(json.dumps({"version": version, "bytes": len(data), "sha": hashlib.sha256(data).hexdigest()}))


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


print("starting", version, "at", port, flush=True)
if os.environ.get("FAIL"):
    print("Traceback: no such model", file=sys.stderr, flush=True)
    sys.exit(int(os.environ["FAIL"]))
if taken := os.environ.get("TAKEN"):
    # A port that somebody has, for so many starts (for ever without a number): PORT[:STARTS].
    import socket
    at, _, starts = taken.partition(":")
    with open("starts", "a+") as counted:
        counted.write(".")
        counted.seek(0)
        if not starts or len(counted.read()) <= int(starts):
            socket.socket().bind(("127.0.0.1", int(at)))
if os.environ.get("DEAF"):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ.get("OVERWRITE"):
    # As setproctitle does: what /proc shows of our environment is gone, the variables themselves are not.
    import ctypes
    with open("/proc/self/stat") as stat:
        start, end = map(int, stat.read().rsplit(")", 1)[1].split()[47:49])
    ctypes.memset(start, 0, end - start)
if goodbye := os.environ.get("GOODBYE"):
    import signal

    def leave(*_):
        open(goodbye, "w").close()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
if os.environ.get("LOUD"):
    def shout():
        while True:
            print("x" * 2000, flush=True)
            time.sleep(0.02)
    threading.Thread(target=shout, daemon=True).start()
server = Server(("127.0.0.1", port), Handler)
if os.environ.get("WORKER") and os.fork():
    # As an arbiter with a worker: the parent only waits, the child serves on the socket.
    server.socket.close()
    while True:
        time.sleep(60)
if os.environ.get("WORKER") == "apart":
    # As circus does with its workers.
    os.setsid()
server.serve_forever()
