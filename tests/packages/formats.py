"""The three formats for both architectures: linters, the other systems' own tools, and the completions."""

import collections
import glob
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest
import zlib

from build import TOP, VERSION, build, read
from content import DEB, FOLDER, listed, run

# The name of each architecture in each format.
NAMES = {
    "amd64": {"deb": "amd64", "rpm": "x86_64", "apk": "x86_64"},
    "arm64": {"deb": "arm64", "rpm": "aarch64", "apk": "aarch64"},
}

# What all formats hold. The files of systemd are not in the apk.
COMMON = {path: form for path, form in DEB.items() if not re.search(r"/(doc|lintian|zsh|systemd|sindri-agent)/", path)}
COMMON["usr/share/zsh/site-functions/_sindri-agent"] = 0o644
COMMON["usr/share/licenses/sindri-agent/LICENSE"] = 0o644


def names(folder):
    return sorted(os.path.basename(path) for path in glob.glob(f"{folder}/*"))


def shell(root):
    """Puts busybox with its libraries into a root, as what maintainer scripts call."""
    busybox = shutil.which("busybox")
    for path in [busybox, *re.findall(r"(/\S+) \(0x", run("ldd", busybox).stdout)]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        shutil.copy(path, root + path)
    os.makedirs(f"{root}/bin", exist_ok=True)
    for name in ("sh", "grep", "sed", "readlink", "echo"):
        os.symlink(busybox, f"{root}/bin/{name}")


class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        made = tempfile.TemporaryDirectory(prefix="packages-")
        cls.addClassCleanup(made.cleanup)
        cls.folder = made.name
        for arch in NAMES:
            build(cls.folder, arch=arch)

    def package(self, kind, arch="amd64"):
        name = {
            "deb": f"sindri-agent_{VERSION}-1_{NAMES[arch]['deb']}.deb",
            "rpm": f"sindri-agent-{VERSION}-1.{NAMES[arch]['rpm']}.rpm",
            "apk": f"sindri-agent_{VERSION}-r1_{NAMES[arch]['apk']}.apk",
        }[kind]
        path = os.path.join(self.folder, name)
        self.assertTrue(os.path.exists(path), names(self.folder))
        return path

    def test_every_format_of_every_architecture_is_built(self):
        for arch in NAMES:
            for kind in NAMES[arch]:
                self.package(kind, arch)
        self.assertEqual(len(names(self.folder)), 6)

    def test_lintian_finds_no_error(self):
        for arch in NAMES:
            # Which of two overrides is used depends on the architecture; the next case wants each of them used.
            options = ["--allow-root", "--fail-on", "error,warning", "--suppress-tags", "unused-override"]
            done = run("lintian", *options, self.package("deb", arch))
            self.assertEqual((done.returncode, done.stdout), (0, ""), done.stdout + done.stderr)

    def test_every_override_of_lintian_is_used_and_has_a_reason(self):
        packages = [self.package("deb", arch) for arch in NAMES]
        done = run("lintian", "--allow-root", "--show-overrides", *packages)
        lines = read(f"{FOLDER}/lintian-overrides").splitlines()
        for before, line in zip(lines, lines[1:], strict=False):
            if not line.startswith("#"):
                self.assertTrue(before.startswith("# "), line)
                self.assertIn(f"O: sindri-agent: {line.split()[1]}", done.stdout)

    def test_rpmlint_finds_no_error(self):
        settings = os.path.join(TOP, FOLDER, "rpmlint.toml")
        for arch in NAMES:
            done = run("rpmlint", "--config", settings, self.package("rpm", arch))
            self.assertIn("0 errors", done.stdout, done.stdout + done.stderr)
            # Without the overrides there are errors: the linter reads the package.
            self.assertRegex(run("rpmlint", self.package("rpm", arch)).stdout, "E: statically-linked-binary")

    def test_prereleases_come_before_their_release(self):
        with tempfile.TemporaryDirectory() as folder:
            build(folder, version="1.4.0-rc.1")
            self.assertEqual(
                names(folder),
                ["sindri-agent-1.4.0~rc.1-1.x86_64.rpm", "sindri-agent_1.4.0_rc1-r1_x86_64.apk"]
                + ["sindri-agent_1.4.0~rc.1-1_amd64.deb"],
            )
            self.assertEqual(run("dpkg", "--compare-versions", "1.4.0~rc.1-1", "lt", "1.4.0-1").returncode, 0)

    def test_rpm_installs_upgrades_and_is_erased(self):
        with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as newer:
            build(newer, "rpm", version="1.99.0")
            rpm = ["rpm", "--root", root, "--nodeps"]
            shell(root)
            done = run(*rpm, "--verbose", "--install", self.package("rpm"))  # else it hides what scripts print
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("no service is enabled", done.stdout)
            held = {path: form for path, form in listed(root).items() if re.match("etc|usr/bin/[sd]", path)}
            self.assertEqual(held, {path: form for path, form in DEB.items() if re.match("etc|usr/bin/[sd]", path)})
            with open(f"{root}/etc/sindri-agent.env", "a", encoding="utf-8") as file:
                file.write('SINDRI_CONSOLE_URL="https://console.example"\n')
            done = run(*rpm, "--upgrade", glob.glob(f"{newer}/*")[0])
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("scriptlet", done.stderr)
            with open(f"{root}/etc/sindri-agent.env", encoding="utf-8") as file:
                self.assertIn("console.example", file.read())
            self.assertEqual(os.stat(f"{root}/etc/sindri-agent.env").st_mode & 0o777, 0o600)
            self.assertEqual(run(*rpm, "--verify", "sindri-agent").returncode, 1)  # the settings differ, as they should
            done = run(*rpm, "--erase", "sindri-agent")
            self.assertEqual(done.returncode, 0, done.stderr)
            left = [path for path in listed(root) if "sindri" in path or "draupnir" in path]
            self.assertEqual(left, ["etc/sindri-agent.env.rpmsave"])
            self.assertEqual(os.stat(f"{root}/{left[0]}").st_mode & 0o777, 0o600)

    def test_rpm_holds_these_files(self):
        listing = run("rpm", "--query", "--package", "--queryformat", "[%{FILENAMES} %{FILEMODES:octal}\n]", self.package("rpm"))
        held = dict(line[1:].split() for line in listing.stdout.splitlines())
        expected = {**COMMON, **{path: form for path, form in DEB.items() if re.search("/systemd/|/sindri-agent/monitor", path)}}
        files = {path: int(mode, 8) & 0o777 for path, mode in held.items() if mode.startswith("100")}
        self.assertEqual(files, {path: form for path, form in expected.items() if isinstance(form, int)})
        self.assertEqual({path for path, mode in held.items() if mode.startswith("120")}, set(expected) - set(files))

    def test_apk_is_what_apk_tools_read(self):
        """Two gzip streams, control and data, without a signature. The digest of data is in the control."""
        for arch in NAMES:
            with open(self.package("apk", arch), "rb") as file:
                content = file.read()
            streams, rest = [], content
            while rest:
                inflate = zlib.decompressobj(wbits=31)
                plain = inflate.decompress(rest)
                streams.append((rest[: len(rest) - len(inflate.unused_data)], plain))
                rest = inflate.unused_data
            (_, control), (packed, data) = streams
            members = tarfile.open(fileobj=io.BytesIO(control + b"\0" * 1024))
            lines = members.extractfile(".PKGINFO").read().decode().splitlines()
            self.assertEqual([line for line in lines if " = " not in line and not line.startswith("#")], [])
            information = collections.defaultdict(list)
            for line in lines:
                information[line.partition(" = ")[0]].append(line.partition(" = ")[2])
            self.assertEqual(information["datahash"], [hashlib.sha256(packed).hexdigest()])
            self.assertEqual(information["pkgver"], [f"{VERSION}-r1"])
            self.assertEqual(information["arch"], [NAMES[arch]["apk"]])
            self.assertEqual(set(members.getnames()), {".PKGINFO", ".post-upgrade", ".pre-deinstall"})
            held = {}
            archive = tarfile.open(fileobj=io.BytesIO(data))
            for member in archive:
                self.assertEqual((member.uid, member.gid), (0, 0), member.name)
                if member.isfile():
                    held[member.name] = member.mode
                    digest = hashlib.sha1(archive.extractfile(member).read()).hexdigest()
                    self.assertEqual(member.pax_headers["APK-TOOLS.checksum.SHA1"], digest, member.name)
                elif member.issym():
                    held[member.name] = member.linkname
            self.assertEqual(held, {**COMMON, "etc/init.d/sindri-agent": 0o755})

    def test_apk_scripts_are_shell(self):
        with tarfile.open(self.package("apk")) as members:
            for name in (".post-upgrade", ".pre-deinstall"):
                script = members.extractfile(name).read().decode()
                done = subprocess.run(["busybox", "sh", "-n"], input=script, text=True, capture_output=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""), name)


class Completions(unittest.TestCase):
    """What each shell offers for a line."""

    def path(self, shell):
        return os.path.join(TOP, FOLDER, f"sindri-agent.{shell}")

    def offered(self, shell, line):
        if shell == "bash":
            script = f"""
                source {self.path('bash')}
                COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
                [[ '{line}' != *' ' ]] || {{ COMP_WORDS+=(''); ((++COMP_CWORD)); }}
                compopt() {{ :; }}
                _sindri_agent && printf '%s\\n' "${{COMPREPLY[@]}}"
            """
            done = run("bash", "-c", script)
        else:
            done = run("fish", "--no-config", "--command", f"source {self.path('fish')}; complete -C '{line}'")
        self.assertEqual(done.stderr, "", done.stdout)
        return sorted({line.split("\t")[0] for line in done.stdout.splitlines() if line})

    def test_first_words_options_and_files_are_offered(self):
        for shell in ("bash", "fish"):
            with self.subTest(shell=shell):
                first = self.offered(shell, "sindri-agent ")
                self.assertLessEqual({"doctor", "replay"}, set(first))
                self.assertEqual(self.offered(shell, "sindri-agent doc"), ["doctor"])
                self.assertEqual(self.offered(shell, "sindri-agent --v"), ["--version"])
                self.assertEqual(self.offered(shell, "sindri-agent doctor "), ["--json"])
                self.assertIn("/etc/passwd", self.offered(shell, "sindri-agent replay /etc/passw"))
                self.assertEqual(self.offered(shell, "sindri-agent doctor --json "), [])

    def test_zsh_offers_them_too(self):
        # zsh completes on a terminal alone: one of its own, in which a Tab is typed.
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.path("zsh"), f"{folder}/_sindri-agent")
            script = f"""
                zmodload zsh/zpty
                zpty z zsh -f -i
                zpty -w z 'PS1=; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste; echo re"ad"y'
                zpty -r z line '*ready*'
                zpty -w -n z "sindri-agent doct"$'\\t'"--j"$'\\t'$'\\x01'"echo "$'\\n'"echo fin"ished$'\\n'
                zpty -r z line '*finished*finished*'
                print -r -- $line
            """
            done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, timeout=60, check=False)
            self.assertIn("sindri-agent doctor --json", done.stdout, done.stderr)

    def test_zsh_script_parses(self):
        self.assertEqual(run("zsh", "-n", self.path("zsh")).stderr, "")
