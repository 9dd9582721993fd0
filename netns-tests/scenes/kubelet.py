"""A kubelet without an API server, on a host with a containerd: it runs the pods whose manifests are in a folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from cri import Containerd
from lab import PATIENCE, ROOT

KUBELET = ROOT / ".cache/bin/kubelet"
#: What it wants of the kernel. It sees that without changing the machine's own: these lie over the real ones.
SYSCTLS = {
    "vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
}  # fmt: skip


class Kubelet:
    """Use it with `with`. Its pods outlive it, as they do on a node: the containerd removes them."""

    def __init__(self, containerd: Containerd) -> None:
        self.containerd, self.folder = containerd, containerd.folder / "kubelet"
        self._root = Path("/run") / f"kubelet-{containerd.host.name}"  # its sockets' paths must be short

    def __enter__(self) -> Self:
        for name in ("manifests", "logs", "sysctls"):
            (self.folder / name).mkdir(parents=True)
        for controller in Path("/sys/fs/cgroup").glob("*/"):
            (controller / self.containerd.cgroup).mkdir(exist_ok=True)
        (self.folder / "resolv.conf").touch()
        (self.folder / "config.json").write_text(json.dumps(self._config()))
        script = f"{''.join(map(self._covered, SYSCTLS))} exec {KUBELET} --config {self.folder}/config.json \\\n"
        script += f"--root-dir {self._root} --cert-dir {self.folder}/pki --hostname-override node"
        with (self.folder / "log").open("w") as log:
            command = [*self.containerd.host.prefix(), "sh", "-ec", script]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def said(self) -> str:
        """Its own words."""
        return (self.folder / "log").read_text()

    def run(self, name: str, **spec: Any) -> Path:
        """Ask for a pod; it goes when the file does."""
        metadata = {"name": name, "namespace": "shop"}
        file = self.folder / f"manifests/{name}.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        return file

    def pod(self, name: str) -> dict[str, Any]:
        """The status of a pod, as its API says it; empty until there is one."""
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:10255/pods').read().decode())"
        said = self.containerd.host.run("python3", "-c", ask, check=False).stdout
        pods = json.loads(said or "{}").get("items") or []
        return next((pod["status"] for pod in pods if pod["metadata"]["name"] == f"{name}-node"), {})

    def _covered(self, key: str) -> str:
        file = self.folder / "sysctls" / key.replace("/", "_")
        file.write_text(f"{SYSCTLS[key]}\n")
        return f"mount --bind {file} /proc/sys/{key}; "

    def _config(self) -> dict[str, Any]:
        return {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "address": "127.0.0.1", "readOnlyPort": 10255,
            "containerRuntimeEndpoint": f"unix://{self.containerd.folder}/sock",
            "staticPodPath": f"{self.folder}/manifests", "fileCheckFrequency": "1s", "syncFrequency": "1s",
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.containerd.cgroup}", "enforceNodeAllocatable": [],
            "failSwapOn": False, "failCgroupV1": False, "makeIPTablesUtilChains": False, "protectKernelDefaults": True,
            "podLogsDir": f"{self.folder}/logs", "resolvConf": f"{self.folder}/resolv.conf",
            "volumePluginDir": f"{self.folder}/plugins", "localStorageCapacityIsolation": False,
        }  # fmt: skip
