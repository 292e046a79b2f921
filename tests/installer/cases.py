"""What the installer does with the program: each function is one case, and its name says what is true.

A case gets a bench and raises AssertionError. Every one runs under each of the shells. The service units are in
service_cases.py.
"""

import os
import signal

from bench import SCRIPT
from server import ALWAYS, agent, checksum, slow, stalled, status, truncated

FILE = "/releases/download/v1.4.3/sindri-agent-linux-amd64"


def expect(outcome, expected_status, *texts):
    assert outcome.status == expected_status, f"status {outcome.status}, not {expected_status}:\n{outcome.output}"
    for text in texts:
        assert text in outcome.output, f"nothing says {text!r}:\n{outcome.output}"


def untouched(bench, content=None):
    """Nothing was installed over what was there, and nothing lies about."""
    assert bench.installed() == content, "the installed program is another"
    assert bench.leftovers() == [], bench.leftovers()


def good_release_is_installed(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0, "sindri-agent 1.4.3 is installed", "is not in PATH")
    assert bench.installed() == agent("1.4.3")
    assert bench.mode(os.path.join(bench.bin, "sindri-agent")) == 0o755
    assert bench.installed("sindri-agent.previous") is None
    assert bench.leftovers() == []


def good_release_is_installed_by_wget_alone(bench):
    bench.revoke("curl")
    bench.grant("wget")
    bench.server.release("1.4.3")
    expect(bench.run(), 0, "sindri-agent 1.4.3 is installed")
    assert bench.installed() == agent("1.4.3")


def good_release_is_installed_from_a_pipe(bench):
    bench.server.release("1.4.3")
    expect(bench.run(piped=True), 0)
    expect(bench.run("--uninstall", piped=True), 0)
    untouched(bench)


def no_root_is_needed(bench):
    _, settings = bench.ordinary_user()
    bench.server.release("1.4.3")
    expect(bench.run(**settings), 0)
    assert bench.installed() == agent("1.4.3")


def second_run_changes_nothing(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    before = os.stat(os.path.join(bench.bin, "sindri-agent"))
    downloads = bench.server.requests.count(FILE)
    expect(bench.run(), 0, "installed already")
    after = os.stat(os.path.join(bench.bin, "sindri-agent"))
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert bench.server.requests.count(FILE) == downloads, "it was downloaded again"
    assert bench.installed("sindri-agent.previous") is None


def upgrade_keeps_the_version_before(bench):
    bench.server.release("1.4.2")
    expect(bench.run(), 0)
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    assert bench.installed() == agent("1.4.3")
    assert bench.installed("sindri-agent.previous") == agent("1.4.2")
    assert bench.leftovers() == []


def version_can_be_named(bench):
    for number, version in enumerate(("1.4.3", "1.4.4", "1.4.5")):
        bench.server.release(version)
        expect(bench.run(DRAUPNIR_VERSION="1.4.3"), 0, "1.4.3")
        assert bench.installed() == agent("1.4.3"), number
    expect(bench.run(DRAUPNIR_VERSION="v1.4.4"), 0, "1.4.4")
    expect(bench.run("1.4.5"), 0, "1.4.5")
    assert bench.server.requests.count("/releases/latest") == 0


def install_dir_can_be_named(bench):
    bench.server.release("1.4.3")
    place = os.path.join(bench.root, "elsewhere", "with space")
    expect(bench.run(INSTALL_DIR=place, PATH=f"{bench.tools}:{place}"), 0)
    assert sorted(os.listdir(place)) == ["draupnir", "sindri-agent"]
    untouched(bench)


def path_hint_is_left_out_when_it_is_in_path(bench):
    bench.server.release("1.4.3")
    outcome = bench.run(PATH=f"{bench.tools}:{bench.bin}")
    expect(outcome, 0)
    assert "PATH" not in outcome.output, outcome.output


def wrong_checksum_is_refused(bench):
    bench.server.release("1.4.2")
    expect(bench.run(), 0)
    bench.server.release("1.4.3")
    bench.server.files[FILE + ".sha256"] = checksum(b"something else", "sindri-agent-linux-amd64")
    expect(bench.run(), 65, "checksum", "nothing is installed")
    untouched(bench, agent("1.4.2"))


def missing_checksum_is_refused(bench):
    bench.server.release("1.4.3")
    del bench.server.files[FILE + ".sha256"]
    expect(bench.run(), 66, "checksum")
    untouched(bench)
    assert FILE not in bench.server.requests, "the program was downloaded all the same"


def checksum_of_another_file_is_refused(bench):
    bench.server.release("1.4.3")
    bench.server.files[FILE + ".sha256"] = checksum(agent("1.4.3"), "sindri-agent-linux-arm64")
    expect(bench.run(), 65)
    untouched(bench)


def error_page_as_checksum_is_refused(bench):
    bench.server.release("1.4.3")
    bench.server.files[FILE + ".sha256"] = b"<html>please log in</html>\n"
    expect(bench.run(), 65, "is not one")
    untouched(bench)


def bare_checksum_is_accepted(bench):
    bench.server.release("1.4.3")
    bench.server.files[FILE + ".sha256"] = checksum(agent("1.4.3"), "")[:64].upper()
    expect(bench.run(), 0)


def truncated_file_is_refused(bench):
    bench.server.release("1.4.3")
    bench.server.files[FILE] = agent("1.4.3")[:5000]
    expect(bench.run(), 65, "checksum")
    untouched(bench)


def truncated_transfer_is_tried_again(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [truncated]
    expect(bench.run(), 0, "once more in 1 s")
    assert bench.installed() == agent("1.4.3")


def truncated_transfer_is_refused_in_the_end(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [ALWAYS, truncated]
    outcome = bench.run(DRAUPNIR_TRIES="2")
    assert outcome.status in (65, 69), f"{outcome.status}: {outcome.output}"
    untouched(bench)


def truncated_transfer_is_refused_by_wget_too(bench):
    bench.revoke("curl")
    bench.grant("wget")
    truncated_transfer_is_refused_in_the_end(bench)


def release_that_is_not_there_is_said_at_once(bench):
    bench.server.release("1.4.3")
    expect(bench.run(DRAUPNIR_VERSION="9.9.9"), 66, "does not exist")
    assert len(bench.server.requests) == 1, bench.server.requests
    untouched(bench)


def release_that_is_not_there_is_said_by_wget_too(bench):
    bench.revoke("curl")
    bench.grant("wget")
    release_that_is_not_there_is_said_at_once(bench)


def server_error_is_tried_again(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [status(500)]
    bench.server.faults[FILE + ".sha256"] = [status(503)]
    expect(bench.run(), 0, "500", "503", "once more in 1 s")
    assert bench.installed() == agent("1.4.3")


def server_error_is_tried_again_by_wget_too(bench):
    bench.revoke("curl")
    bench.grant("wget")
    server_error_is_tried_again(bench)


def server_error_that_stays_ends_the_run(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [ALWAYS, status(500)]
    expect(bench.run(DRAUPNIR_TRIES="3"), 69, "once more in 1 s", "once more in 2 s", "answers 500")
    assert bench.server.requests.count(FILE) == 3
    untouched(bench)


def slow_link_is_waited_for(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [slow]
    expect(bench.run(DRAUPNIR_STALL_SECONDS="5"), 0)
    assert bench.installed() == agent("1.4.3")


def link_that_stands_still_is_given_up(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [ALWAYS, stalled]
    expect(bench.run(DRAUPNIR_STALL_SECONDS="1", DRAUPNIR_TRIES="1"), 69, "gave up")
    untouched(bench)


def server_out_of_reach_ends_the_run(bench):
    bench.server.close()
    expect(bench.run(DRAUPNIR_VERSION="1.4.3", DRAUPNIR_TRIES="1"), 69)
    untouched(bench)


def curl_reads_no_configuration_of_the_user(bench):
    with open(os.path.join(bench.home, ".curlrc"), "w", encoding="utf-8") as file:
        file.write('proxy = "http://127.0.0.1:1"\nuser-agent = "theirs"\n')
    bench.server.release("1.4.3")
    expect(bench.run(CURL_HOME=bench.home, DRAUPNIR_TRIES="1"), 0, "sindri-agent 1.4.3 is installed")


def wget_reads_no_configuration_of_the_user(bench):
    bench.revoke("curl")
    bench.grant("wget")
    path = os.path.join(bench.home, ".wgetrc")
    with open(path, "w", encoding="utf-8") as file:
        file.write("use_proxy = on\nhttp_proxy = http://127.0.0.1:1\n")
    bench.server.release("1.4.3")
    expect(bench.run(DRAUPNIR_TRIES="1"), 0, "sindri-agent 1.4.3 is installed")
    expect(bench.run(WGETRC=path, DRAUPNIR_TRIES="1"), 0, "installed already")


def next_step_is_shown(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0, "next: set SINDRI_CONSOLE_URL and SINDRI_CONSOLE_API_KEY", "sindri-agent doctor")


def neither_curl_nor_wget_is_an_error(bench):
    bench.revoke("curl")
    expect(bench.run(), 72, "curl or wget")
    untouched(bench)


def no_program_for_checksums_is_an_error(bench):
    bench.server.release("1.4.3")
    bench.revoke("sha256sum")
    expect(bench.run(), 72, "checksum")
    untouched(bench)


def openssl_can_check_too(bench):
    bench.revoke("sha256sum")
    bench.grant("openssl")
    bench.server.release("1.4.3")
    expect(bench.run(), 0)


def shasum_can_check_too(bench):
    bench.revoke("sha256sum")
    bench.grant("shasum", "perl")
    bench.server.release("1.4.3")
    expect(bench.run(), 0)


def every_system_and_machine_has_its_file(bench):
    bench.server.release("1.4.3")
    for system, machine, name in (
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Darwin", "x86_64", "darwin-amd64"),
        ("Darwin", "arm64", "darwin-arm64"),
        ("FreeBSD", "amd64", None),
        ("Linux", "riscv64", None),
    ):
        bench.fake("uname", f"case ${{1:-}} in -m) echo {machine} ;; *) echo {system} ;; esac")
        bench.server.requests.clear()
        outcome = bench.run(INSTALL_DIR=os.path.join(bench.root, "elsewhere", f"{system}-{machine}"))
        if name:
            expect(outcome, 0)
            assert f"/releases/download/v1.4.3/sindri-agent-{name}" in bench.server.requests, bench.server.requests
        else:
            expect(outcome, 71, "no release for")
            assert bench.server.requests == []


def latest_release_is_found_by_a_chain_of_redirects(bench):
    bench.server.release("1.4.3")
    bench.server.moved["/renamed"] = bench.server.moved["/releases/latest"]
    bench.server.moved["/releases/latest"] = bench.server.url + "/renamed"
    expect(bench.run(), 0, "1.4.3")


def latest_release_is_found_without_the_page_it_leads_to(bench):
    bench.server.release("1.4.3")
    del bench.server.files["/releases/tag/v1.4.3"]
    expect(bench.run(), 0, "1.4.3")


def latest_release_is_asked_of_the_api_when_no_redirect_tells(bench):
    bench.server.release("1.4.3")
    bench.server.moved.clear()
    for answer in (
        b'{"url":"x","tag_name":"v1.4.3","name":"1.4.3"}',
        b'{\n  "tag_name": "v1.4.3",\n  "name": "1.4.3"\n}\n',
    ):
        bench.server.files["/api/releases/latest"] = answer
        expect(bench.run(DRAUPNIR_API_URL=bench.server.url + "/api"), 0, "1.4.3")


def latest_release_that_nobody_tells_is_an_error(bench):
    bench.server.files["/api/releases/latest"] = b'{"message":"API rate limit exceeded"}'
    expect(bench.run(DRAUPNIR_API_URL=bench.server.url + "/api"), 69, "latest release", "DRAUPNIR_VERSION")
    untouched(bench)


def version_that_is_none_is_refused(bench):
    for version in ("latest", "1.4", "1.4.3/../../x", "1.4.3;id", "$(id).2.3"):
        expect(bench.run(DRAUPNIR_VERSION=version), 64, "not a version")
    assert bench.server.requests == []


def program_that_does_not_run_is_not_installed(bench):
    bench.server.release("1.4.2")
    expect(bench.run(), 0)
    for broken in (b"\x7fELF but of another machine", b"#!/bin/sh\nexit 1\n", b"#!/bin/sh\necho 9.9.9\n"):
        bench.server.release("1.4.3", broken)
        expect(bench.run(), 70, "does not print its version", "what was installed stays")
        untouched(bench, agent("1.4.2"))


def program_that_fails_in_its_place_is_rolled_back(bench):
    """It runs where it was downloaded to, and not under its own name: the version before it comes back."""
    fails_in_place = agent("1.4.3", extra='case $0 in */sindri-agent) exit 1 ;; esac')
    bench.server.release("1.4.3", fails_in_place)
    expect(bench.run(), 70, "it is removed")
    untouched(bench)
    bench.server.release("1.4.2")
    expect(bench.run(), 0)
    bench.server.release("1.4.3", fails_in_place)
    expect(bench.run(), 70, "the version before it is back")
    untouched(bench, agent("1.4.2"))
    assert bench.mode(os.path.join(bench.bin, "sindri-agent")) == 0o755


def directory_that_cannot_be_written_is_an_error(bench):
    bench.server.release("1.4.3")
    with open(os.path.join(bench.home, ".local"), "w", encoding="utf-8") as file:
        file.write("in the way")
    expect(bench.run(), 73, "cannot")


def home_that_is_not_set_is_an_error(bench):
    expect(bench.run(HOME=None), 64, "HOME")
    bench.server.release("1.4.3")
    expect(bench.run(HOME=None, INSTALL_DIR=bench.bin), 0)


def wrong_usage_is_refused(bench):
    expect(bench.run("--force"), 64, "--uninstall")
    expect(bench.run("1.4.3", "1.4.4"), 64)
    expect(bench.run(DRAUPNIR_TRIES="many"), 64, "DRAUPNIR_TRIES")
    expect(bench.run(DRAUPNIR_SERVICE="openrc"), 64, "DRAUPNIR_SERVICE")
    expect(bench.run("--help"), 0, "Exit status", "DRAUPNIR_BASE_URL")
    untouched(bench)


def interrupted_run_leaves_nothing_behind(bench):
    bench.server.release("1.4.3")
    bench.server.faults[FILE] = [stalled]
    process = bench.start()
    bench.wait_for_request(FILE)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143, f"{process.returncode}: {output}"
    untouched(bench)


def uninstall_removes_both_versions(bench):
    bench.server.release("1.4.2")
    expect(bench.run(), 0)
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    expect(bench.run("--uninstall"), 0, "removed")
    assert os.listdir(bench.bin) == []
    expect(bench.run("--uninstall"), 0, "not installed")


def truncated_script_does_nothing(bench):
    """What `curl … | sh` runs when the link breaks: any beginning of the script."""
    with open(SCRIPT, "rb") as file:
        script = file.read()
    bench.server.release("1.4.3")
    for share in (0.3, 0.6, 0.9, 0.999):
        path = os.path.join(bench.tools, "cut")
        with open(path, "wb") as file:
            file.write(script[: int(len(script) * share)])
        bench.run(script=path)
        os.remove(path)
        assert bench.server.requests == []
        untouched(bench)
