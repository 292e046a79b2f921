"""Name servers that are slow, broken or moved, for the agent with glibc's resolver and with musl's."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import dnslib

from rig import HERE, PYTHON, ROOT, Agent, Console, NotInstalled, Suite, check, need, version_of

NAME = "console.example.test"
STATIC = ROOT / "target/static/sindri-agent-linux-amd64"

# Mounts its first argument over /etc, for this process and its children alone.
OWN_ETC = ["unshare", "--mount", "sh", "-ec", 'mount --bind "$0" /etc; exec "$@"']


def suites(is_full):
    """One row a resolver."""
    yield "dns-glibc", lambda: judge("dns-glibc", os.environ["DRAUPNIR_AGENT"], version_of("ldd", "--version"), is_full)
    if is_full:
        yield "dns-musl", judge_musl


def judge_musl():
    """The static binary, where it was built."""
    if not STATIC.exists():
        raise NotInstalled(f"{STATIC.relative_to(ROOT)} is not built (tests/scripts/static-binaries linux-amd64)")
    return judge("dns-musl", str(STATIC), "static", True)


class Server:
    """A name server on an address of loopback; `answer(question, type, transport)` decides.

    An answer is a list of addresses, or `drop`, `servfail`, `refused`, `nxdomain` or `truncate`.
    """

    def __init__(self, answer):
        self.answer, self.asked, self.is_running = answer, [], True
        for last in range(2, 255):
            self.address = f"127.53.0.{last}"
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):
                self.udp.bind((self.address, 53))
                break
        self.tcp = socket.create_server((self.address, 53))
        threading.Thread(target=self._udp, daemon=True).start()
        threading.Thread(target=self._tcp, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_running = False
        self.udp.close()
        self.tcp.close()

    def _udp(self):
        while self.is_running:
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            threading.Thread(
                target=self._reply, args=(data, "udp", lambda reply, to=peer: self.udp.sendto(reply, to)), daemon=True
            ).start()

    def _tcp(self):
        while self.is_running:
            try:
                peer, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(peer,), daemon=True).start()

    def _converse(self, peer):
        """glibc sends both questions on one connection."""
        with peer, peer.makefile("rb") as stream:
            while head := stream.read(2):
                data = stream.read(int.from_bytes(head, "big"))
                self._reply(data, "tcp", lambda reply: peer.sendall(len(reply).to_bytes(2, "big") + reply))

    def _reply(self, data, transport, send):
        request = dnslib.DNSRecord.parse(data)
        name, kind = str(request.q.qname).rstrip("."), dnslib.QTYPE[request.q.qtype]
        self.asked.append((name, kind, transport))
        answer, reply = self.answer(name, kind, transport), request.reply()
        if answer == "drop":
            return
        if isinstance(answer, str):
            code = {"servfail": "SERVFAIL", "refused": "REFUSED", "nxdomain": "NXDOMAIN", "truncate": "NOERROR"}[answer]
            reply.header.rcode = getattr(dnslib.RCODE, code)
            reply.header.tc = int(answer == "truncate")
        else:
            for address in answer:
                data = dnslib.AAAA(address) if kind == "AAAA" else dnslib.A(address)
                reply.add_answer(dnslib.RR(name, request.q.qtype, rdata=data, ttl=0))
        with contextlib.suppress(OSError):
            send(reply.pack())


class Machine:
    """An /etc of the agent's own, whose resolv.conf can be replaced while it runs."""

    def __init__(self, resolver):
        self.etc = pathlib.Path(tempfile.mkdtemp(prefix="draupnir-etc-"))
        for name in ("passwd", "group", "hosts"):
            shutil.copy(f"/etc/{name}", self.etc)
        (self.etc / "nsswitch.conf").write_text("hosts: files dns\n")
        self.use(resolver)
        self.prefix = [*OWN_ETC, str(self.etc)]

    def use(self, resolver):
        """Replaces resolv.conf as a DHCP client does: a new file by the old name."""
        new = self.etc / "resolv.conf.new"
        new.write_text(resolver)
        new.rename(self.etc / "resolv.conf")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.etc, ignore_errors=True)


@contextlib.contextmanager
def rig(program, answer, host=NAME, search=""):
    """A console, a name server, a machine that uses it, and the agent there."""
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console, Server(answer) as server:
        with Machine(f"{search}nameserver {server.address}\n") as machine:
            with Agent(f"http://{host}:{console.port}", machine.prefix, program=program) as agent:
                yield console, server, machine, agent


def v4(name, kind, _transport):
    """What an ordinary server of a host with an IPv4 address answers."""
    return ["127.0.0.1"] if (name, kind) == (NAME, "A") else [] if name == NAME else "nxdomain"


def before_connected(console, server):
    """How often each type was asked for before the agent was connected."""
    console.frame(1, "heartbeat")
    kinds = [kind for _, kind, _ in list(server.asked)]
    return kinds.count("A"), kinds.count("AAAA")


def judge(row, program, version, is_full):
    """Each fault by one resolver."""
    need("unshare")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        raise NotInstalled("no mount namespace can be had here")
    suite = Suite(row, version)
    for name, story in STORIES.items():
        if is_full or name in IN_GATE:
            with suite.case(name):
                story(program)
    return suite


def ordinary(program):
    with rig(program, v4) as (console, _, _, agent):
        console.frame(1, "heartbeat")
        agent.drain()


def both_families(program):
    def answer(name, kind, transport):
        return ["::1"] if kind == "AAAA" else v4(name, kind, transport)

    with rig(program, answer) as (console, _, _, agent):
        console.frame(1, "heartbeat")  # the console listens on IPv4 alone
        agent.drain()


def slow(program):
    def answer(name, kind, transport):
        time.sleep(2)  # that is the case
        return v4(name, kind, transport)

    with rig(program, answer) as (console, _, _, agent):
        console.frame(1, "heartbeat")
        check(agent.log.count(lambda line: "cannot be resolved" in str(line)) == 0, agent.log.text(20))
        agent.drain()


def without(refused, how):
    """Questions of one type are swallowed or refused. Connected before any resolver asks a third time."""

    def story(program):
        def answer(name, kind, transport):
            return how if kind == refused else v4(name, kind, transport)

        with rig(program, answer) as (console, server, _, agent):
            _, count = before_connected(console, server)
            # A look-up asks once, and the look-up of the family alone once more; musl repeats at once what was refused.
            # Each of the registration and the WebSocket may look the name up.
            check(count <= (4 if how == "drop" else 12), server.asked)
            check(agent.log.count(lambda line: "not reached" in str(line)) == 0, agent.log.text(20))
            agent.drain()

    return story


def broken_then_well(how, words):
    """No answer of use until the server is mended; the log says what is wrong."""

    def story(program):
        state = {"how": how}

        def answer(name, kind, transport):
            return v4(name, kind, transport) if state["how"] is None else state["how"]

        with rig(program, answer) as (console, _, _, agent):
            agent.wait_log(*words)
            state["how"] = None
            console.frame(1, "heartbeat")
            agent.drain()

    return story


def truncated(program):
    def answer(name, kind, transport):
        return "truncate" if transport == "udp" else v4(name, kind, transport)

    with rig(program, answer) as (console, server, _, agent):
        console.frame(1, "heartbeat")
        check(any(transport == "tcp" for _, _, transport in server.asked), server.asked)
        agent.drain()


def many_addresses(program):
    def answer(name, kind, transport):
        found = v4(name, kind, transport)
        return [f"127.9.9.{last}" for last in range(1, 12)] + found if kind == "A" and name == NAME else found

    with rig(program, answer) as (console, _, _, agent):
        console.frame(1, "heartbeat")
        agent.drain()


def moved(program):
    """The address changes while the agent runs; it asks again for every link."""
    state = {"address": "127.0.0.1"}

    def answer(name, kind, transport):
        found = v4(name, kind, transport)
        return [state["address"]] if found == ["127.0.0.1"] else found

    with rig(program, answer) as (console, _, _, agent):
        console.frame(1, "heartbeat")
        state["address"] = "127.9.9.9"
        console.order("cut")
        agent.wait_log("127.9.9.9", "cannot be connected to")
        state["address"] = "127.0.0.1"
        console.frame(2, "heartbeat")
        agent.drain()


def search_domain(program):
    with rig(program, v4, "console", "search wrong.test example.test\n") as (console, server, _, agent):
        console.frame(1, "heartbeat")
        check(any(name == NAME for name, _, _ in server.asked), server.asked)
        agent.drain()


def replaced_file(program):
    """resolv.conf named a server that is not there, and is replaced."""
    with rig(program, v4) as (console, server, machine, agent):
        console.frame(1, "heartbeat")
        machine.use("nameserver 127.53.1.1\noptions timeout:1 attempts:1\n")
        console.order("cut")
        agent.wait_log("cannot be resolved", NAME)
        machine.use(f"nameserver {server.address}\n")
        console.frame(2, "heartbeat")
        agent.drain()


def second_server(program):
    """The first server is not there; the second answers."""
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console, Server(v4) as server:
        with Machine(f"nameserver 127.53.1.1\nnameserver {server.address}\n") as machine:
            with Agent(f"http://{NAME}:{console.port}", machine.prefix, program=program) as agent:
                console.frame(1, "heartbeat")
                agent.drain()


STORIES = {
    "ordinary": ordinary,
    "both families": both_families,
    "slow": slow,
    "swallowed AAAA": without("AAAA", "drop"),
    "refused AAAA": without("AAAA", "servfail"),
    "REFUSED for AAAA": without("AAAA", "refused"),
    "SERVFAIL": broken_then_well("servfail", ("cannot be resolved", NAME)),
    "NXDOMAIN": broken_then_well("nxdomain", ("cannot be resolved", NAME)),
    "no address": broken_then_well([], ("cannot be resolved", NAME)),
    "truncated": truncated,
    "twelve addresses": many_addresses,
    "moved": moved,
    "search domain": search_domain,
    "resolv.conf replaced": replaced_file,
    "second server": second_server,
}
IN_GATE = ("swallowed AAAA", "truncated")
