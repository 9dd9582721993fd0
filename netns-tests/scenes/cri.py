"""containerd as a kubelet uses it: a daemon of the test's own on a host, spoken to through its CRI socket."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import grpc
from lab import BIN_DIR, PATIENCE, REFERENCE_DIR, ROOT, Host, Namespace, eventually, sh

CRICTL = ROOT / ".cache/bin/crictl"
BUSYBOX = ROOT / ".cache/busybox/bin/busybox"
IMAGE = "docker.io/agent-cni/pause:1"
#: Debian's containerd knows the specification up to 1.0.0, and newer ones take the newest they know.
VERSIONS = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]}
PROTOS, SERVICES = grpc.protos_and_services("cri.proto")

#: What root without CAP_SYS_RESOURCE, without AppArmor and on cgroup v1 needs; everything of it is under one folder.
CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/bin"
    conf_dir = "{folder}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


@dataclass
class Sandbox(Namespace):
    """A pod's sandbox; `pid` is its pause process, `ips` what the CRI says of it."""

    id: str = ""
    pid: int = 0
    ips: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/ns/net"


class Containerd:
    """A containerd on a host, with one conflist, or without plugins none. Use it with `with`: it leaves no sandbox, process or cgroup."""

    def __init__(self, host: Host, folder: Path, *plugins: dict[str, Any]) -> None:
        self.host, self.folder, self.plugins = host, folder, plugins
        self.cgroup = f"agent-cni-{host.name}"

    def __enter__(self) -> Self:
        self._furnish()
        command = [*self.host.prefix(), "containerd", "--config", str(self.folder / "config.toml")]
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert eventually((self.folder / "sock").exists), self.said()
        sh(
            "ctr",
            "--address",
            self.folder / "sock",
            "--namespace",
            "k8s.io",
            "images",
            "import",
            self.folder / "image.tar",
        )
        return self

    def __exit__(self, *_: object) -> None:
        for sandbox in self.sandboxes():
            with suppress(grpc.RpcError):
                self.stop(sandbox)
                self.remove(sandbox)
        self._channel.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
        for left in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"):
            for folder, _, _ in os.walk(left, topdown=False):
                Path(folder).rmdir()

    def said(self) -> str:
        """The daemon's own words."""
        return (self.folder / "log").read_text()

    def is_ready(self) -> bool:
        """Whether it says that pods get a network (NetworkReady)."""
        status = self._runtime.Status(PROTOS.StatusRequest()).status
        return {item.type: item.status for item in status.conditions}["NetworkReady"]

    def run(self, name: str, ports: tuple[tuple[int, int], ...] = (), **annotations: str) -> Sandbox:
        """Run a pod's sandbox; `ports` are (host port, container port)."""
        config = PROTOS.PodSandboxConfig(
            metadata=PROTOS.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="shop"),
            hostname=name,
            log_directory=str(self.folder / "pods"),
            port_mappings=[PROTOS.PortMapping(host_port=here, container_port=there) for here, there in ports],
            annotations=annotations,
            linux=PROTOS.LinuxPodSandboxConfig(cgroup_parent=f"/{self.cgroup}"),
        )
        made = self._runtime.RunPodSandbox(PROTOS.RunPodSandboxRequest(config=config)).pod_sandbox_id
        return self.seen(name, made)

    def stop(self, sandbox: str) -> None:
        """Stop a sandbox; one that is stopped is stopped."""
        self._runtime.StopPodSandbox(PROTOS.PodSandboxRequest(pod_sandbox_id=sandbox))

    def remove(self, sandbox: str) -> None:
        """Remove a sandbox; one that is gone is removed."""
        self._runtime.RemovePodSandbox(PROTOS.PodSandboxRequest(pod_sandbox_id=sandbox))

    def crictl(self, *words: object) -> str:
        """What an operator's crictl prints; by itself it gives up after 2 s, which a busy machine needs for one pod."""
        return sh(
            CRICTL, "--timeout", f"{PATIENCE}s", "--runtime-endpoint", f"unix://{self.folder}/sock", *words
        ).stdout.strip()

    def sandboxes(self) -> dict[str, str]:
        """The sandboxes there are, stopped ones too: id and pod name."""
        found = self._runtime.ListPodSandbox(PROTOS.Nothing()).items
        return {item.id: item.metadata.name for item in found}

    def seen(self, name: str, sandbox: str) -> Sandbox:
        answer = self._runtime.PodSandboxStatus(PROTOS.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True))
        network = answer.status.network
        pid = json.loads(answer.info["info"])["pid"]
        return Sandbox(name, sandbox, pid, (network.ip, *(item.ip for item in network.additional_ips)))

    @cached_property
    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix://{self.folder}/sock")

    @cached_property
    def _runtime(self) -> Any:
        return SERVICES.RuntimeServiceStub(self._channel)

    def _furnish(self) -> None:
        for name in ("bin", "net.d", "pods", "opt"):
            (self.folder / name).mkdir()
        for program in (
            *BIN_DIR.iterdir(),
            *(REFERENCE_DIR / name for name in ("loopback", "bridge", "host-local", "portmap")),
        ):
            (self.folder / "bin" / program.name).symlink_to(program)
        if self.plugins:
            conflist = VERSIONS | {"name": "pods", "plugins": list(self.plugins)}
            (self.folder / "net.d/10-pods.conflist").write_text(json.dumps(conflist))
        (self.folder / "config.toml").write_text(CONFIG.format(folder=self.folder, image=IMAGE))
        _image(self.folder / "image.tar")


def _image(file: Path) -> None:
    """An image that does nothing for a long time, as `docker save` would write it."""
    layer = _tar(("bin/busybox", BUSYBOX.read_bytes(), 0o755))
    layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    command = {"Entrypoint": ["/bin/busybox", "sleep", "1000000"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": command, "rootfs": layers}).encode()
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    parts = (
        ("config.json", config, 0o644),
        ("layer.tar", layer, 0o644),
        ("manifest.json", json.dumps(manifest).encode(), 0o644),
    )
    file.write_bytes(_tar(*parts))


def _tar(*files: tuple[str, bytes, int]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data, mode in files:
            item = tarfile.TarInfo(name)
            item.size, item.mode = len(data), mode
            archive.addfile(item, io.BytesIO(data))
    return made.getvalue()
