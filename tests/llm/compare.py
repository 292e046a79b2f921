"""Compares what official SDKs get through the agent with what they get directly, and the tokens that it reports with
those that the provider named. Started by tests/llm/run.

Its last line is `N passed, N failed`, alone.
"""

import asyncio
import collections
import json
import os
import socket
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "scripts"))
from loopback import KEY, Console, certificate  # noqa: E402
from provider import Provider  # noqa: E402

DRAIN_SECONDS = 6
PATIENCE_SECONDS = 120
# How many answers the programs print together, at least: fewer were not asked for.
ANSWERS_MIN = 24


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def answers(bases, authority):
    """What both programs print, by its name."""
    place = os.path.join(TOP, "target", "llm")
    trust = {"SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority}
    environment = {"PATH": os.environ["PATH"], "HOME": place, **trust, **bases}
    found = {}
    here = os.path.dirname(os.path.abspath(__file__))
    for command in ([sys.executable, os.path.join(here, "ask.py")], ["node", os.path.join(place, "ask.mjs")]):
        pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=place, **pipes)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
        if process.returncode:
            raise AssertionError(f"{command} ended with {process.returncode}:\n{out.decode()}\n{err.decode()}")
        found |= dict(json.loads(line) for line in out.decode().splitlines())
    return found


class Run:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, is_so, detail=""):
        self.passed += is_so
        self.failed += not is_so
        print(f"{'ok  ' if is_so else 'FAIL'} {what}{'' if is_so else ': ' + detail}", flush=True)

    async def all(self, program, folder):
        paths = certificate(folder, ["IP:127.0.0.1", "DNS:localhost"])
        console, provider, port = Console(), Provider(), free_port()
        await console.start()
        await provider.start(paths)
        origin = f"https://localhost:{provider.port}"
        direct = {"ANTHROPIC_BASE_URL": origin, "OPENAI_BASE_URL": f"{origin}/v1", "GOOGLE_API_BASE_URL": origin}
        through = {name: f"http://localhost:{port}/v1/{name.split('_')[0].lower()}" for name in direct}
        environment = {
            "HOME": folder,
            "PATH": "/usr/bin:/bin",
            "SINDRI_CONSOLE_URL": f"http://127.0.0.1:{console.port}",
            "SINDRI_CONSOLE_API_KEY": KEY,
            "SINDRI_INSTANCE_ID": "llm-sdks",
            "SINDRI_AGENT_CA_FILE": paths[0],
            "SINDRI_LLM_REPORT_INTERVAL": "0.05",
            **{f"SINDRI_LLM_UPSTREAM_{name.split('_')[0]}": origin for name in direct},
            **through,
        }
        log = os.path.join(folder, "log")
        with open(log, "wb") as file:
            started = asyncio.create_subprocess_exec(os.path.abspath(program), env=environment, cwd=folder, stderr=file)
            agent = await started
        try:
            await console.frame("heartbeat")
            theirs = await answers(direct, paths[0])
            provider.named.clear()
            ours = await answers(through, paths[0])
            named = collections.Counter(map(tuple, provider.named))
            self.check("as many answers as were asked for", len(theirs) >= ANSWERS_MIN, str(len(theirs)))
            for what, answer in theirs.items():
                self.check(f"{what}: as direct", ours.get(what) == answer, f"{ours.get(what)} instead of {answer}")

            def counted():
                records = [record for batch in console.payloads("llm_usage:batch") for record in batch["records"]]
                return len(records) >= named.total() and records

            records = await console.wait("records of all answers", counted)
            names = ("provider", "model", "inputTokens", "outputTokens", "cacheReadTokens")
            reported = collections.Counter(tuple(record.get(name) for name in names) for record in records)
            self.check(f"{named.total()} answers with usage, all counted as named", reported == named, f"{reported} is not {named}")
        finally:
            agent.terminate()
            status = await asyncio.wait_for(agent.wait(), DRAIN_SECONDS)
            await console.stop()
            await provider.stop()
        with open(log, encoding="utf-8") as file:
            text = file.read()
        self.check("the agent drains", status == 0, text)
        self.check("no key of a tool in its log", "sk-of-the-tool" not in text)


def main():
    run = Run()
    with tempfile.TemporaryDirectory(prefix="draupnir-llm-") as folder:
        try:
            asyncio.run(run.all(sys.argv[1], folder))
        except AssertionError as error:
            run.check("it runs to its end", False, str(error))
    print(f"{run.passed} passed, {run.failed} failed", flush=True)
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
