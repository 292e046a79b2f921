"""The manifests for Kubernetes: valid, known to the agent, and as restricted as they say."""

import copy
import glob
import os
import re
import subprocess
import sys
import unittest

import yaml
from build import TOP, VERSION, read

FOLDER = "extension/kubernetes"
IMAGE = f"ghcr.io/pacphi/draupnir:{VERSION}"

# Kinds of volumes that the restricted standard allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def manifests():
    return {path: yaml.safe_load(read(path)) for path in sorted(glob.glob(f"{FOLDER}/*.yaml", root_dir=TOP))}


def pod_spec(manifest):
    return manifest["spec"]["template"]["spec"] if manifest["kind"] == "DaemonSet" else manifest["spec"]


def containers(spec):
    return [one for kind in ("containers", "initContainers", "ephemeralContainers") for one in spec.get(kind, [])]


def violations(spec):
    """What the restricted Pod Security Standard does not allow, by its rules of version 1.37, for Linux."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    pod = spec.get("securityContext", {})
    for volume in spec.get("volumes", []):
        if not (set(volume) - {"name"}) <= VOLUMES:
            yield f"volume {volume['name']}"
    if pod.get("sysctls"):
        yield "sysctls"
    for container in containers(spec):
        name, own = container["name"], container.get("securityContext", {})
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield f"{name}: runAsUser"
        profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
        if own.get("procMount", "Default") != "Default":
            yield f"{name}: procMount"
        for kind in ("seLinuxOptions", "appArmorProfile", "windowsOptions"):
            if kind in own or kind in pod:
                yield f"{name}: {kind}"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"


class Kubernetes(unittest.TestCase):
    def agent(self, manifest):
        return next(one for one in containers(pod_spec(manifest)) if one["name"] == "draupnir")

    def test_manifests_are_valid(self):
        validator = os.path.join(os.path.dirname(sys.executable), "kubernetes-validate")
        command = [validator, "--strict", *(os.path.join(TOP, path) for path in manifests())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual({manifest["kind"] for manifest in manifests().values()}, {"Pod", "DaemonSet"})
        # The validator finds a field that there is not.
        broken = read(f"{FOLDER}/sidecar.yaml").replace("shareProcessNamespace", "shareProcessesNamespace")
        done = subprocess.run([validator, "--strict", "/dev/stdin"], input=broken, capture_output=True, text=True, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)

    def test_sidecar_keeps_to_the_restricted_standard(self):
        spec = pod_spec(manifests()[f"{FOLDER}/sidecar.yaml"])
        self.assertEqual(list(violations(spec)), [])
        self.assertEqual(len(spec["containers"]), 2)

    def test_daemonset_leaves_it_in_two_points_alone(self):
        spec = pod_spec(manifests()[f"{FOLDER}/daemonset.yaml"])
        self.assertEqual(list(violations(spec)), ["hostNetwork", "hostPID"])

    def test_each_violation_is_found(self):
        good = pod_spec(manifests()[f"{FOLDER}/sidecar.yaml"])
        for place, value, expected in (
            (["hostPID"], True, "hostPID"),
            (["securityContext", "runAsNonRoot"], False, "main: runAsNonRoot"),
            (["securityContext", "seccompProfile"], {"type": "Unconfined"}, "main: seccompProfile"),
            (["containers", 1, "securityContext", "runAsUser"], 0, "draupnir: runAsUser"),
            (["containers", 1, "securityContext", "privileged"], True, "draupnir: privileged"),
            (["containers", 1, "securityContext", "allowPrivilegeEscalation"], True, "draupnir: allowPrivilegeEscalation"),
            (["containers", 1, "securityContext", "capabilities"], {"drop": ["NET_RAW"]}, "draupnir: capabilities"),
            (["containers", 1, "securityContext", "capabilities", "add"], ["SYS_PTRACE"], "draupnir: capabilities"),
            (["containers", 1, "ports"], [{"hostPort": 80}], "draupnir: hostPort"),
            (["volumes", 0], {"name": "v", "hostPath": {"path": "/"}}, "volume v"),
        ):
            spec = copy.deepcopy(good)
            target = spec
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = value
            self.assertIn(expected, list(violations(spec)))

    def test_agent_knows_its_variables_volumes_and_image(self):
        known = re.findall(r"^\| `(SINDRI_\w+)` \|", read("README.md"), re.M)
        for path, manifest in manifests().items():
            agent = self.agent(manifest)
            self.assertEqual(agent["image"], IMAGE, path)
            self.assertEqual([entry["name"] for entry in agent["env"] if entry["name"] not in known], [], path)
            self.assertEqual([entry["value"] for entry in agent["env"] if not isinstance(entry.get("value", ""), str)], [])
            volumes = {volume["name"] for volume in pod_spec(manifest)["volumes"]}
            self.assertLessEqual({mount["name"] for mount in agent["volumeMounts"]}, volumes, path)

    def test_node_agent_has_both_locks_and_no_limit_in_its_metrics(self):
        agent = self.agent(manifests()[f"{FOLDER}/daemonset.yaml"])
        values = {entry["name"]: entry.get("value") for entry in agent["env"]}
        self.assertEqual((values["SINDRI_AGENT_TERMINAL"], values["SINDRI_AGENT_COMMANDS"]), ("off", "off"))
        self.assertNotIn("limits", agent["resources"])

    def test_every_agent_has_a_liveness_probe(self):
        for path, manifest in manifests().items():
            probe = self.agent(manifest)["livenessProbe"]
            self.assertEqual(probe["exec"]["command"], ["/sindri-agent", "health"], path)
            # The command itself gives up after 2 s.
            self.assertGreater(probe["timeoutSeconds"], 2, path)
        check = re.search(r"^HEALTHCHECK .*CMD (.*)$", read("Dockerfile"), re.M)
        self.assertEqual(check[1], '["/sindri-agent", "health"]')

    def test_readiness_of_a_pod_of_others_asks_for_no_console(self):
        self.assertNotIn("readinessProbe", self.agent(manifests()[f"{FOLDER}/sidecar.yaml"]))

    def test_no_probe_depends_on_the_console(self):
        for path, manifest in manifests().items():
            for name in ("livenessProbe", "startupProbe", "readinessProbe"):
                command = self.agent(manifest).get(name, {}).get("exec", {}).get("command", [])
                self.assertNotIn("doctor", command, path)
                if name == "livenessProbe":
                    self.assertNotIn("--ready", command, path)
