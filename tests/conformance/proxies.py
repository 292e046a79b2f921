"""Proxies on the way to the console: Debian's squid and tinyproxy, with and without credentials."""

import contextlib
import subprocess

import story
from rig import HERE, PYTHON, Agent, Console, Server, Suite, check, need, version_of

USER, PASSWORD = "agent", "s3cret-of-the-proxy"

# An address of this machine outside of 127.0.0.0/8: the agent uses no proxy for loopback addresses.
HERE_BUT_NOT_LOOPBACK = "0.0.0.0"

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
MaxClients 20
Timeout 600
{auth}
"""

SQUID = """
http_port 127.0.0.1:{port}
pid_filename {place}/pid
cache_log {place}/cache.log
access_log stdio:{place}/access.log
cache deny all
coredump_dir {place}
visible_hostname proxy.test
shutdown_lifetime 0 seconds
netdb_filename none
cache_effective_user proxy
{auth}
"""

SQUID_AUTH = """
auth_param basic program /usr/lib/squid/basic_ncsa_auth {place}/users
auth_param basic realm proxy
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"""


def suites(is_full):
    """One row a proxy."""
    if is_full:
        yield "tinyproxy", lambda: judge("tinyproxy")
        yield "squid", lambda: judge("squid")


class Proxy(Server):
    """A running proxy."""

    def __init__(self, name, is_closed):
        super().__init__(0o777)  # squid's own user writes its logs there
        self.name = name
        fields = {"port": self.port, "place": self.place}
        if name == "squid":
            digest = subprocess.run(
                ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
            )
            (self.place / "users").write_text(f"{USER}:{digest.stdout}")
            text = SQUID.format(auth=(SQUID_AUTH if is_closed else "http_access allow all").format(**fields), **fields)
            command = [*need("squid"), "-N", "-f", str(self.place / "configuration")]
        else:
            text = TINYPROXY.format(auth=f"BasicAuth {USER} {PASSWORD}" if is_closed else "", **fields)
            command = [*need("tinyproxy"), "-d", "-c", str(self.place / "configuration")]
        (self.place / "configuration").write_text(text)
        self.command = command
        self.start()

    def url(self, credentials=""):
        """Its URL."""
        return f"http://{credentials}127.0.0.1:{self.port}"


@contextlib.contextmanager
def rig(name, is_closed, credentials="", variable="ALL_PROXY"):
    """A console, a proxy and an agent that uses it."""
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console, Proxy(name, is_closed) as proxy:
        url = f"http://{HERE_BUT_NOT_LOOPBACK}:{console.port}"
        with Agent(url, **{variable: proxy.url(credentials)}) as agent:
            yield console, proxy, agent
            check(PASSWORD not in agent.log.text(), "the log holds no password of the proxy")


def judge(name):
    """The story through this proxy."""
    path = need(name)[0]
    suite = Suite(name, version_of(path, "-v"))
    for is_closed, credentials in ((False, ""), (True, f"{USER}:{PASSWORD}@")):
        kind = "with credentials" if is_closed else "without credentials"
        with suite.case(f"{kind}: story, cut, drain"), rig(name, is_closed, credentials) as (console, proxy, agent):
            story.basic(console)
            story.cut(console, proxy.restart)
            agent.drain()
    with suite.case("credentials are demanded"), rig(name, True) as (_, _, agent):
        agent.wait_log("demands credentials: put user and password into ALL_PROXY")
        agent.drain()
    with suite.case("credentials are refused"), rig(name, True, f"{USER}:wrong@") as (_, _, agent):
        agent.wait_log("it refuses the credentials in ALL_PROXY")
        agent.drain()
    with suite.case("the console is away"), rig(name, False) as (console, _, agent):
        console.frame(1, "heartbeat")
        console.process.kill()
        console.process.wait()
        agent.wait_log("it could not reach the server", "ALL_PROXY")
        with Console([PYTHON, str(HERE / "console.py"), "websockets"], console.port) as other:
            other.frame(1, "heartbeat")
            agent.drain()
    with suite.case("the proxy is away"), rig(name, False, variable="HTTP_PROXY") as (console, proxy, agent):
        console.frame(1, "heartbeat")
        proxy.kill()
        agent.wait_log("or correct HTTP_PROXY")
        proxy.start()
        console.frame(2, "heartbeat")
        agent.drain()
    return suite
