"""TLS by servers that are not ours: what the agent accepts, and the sentence with which it refuses the rest.

OpenSSL (by Python's ssl) presents certificates, GnuTLS's server limits versions, ciphers and keys, and tlslite-ng
misbehaves. The certificates are made by trustme and its library.
"""

import contextlib
import datetime
import ipaddress
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import tlslite
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

import story
from rig import HERE, PYTHON, Agent, Console, Suite, check, end, free_port, need, same, version_of, wait_for_port

HOST = "127.0.0.1"
ALREADY = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)
STILL = datetime.datetime(3000, 1, 1, tzinfo=datetime.timezone.utc)

KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 4096": lambda: rsa.generate_private_key(65537, 4096),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def suites(is_full):
    """One row a TLS library."""
    yield "tls-openssl", lambda: judge_openssl(is_full)
    if is_full:
        yield "tls-gnutls", judge_gnutls
        yield "tls-tlslite", judge_tlslite


class Certificate:
    """A certificate with its key, signed by another or by itself."""

    def __init__(
        self,
        issuer=None,
        kind="P-256",
        names=(HOST,),
        is_authority=False,
        common_name="a server",
        begin=ALREADY,
        end=STILL,
        digest=None,
        extensions=(),
        depth=None,
    ):
        self.key, self.issuer = KEYS[kind](), issuer
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        signer = issuer or self
        is_edwards = isinstance(signer.key, ed25519.Ed25519PrivateKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(name) for name in names]), False)
        if is_authority or depth is not None:
            builder = builder.add_extension(x509.BasicConstraints(True, depth), True)
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        self.certificate = builder.sign(signer.key, None if is_edwards else digest or hashes.SHA256())

    def pem(self):
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self):
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def general(name):
    """A name of a certificate."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def authority(kind="P-256", **options):
    """A private authority."""
    return Certificate(kind=kind, names=(), is_authority=True, common_name="the authority", **options)


class Place:
    """A folder with the files of a server and of the agent."""

    def __init__(self, chain, trusted):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="draupnir-tls-"))
        self.chain, self.key, self.trusted = (self.path / name for name in ("chain.pem", "key.pem", "ca.pem"))
        self.chain.write_bytes(b"".join(certificate.pem() for certificate in chain))
        self.key.write_bytes(chain[0].key_pem())
        self.trusted.write_bytes(trusted.pem())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


class Server:
    """Gives each connection to `serve` in a thread of its own."""

    def __init__(self, serve):
        self.listener = socket.create_server((HOST, 0))
        self.port, self.serve, self.connections = self.listener.getsockname()[1], serve, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        # A refused handshake is an error of the server's library, and the case.
        with contextlib.suppress(Exception), connection:
            self.serve(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def bridge(read, write, port):
    """Carries bytes between a decrypted connection and the console, until either ends."""
    console = socket.create_connection((HOST, port))

    def back():
        with contextlib.suppress(Exception):
            while data := console.recv(16384):
                write(data)

    threading.Thread(target=back, daemon=True).start()
    try:
        while data := read():
            console.sendall(data)
    finally:
        console.close()


def refused(suite, name, serve, trusted, *words):
    """A case in which the agent says why it refuses the server."""
    with suite.case(name), Server(serve) as server:
        with Agent(f"https://{HOST}:{server.port}", SINDRI_AGENT_CA_FILE=str(trusted)) as agent:
            agent.wait_log(*words)
            agent.drain()


@contextlib.contextmanager
def accepted(serve, trusted):
    """A console behind such a server, and the agent."""
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console:
        with Server(lambda connection: serve(connection, console.port)) as server:
            with Agent(f"https://{HOST}:{server.port}", SINDRI_AGENT_CA_FILE=str(trusted)) as agent:
                yield console, agent


# ---- OpenSSL: certificates


def openssl(place, port=None, limit=None, wants_certificate=False):
    """Serves one connection by OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(place.chain, place.key)
    if limit:
        context.minimum_version = context.maximum_version = limit
    if wants_certificate:
        context.load_verify_locations(place.trusted)
        context.verify_mode = ssl.CERT_REQUIRED

    def serve(connection, port=port):
        with context.wrap_socket(connection, server_side=True) as secure:
            bridge(lambda: secure.recv(16384), secure.sendall, port)

    return serve


def judge_openssl(is_full):
    """Certificates: those that count, and those that do not."""
    suite = Suite("tls-openssl", ssl.OPENSSL_VERSION.split()[1])
    root, other = authority(), Certificate(names=(), is_authority=True, common_name="another authority")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for kind in KEYS if is_full else ("P-256",):
            signer = authority(kind)
            with suite.case(f"{version.name}, {kind}"), Place([Certificate(signer, kind)], signer) as place:
                with accepted(openssl(place, limit=version), place.trusted) as (console, agent):
                    story.basic(console)
                    agent.drain()
        name, words = f"{version.name}, client certificate", "requires a client certificate, and the agent has none"
        with Place([Certificate(root)], root) as place:
            refused(suite, name, openssl(place, 1, version, True), place.trusted, words)
    middle = Certificate(root, names=(), is_authority=True, common_name="an intermediate authority")
    with suite.case("with an intermediate authority"), Place([Certificate(middle), middle], root) as place:
        with accepted(openssl(place), place.trusted) as (console, agent):
            console.frame(1, "heartbeat")
            agent.drain()
    no_servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    elsewhere = x509.NameConstraints([x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))], None)
    constrained = Certificate(
        root, names=(), is_authority=True, common_name="constrained", extensions=[(elsewhere, True)]
    )
    short = Certificate(root, names=(), depth=0, common_name="short")
    below = Certificate(short, names=(), is_authority=True, common_name="below")
    yesterday = datetime.datetime(2002, 1, 1, tzinfo=datetime.timezone.utc)
    tomorrow = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)
    wrong = [
        ("unknown authority", [Certificate(other)], "signed by an issuer that this machine does not trust"),
        (
            "another authority of the same name",
            [Certificate(authority())],
            "does not fit the trusted authority of that name",
        ),
        ("self-signed", [Certificate()], "signed by an issuer that this machine does not trust"),
        ("without its intermediate", [Certificate(middle)], "signed by an issuer that this machine does not trust"),
        ("expired", [Certificate(root, end=yesterday)], "expired at 2002-01-01T00:00:00Z"),
        ("not valid yet", [Certificate(root, begin=tomorrow)], "not valid before 2999-01-01T00:00:00Z"),
        ("another name", [Certificate(root, names=("other.test",))], "is for other.test, not for 127.0.0.1"),
        ("no name", [Certificate(root, names=())], "has no subjectAltName"),
        ("not for servers", [Certificate(root, extensions=[(no_servers, False)])], "it is not for servers"),
        (
            "an authority as a server",
            [Certificate(root, is_authority=True)],
            "it is a certificate of an authority (CA:TRUE)",
        ),
        (
            "unknown critical extension",
            [Certificate(root, extensions=[(unknown, True)])],
            "critical extension that the agent does not know",
        ),
        ("name constraint", [Certificate(constrained), constrained], "must not sign for this name"),
        ("path length", [Certificate(below), below, short], "longer than one of its authorities allows"),
        ("issuer that is no authority", [Certificate(Certificate(root)), Certificate(root)], "issuer"),
    ]
    for name, chain, words in wrong:
        if is_full or name in ("expired", "another name"):
            with Place(chain, root) as place:
                refused(suite, name, openssl(place, 1), place.trusted, "no TLS with", words)
    return suite


# ---- GnuTLS: versions, ciphers, keys


@contextlib.contextmanager
def gnutls(place, priority, *options):
    """GnuTLS's own server, which sends back what it gets."""
    port = free_port()
    command = [
        need("gnutls-serv")[0],
        "--echo",
        "--disable-client-cert",
        "--port",
        str(port),
        "--priority",
        priority,
        "--x509certfile",
        str(place.chain),
        "--x509keyfile",
        str(place.key),
        *options,
    ]
    if "--require-client-cert" in options:
        command.remove("--disable-client-cert")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"https://{HOST}:{port}"
    finally:
        end(process)


def judge_gnutls():
    """What GnuTLS and rustls agree on, and what the agent says where they do not."""
    suite = Suite("tls-gnutls", version_of(need("gnutls-serv")[0], "--version"))
    good = {
        "TLS 1.2": "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        "TLS 1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3",
        "AES-128-GCM": "NORMAL:-CIPHER-ALL:+AES-128-GCM",
        "AES-256-GCM": "NORMAL:-CIPHER-ALL:+AES-256-GCM",
        "ChaCha20": "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305",
        "X25519 alone": "NORMAL:-GROUP-ALL:+GROUP-X25519",
        "P-256 alone": "NORMAL:-GROUP-ALL:+GROUP-SECP256R1",
        "P-384 alone": "NORMAL:-GROUP-ALL:+GROUP-SECP384R1",
    }
    for name, priority in good.items():
        root = authority()
        with suite.case(name), Place([Certificate(root)], root) as place, gnutls(place, priority) as url:
            answered(url, place)
    for kind in KEYS:
        root = authority(kind)
        with suite.case(f"key {kind}"), Place([Certificate(root, kind)], root) as place, gnutls(place, "NORMAL") as url:
            answered(url, place)
    bad = [
        (
            "TLS 1.1 at most",
            "NORMAL:-VERS-ALL:+VERS-TLS1.1",
            [],
            "accepts none of the agent's TLS versions, ciphers or key exchanges",
        ),
        (
            "no forward secrecy",
            "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA",
            [],
            "accepts none of the agent's TLS versions, ciphers or key exchanges",
        ),
        (
            "AES-CCM alone",
            "NORMAL:-CIPHER-ALL:+AES-128-CCM",
            [],
            "accepts none of the agent's TLS versions, ciphers or key exchanges",
        ),
        (
            "client certificate in TLS 1.3",
            "NORMAL:-VERS-ALL:+VERS-TLS1.3",
            ["--require-client-cert"],
            "requires a client certificate, and the agent has none",
        ),
        (
            "client certificate in TLS 1.2",
            "NORMAL:-VERS-ALL:+VERS-TLS1.2",
            ["--require-client-cert"],
            "requires a client certificate, and the agent has none",
        ),
        (
            "another protocol inside",
            "NORMAL",
            ["--alpn=h2", "--alpn-fatal"],
            "the server does not offer HTTP/1.1 over TLS",
        ),
    ]
    root = authority("RSA 2048")
    for name, priority, options, words in bad:
        with suite.case(name), Place([Certificate(root, "RSA 2048")], root) as place:
            with gnutls(place, priority, *options) as url, Agent(url, SINDRI_AGENT_CA_FILE=str(place.trusted)) as agent:
                agent.wait_log(words)
                agent.drain()
    return suite


def answered(url, place):
    """The agent has read its own request over TLS, which is no HTTP answer."""
    with Agent(url, SINDRI_AGENT_CA_FILE=str(place.trusted)) as agent:
        agent.wait_log("does not speak HTTP on this port")
        check(agent.log.count(lambda line: "no TLS with" in str(line)) == 0, agent.log.text(8))
        agent.drain()


# ---- tlslite-ng: misbehaviour


def tlslite_keys(place):
    """Chain and key as tlslite-ng wants them."""
    chain = tlslite.X509CertChain()
    chain.parsePemList(place.chain.read_text())
    return chain, tlslite.parsePEMKey(place.key.read_text(), private=True)


def tlslite_server(place, version, during=lambda secure: None):
    """Serves one connection by tlslite-ng; `during` is done once the WebSocket is up."""
    chain, key = tlslite_keys(place)
    settings = tlslite.HandshakeSettings()
    settings.minVersion = settings.maxVersion = version

    def serve(connection, port):
        secure = tlslite.TLSConnection(connection)
        secure.handshakeServer(certChain=chain, privateKey=key, settings=settings, alpn=[bytearray(b"http/1.1")])
        seen = bytearray()

        def write(data):
            secure.write(data)
            seen.extend(data)
            if b"log:subscribe" in seen:
                seen.clear()
                during(secure)

        bridge(lambda: secure.read(max=16384, min=1), write, port)

    return serve


# Bytes: two records. Its ciphers are in Python, and slow.
SMALL = 20_000


def update_keys(secure):
    """Asks for new keys in both directions."""
    for _ in secure.send_keyupdate_request(tlslite.constants.KeyUpdateMessageType.update_requested):
        pass


def close_without_notify(secure):
    """Ends the connection without TLS's own goodbye."""
    secure.sock.shutdown(socket.SHUT_RDWR)


def once(act):
    """Does it for the first connection alone."""
    done = []

    def during(secure):
        if not done:
            done.append(True)
            act(secure)

    return during


def alert(level, code):
    """A server that answers the ClientHello with an alert."""

    def serve(connection):
        connection.recv(16384)
        connection.sendall(bytes([21, 3, 3, 0, 2, level, code]))
        connection.recv(16384)

    return serve


def raw(data):
    """A server that answers the ClientHello with these bytes."""

    def serve(connection):
        connection.recv(16384)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(16384):
            pass

    return serve


ALERTS = {
    "handshake_failure": (40, "the server accepts none of the agent's TLS versions, ciphers or key exchanges"),
    "protocol_version": (70, "the server accepts neither TLS 1.2 nor TLS 1.3"),
    "insufficient_security": (71, "the server requires stronger ciphers than the agent has"),
    "unrecognized_name": (112, "it has no host of this name; correct the console URL"),
    "certificate_required": (116, "the server requires a client certificate, and the agent has none"),
    "access_denied": (49, "the server denies access"),
    "internal_error": (80, "the server reports an internal TLS error; read its log"),
    "no_application_protocol": (120, "the server does not offer HTTP/1.1 over TLS"),
    "unknown alert": (200, "the server ended TLS with an alert"),
}


def judge_tlslite():
    """Both versions with what they allow after the handshake, and servers that break the rules."""
    suite = Suite("tls-tlslite", tlslite.__version__)
    root = authority("RSA 2048")
    with Place([Certificate(root, "RSA 2048")], root) as place:
        for version, name in (((3, 3), "TLS 1.2"), ((3, 4), "TLS 1.3")):
            with (
                suite.case(f"{name}: story"),
                accepted(tlslite_server(place, version), place.trusted) as (console, agent),
            ):
                story.basic(console, large=SMALL)
                agent.drain()
            ending = tlslite_server(place, version, once(close_without_notify))
            with suite.case(f"{name}: close without notify"), accepted(ending, place.trusted) as (console, agent):
                console.frame(2, "heartbeat")
                agent.drain()
        with suite.case("TLS 1.3: key update"):
            with accepted(tlslite_server(place, (3, 4), update_keys), place.trusted) as (console, agent):
                story.basic(console, large=SMALL)
                agent.drain()
                same(console.connections(), 1, "connections")
        old = tlslite_old(place)
        refused(suite, "TLS 1.1 at most", old, place.trusted, "no TLS with", "accepts none of the agent's TLS versions")
        for name, (code, words) in ALERTS.items():
            refused(suite, f"alert {name}", alert(2, code), place.trusted, "no TLS with", words)
        broken = {
            "clear text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers in clear text"),
            "nothing": (b"", "broke off the handshake"),
            "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "no TLS with"),
            "oversized record": (bytes([22, 3, 3, 255, 255]) + bytes(70000), "no TLS with"),
            "half a record": (bytes([22, 3, 3, 1, 0, 2]), "broke off the handshake"),
            "application data first": (bytes([23, 3, 3, 0, 1, 0]), "no TLS with"),
            "ServerHello of garbage": (
                bytes([22, 3, 3, 0, 6, 2, 0, 0, 2, 9, 9]),
                "the server sent a malformed TLS message",
            ),
        }
        for name, (data, words) in broken.items():
            refused(suite, name, raw(data), place.trusted, words)
        with suite.case("changed on the way"):
            changed_on_the_way(place)
    return suite


def tlslite_old(place):
    """A server of TLS 1.1."""
    chain, key = tlslite_keys(place)
    settings = tlslite.HandshakeSettings()
    settings.minVersion, settings.maxVersion = (3, 1), (3, 2)

    def serve(connection):
        tlslite.TLSConnection(connection).handshakeServer(certChain=chain, privateKey=key, settings=settings)

    return serve


def changed_on_the_way(place):
    """One byte of the server's encrypted data is changed: the agent says so, and connects again."""
    honest = tlslite_server(place, (3, 3))
    state = {"left": 1}
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console:
        with Server(lambda connection: honest(connection, console.port)) as inner:

            def middle(connection):
                server = socket.create_connection((HOST, inner.port))

                def back():
                    with contextlib.suppress(OSError):
                        while data := server.recv(16384):
                            # Application data of TLS begins with 23.
                            if data[0] == 23 and state["left"]:
                                state["left"] -= 1
                                data = data[:-1] + bytes([data[-1] ^ 1])
                            connection.sendall(data)
                        connection.shutdown(socket.SHUT_WR)

                threading.Thread(target=back, daemon=True).start()
                with contextlib.suppress(OSError):
                    while data := connection.recv(16384):
                        server.sendall(data)
                server.close()

            with Server(middle) as outer:
                with Agent(f"https://{HOST}:{outer.port}", SINDRI_AGENT_CA_FILE=str(place.trusted)) as agent:
                    agent.wait_log("cannot be decrypted")
                    console.frame(1, "heartbeat")
                    agent.drain()
