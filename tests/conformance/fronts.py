"""Web servers before the console, plain and with TLS: the story, a cut, a reload, an idle time-out, a dead console.

Each server is Debian's, with the few lines of configuration that its manual gives for WebSockets.
"""

import contextlib
import os
import signal

import trustme

import story
from rig import HERE, PYTHON, Agent, Console, Server, Suite, check, need, same, version_of

# Seconds without traffic after which a front ends a connection, where a case sets it.
IDLE = 2

NGINX = """
daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;
  uwsgi_temp_path {place}/4; scgi_temp_path {place}/5; client_max_body_size 64k;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port}{tls};
    ssl_certificate {place}/chain.pem; ssl_certificate_key {place}/key.pem;
    location / {{
      proxy_pass http://127.0.0.1:{console}; proxy_http_version 1.1; proxy_read_timeout {idle}s;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
    }}
  }}
}}
"""

HAPROXY = """
global
  stats socket {place}/stats level admin
defaults
  mode http
  timeout connect 5s
  timeout client {idle}s
  timeout server {idle}s
  timeout tunnel {idle}s
frontend front
  bind 127.0.0.1:{port}{tls}
  default_backend console
backend console
  server console 127.0.0.1:{console}
"""

APACHE = """
ServerRoot {place}
ServerName 127.0.0.1
PidFile {place}/pid
DefaultRuntimeDir {place}
ErrorLog {place}/error.log
User www-data
Group www-data
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule proxy_wstunnel_module /usr/lib/apache2/modules/mod_proxy_wstunnel.so
LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
{tls}
RewriteEngine On
RewriteCond %{{HTTP:Upgrade}} =websocket [NC]
RewriteRule /(.*) ws://127.0.0.1:{console}/$1 [P,L]
ProxyPass / http://127.0.0.1:{console}/
"""

LIGHTTPD = """
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{place}"
server.modules = ("mod_proxy", "mod_openssl")
server.max-read-idle = {idle}
{tls}
proxy.server = ("" => (("host" => "127.0.0.1", "port" => {console})))
proxy.header = ("upgrade" => "enable")
"""

CADDY = """
{{
  admin unix/{place}/admin
  auto_https off
  storage file_system {place}
}}
{scheme}://127.0.0.1:{port} {{
  {tls}
  reverse_proxy 127.0.0.1:{console}
}}
"""

HITCH = """
frontend = "[127.0.0.1]:{port}"
backend = "[127.0.0.1]:{console}"
pem-file = "{place}/both.pem"
user = "daemon"
workers = 1
"""

STUNNEL = """
foreground = yes
pid =
[front]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{console}
cert = {place}/both.pem
TIMEOUTidle = {idle}
"""

VARNISH = """
vcl 4.1;
backend console {{ .host = "127.0.0.1"; .port = "{console}"; }}
sub vcl_recv {{ if (req.http.upgrade ~ "(?i)websocket") {{ return (pipe); }} return (pass); }}
sub vcl_pipe {{ set bereq.http.upgrade = req.http.upgrade; set bereq.http.connection = req.http.connection; }}
"""


class Kind:
    """A kind of front: how it is configured, started, asked to reload, and what it can do."""

    def __init__(
        self,
        program,
        text,
        command,
        tls="",
        plain="",
        has_idle=True,
        reload=signal.SIGHUP,
        version=("-v",),
        schemes=("http", "https"),
    ):
        self.program, self.text, self.command, self.tls, self.plain = program, text, command, tls, plain
        self.has_idle, self.reload, self.version, self.schemes = has_idle, reload, version, schemes


KINDS = {
    "nginx": Kind("nginx", NGINX, ["-c", "{file}", "-p", "{place}", "-e", "{place}/error.log"], " ssl"),
    "haproxy": Kind(
        "haproxy",
        HAPROXY,
        ["-W", "-db", "-f", "{file}"],
        " ssl crt {place}/both.pem alpn h2,http/1.1",
        reload=signal.SIGUSR2,
    ),
    "apache2": Kind(
        "apache2",
        APACHE,
        ["-X", "-f", "{file}"],
        "SSLEngine on\nSSLCertificateFile {place}/chain.pem\nSSLCertificateKeyFile {place}/key.pem",
        has_idle=False,
        reload=None,
    ),
    "lighttpd": Kind(
        "lighttpd",
        LIGHTTPD,
        ["-D", "-f", "{file}"],
        'ssl.engine = "enable"\nssl.pemfile = "{place}/both.pem"',
        has_idle=False,
        reload=signal.SIGUSR1,
    ),
    "caddy": Kind(
        "caddy",
        CADDY,
        ["run", "--adapter", "caddyfile", "--config", "{file}"],
        "tls {place}/chain.pem {place}/key.pem",
        has_idle=False,
        reload=signal.SIGUSR1,
        version=("version",),
    ),
    "hitch": Kind("hitch", HITCH, ["--config={file}"], has_idle=False, version=("--version",), schemes=("https",)),
    "stunnel": Kind("stunnel4", STUNNEL, ["{file}"], version=("-version",), schemes=("https",)),
    "varnish": Kind(
        "varnishd",
        VARNISH,
        ["-F", "-a", "127.0.0.1:{port}", "-f", "{file}", "-n", "{place}/work", "-p", "pipe_timeout={idle}"],
        reload=None,
        version=("-V",),
        schemes=("http",),
    ),
}

# Seconds: longer than any case takes.
NO_IDLE = 600


def suites(is_full):
    """One row a front."""
    if is_full:
        for name in KINDS:
            yield name, lambda name=name: judge(name)


class Front(Server):
    """A running front."""

    def __init__(self, kind, console, scheme, idle=NO_IDLE):
        super().__init__(0o755)
        self.kind = kind
        self.url, self.authority = f"{scheme}://127.0.0.1:{self.port}", self.place / "ca.pem"
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(self.authority)
        certificate.private_key_pem.write_to_path(self.place / "key.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.place / "both.pem")
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (self.place / "chain.pem").write_bytes(chain)
        fields = {
            "place": self.place,
            "port": self.port,
            "console": console.port,
            "idle": idle,
            "scheme": scheme,
            "file": self.place / "configuration",
            "user": "user root;" if os.geteuid() == 0 else "",
        }
        part = kind.tls if scheme == "https" else kind.plain
        fields["tls"] = part.format(**fields)
        (self.place / "configuration").write_text(kind.text.format(**fields))
        self.command = [need(kind.program)[0], *(word.format(**fields) for word in kind.command)]
        self.start()


@contextlib.contextmanager
def rig(kind, scheme, idle=NO_IDLE, **environment):
    """A console, a front and an agent."""
    with (
        Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console,
        Front(kind, console, scheme, idle) as front,
    ):
        with Agent(front.url, SINDRI_AGENT_CA_FILE=str(front.authority), **environment) as agent:
            yield console, front, agent


def judge(name):
    """The story behind this front."""
    kind = KINDS[name]
    path = need(kind.program)[0]
    suite = Suite(name, version_of(path, *kind.version))
    for scheme in kind.schemes:
        with suite.case(f"{scheme}: story, cut, reload, drain"), rig(kind, scheme) as (console, front, agent):
            story.basic(console)
            story.cut(console, front.restart)
            if kind.reload:
                before = console.connections()
                front.process.send_signal(kind.reload)
                # The link stays or comes back: work that is given while the front reloads is done once.
                again(console, agent, before)
            agent.drain()
            same(console.lines.count(lambda line: line.get("is") == "binary"), 0, "binary messages")
        with suite.case(f"{scheme}: the console is away"), rig(kind, scheme) as (console, front, agent):
            console.frame(1, "heartbeat")
            console.process.kill()
            console.process.wait()
            agent.wait_log("dialling", after=len(agent.log.lines))
            with Console([PYTHON, str(HERE / "console.py"), "wsproto"], console.port) as other:
                other.frame(1, "heartbeat")
                story.work(other, 1)
                agent.drain()
        if kind.has_idle:
            with (
                suite.case(f"{scheme}: idle time-out"),
                rig(kind, scheme, IDLE, SINDRI_AGENT_HEARTBEAT="3600", SINDRI_AGENT_METRICS="3600") as (
                    console,
                    _,
                    agent,
                ),
            ):
                console.frame(1, "heartbeat")
                console.wait("upgrade", connection=2)
                event = console.frame(2, "event", event_type="disconnect")
                check(event["metadata"].get("cause"), event)
                agent.drain()
            with suite.case(f"{scheme}: busy in spite of the time-out"), rig(kind, scheme, IDLE) as (console, _, agent):
                # Pings and heartbeats keep both directions busy for three times as long.
                result = (
                    console.run(f"sleep {3 * IDLE}; echo kept", 1, "long") if console.frame(1, "heartbeat") else None
                )
                same(result["stdout"], "kept\n", "the result on the first connection")
                agent.drain()
    return suite


def again(console, agent, before):
    """After a reload: a command's result on the same link or on the next one, whichever the front allows."""
    console.send("command:dispatch", {"command_id": "reload", "command": "echo reloaded"})

    def is_result(line):
        frame = line.get("frame", {})
        return frame.get("type") == "command:result" and frame["payload"]["command_id"] == "reload"

    try:
        console.lines.wait(is_result, "result", seconds=10)
    except Exception:  # the order went to a link that was just ending
        console.wait("upgrade", connection=before + 1)
        console.run("echo reloaded", before + 1, "reload")
    check(agent.process.poll() is None, "the agent runs")
