"""Autobahn's cases, by kosoku: its fuzzing server judges a client on the agent's own socket (src/link/tests)."""

import asyncio
import importlib.metadata
import json
import os
import re
import subprocess

import kosoku

from rig import ROOT, Failed, Suite

TEST = "link::tests::conformance::fuzzing_server_gets_every_message_back"

# Seconds: the whole run takes 16 on two cores.
RUN_MAX = 300

# Messages of 4 MiB and more, whole or in fragments; the agent reads 1 MiB (PROTOCOL.md).
LONG = re.compile(r"9\.([12]\.[456]|[34]\.\d)")

NOT_NEGOTIATED = "compression is not negotiated"
TOO_BIG = "over 1 MiB: closed with 1009"


def suites(_is_full):
    """One row."""
    yield "autobahn", judge


def program():
    """The unit tests of the agent, built. The whole workspace, since that is built already in a run of all tests."""
    command = ["cargo", "test", "--workspace", "--lib", "--no-run", "--locked", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return next(
        message["executable"]
        for message in messages
        if message.get("executable") and message["target"]["name"] == "draupnir"
    )


async def run(client):
    """The verdicts on all cases."""
    async with kosoku.run_fuzzingserver(host="127.0.0.1", port=0) as server:
        environment = {**os.environ, "DRAUPNIR_FUZZING_SERVER": f"127.0.0.1:{server.port}"}
        process = await asyncio.create_subprocess_exec(
            client,
            "--ignored",
            "--exact",
            TEST,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), RUN_MAX)
        if process.returncode != 0 or b"1 passed" not in output:
            raise Failed(output.decode())
        try:
            return await asyncio.wait_for(server.get_result(), RUN_MAX)
        except kosoku.FailureError as error:
            return error.results


def judge():
    """Each case passed, or excused for one of two reasons."""
    suite = Suite("autobahn", f"kosoku {importlib.metadata.version('kosoku')}")
    for case in asyncio.run(run(program())):
        section = case.case_id.split(".")[0]
        if case.passed:
            suite.passed.append(case.case_id)
        elif section in ("12", "13") and case.behavior.value == "UNIMPLEMENTED":
            suite.excused[case.case_id] = NOT_NEGOTIATED
        elif LONG.fullmatch(case.case_id) and case.remote_close_code == 1009:
            suite.excused[case.case_id] = TOO_BIG
        else:
            suite.failed[case.case_id] = (
                f"{case.behavior.value}, {case.behavior_close.value}: {case.result}; {case.result_close}"
            )
    return suite
