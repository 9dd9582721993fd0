"""The real parts, from the Go module proxy and Debian. Each is built once; what is there is kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

from shell import BIN, BUILT, HERE, ROOT, sh

VERSION = "1.34.4"
COREDNS = "v1.14.7"
#: Administrators' policies: their kinds, and the conformance suite of whoever enforces them, which asks for an agnhost of its own.
ADMINISTRATORS, ADMINISTRATORS_AGNHOST = "sigs.k8s.io/network-policy-api@v0.3.0", "2.45"
CYCLONUS = "github.com/mattfenwick/cyclonus/cmd/cyclonus@v0.5.6"
CYCLONUS_AGNHOST = "2.43"  # the tag it asks for
#: The network that nodes are moved from. Its plugin's own module is not to be had of the proxy; until 0.9.1 it was one of the reference's.
FLANNEL = "github.com/flannel-io/flannel@v0.28.4"
FLANNEL_PLUGIN = "github.com/containernetworking/plugins/plugins/meta/flannel@v0.9.1"
IPPROTO_SCTP = 132
PARTS = ("kubelet", "kubectl", "kube-proxy", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
DEBIAN = ("etcd-server", "busybox-static", "netcat-openbsd", "libbsd0", "libmd0")  # busybox's nc has no UDP
ENVIRONMENT = os.environ | {
    "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw -buildvcs=false", "GOTOOLCHAIN": "local", "GOPATH": str(ROOT / ".cache/go"),
}  # fmt: skip
LEAN = ("-p", "2", "-gcflags=all=-dwarf=false")  # no debugging information: a third of the memory, half the size


def build(*names: str) -> None:
    """Of kube, agnhost, coredns, e2e, flannel, administrators, cyclonus those that are named, or all but the last two; Debian's parts always."""
    BIN.mkdir(parents=True, exist_ok=True)
    debian()
    for name in names or ("kube", "coredns", "agnhost", "e2e", "flannel"):
        if (BIN / NAMES.get(name, name)).exists():
            continue
        begun = time.monotonic()
        BUILDERS[name]()
        size = (BIN / NAMES.get(name, name)).stat().st_size >> 20
        print(f"{name}: {time.monotonic() - begun:.0f} s, {size} MiB", flush=True)


def debian() -> None:
    """Unpacked, not installed: busybox-static would replace the machine's busybox, etcd-server would start."""
    if (BUILT / "debian").exists():
        return
    folder = BUILT / "deb"
    folder.mkdir(exist_ok=True)
    sh("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *DEBIAN, cwd=folder)
    for package in folder.glob("*.deb"):
        sh("dpkg-deb", "--extract", package, BUILT / "debian")
    shutil.rmtree(folder)
    for path in (BUILT / "debian/usr/bin").glob("etcd*"):
        (BIN / path.name).unlink(missing_ok=True)
        (BIN / path.name).symlink_to(path)


def module() -> Path:
    """A module that may build what k8s.io/kubernetes has: its own go.mod replaces its parts by folders, ours by their releases."""
    folder = BUILT / "src/kube"
    if not (folder / "go.sum").exists():
        folder.mkdir(parents=True, exist_ok=True)
        said = sh("go", "mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}", cwd=folder, env=ENVIRONMENT).stdout
        theirs = Path(re.search(r'"GoMod": "(.*)"', said)[1]).read_text()  # type: ignore[index]
        parts = re.findall(r"(k8s\.io/[a-z-]+) => \./staging", theirs)
        release = "v0." + VERSION.split(".", 1)[1]
        replaced = "\n".join(f"\t{part} => {part} {release}" for part in parts)
        (folder / "go.mod").write_text(
            f"module kube-rig.test\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v{VERSION}\n\nreplace (\n{replaced}\n)\n"
        )
        shutil.copytree(HERE / "go/kube", folder / "kube")
        shutil.copytree(HERE / "go/e2e", folder / "e2e")
        (folder / "tools.go").write_text(TOOLS)
        sh("go", "mod", "tidy", cwd=folder, env=ENVIRONMENT)
    return folder


TOOLS = """//go:build tools

package tools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
"""


def _labels() -> str:
    major, minor, _ = VERSION.split(".")
    base = "-X k8s.io/component-base/version.git"
    return f"-s -w {base}Version=v{VERSION} {base}Major={major} {base}Minor={minor}"


def kube() -> None:
    sh("go", "build", *LEAN, f"-ldflags={_labels()}", "-o", BIN / "kube", "./kube", cwd=module(), env=ENVIRONMENT)
    for part in PARTS:
        (BIN / part).unlink(missing_ok=True)
        (BIN / part).symlink_to("kube")


def e2e() -> None:
    """The network part of Kubernetes' end-to-end tests, and what runs them in parallel."""
    runner = "github.com/onsi/ginkgo/v2/ginkgo"
    sh("go", "build", *LEAN, "-ldflags=-s -w", "-o", BIN / "ginkgo", runner, cwd=module(), env=ENVIRONMENT)
    sh(
        "go",
        "test",
        "-c",
        *LEAN,
        f"-ldflags={_labels()}",
        "-o",
        BIN / "e2e.test",
        "./e2e",
        cwd=module(),
        env=ENVIRONMENT,
    )


def agnhost() -> None:
    package = "k8s.io/kubernetes/test/images/agnhost"
    sh("go", "build", *LEAN, "-ldflags=-s -w", "-o", BIN / "agnhost", package, cwd=module(), env=ENVIRONMENT)
    where = Path(
        sh("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes", cwd=module(), env=ENVIRONMENT).stdout.strip()
    )
    asked = re.search(r'Agnhost\] = .*"agnhost", "([\d.]+)"', (where / "test/utils/image/manifest.go").read_text())
    (BUILT / "agnhost.version").write_text(asked[1] if asked else "")
    (BUILT / "agnhost").mkdir(exist_ok=True)
    for file in (where / "test/images/agnhost/porter").glob("localhost.*"):
        shutil.copy(file, BUILT / "agnhost")


def coredns() -> None:
    folder = BUILT / "src/coredns"
    if not (folder / "go.sum").exists():
        shutil.copytree(HERE / "go/coredns", folder, dirs_exist_ok=True)
        (folder / "go.mod").write_text(
            f"module dns-rig.test\n\ngo 1.24.0\n\nrequire github.com/coredns/coredns {COREDNS}\n"
        )
        sh("go", "mod", "tidy", cwd=folder, env=ENVIRONMENT)
    sh("go", "build", *LEAN, "-ldflags=-s -w", "-o", BIN / "coredns", ".", cwd=folder, env=ENVIRONMENT)


def administrators() -> None:
    """Their conformance suite without what SCTP sockets are needed for: no pod would be ready where the kernel has none."""
    folder = BUILT / "src/administrators"
    if not folder.exists():
        BUILT.joinpath("src").mkdir(parents=True, exist_ok=True)
        shutil.copytree(_downloaded(ADMINISTRATORS), folder)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError as error:
        _without_sctp(folder / "conformance", str(error))
    sh(
        "go",
        "test",
        "-c",
        *LEAN,
        "-ldflags=-s -w",
        "-o",
        BIN / "conformance.test",
        "./conformance",
        cwd=folder,
        env=ENVIRONMENT,
    )


def _without_sctp(suite: Path, why: str) -> None:
    manifests, probes = suite / "base/manifests.yaml", suite / "utils/kubernetes/helper.go"
    container = r"(?m)^        - name: .*\n(?:          .*\n?)+"
    kept = re.sub(container, lambda found: "" if "SERVE_SCTP" in found[0] else found[0], manifests.read_text())
    manifests.write_text(kept)
    beginning = r"(?m)^(func PokeServer\(.*\{\n)(?!\tif protocol)"
    unasked = (
        f'\tif protocol == "sctp" {{\n\t\tt.Logf("not asked, for SCTP: %s", {json.dumps(why)})\n\t\treturn\n\t}}\n'
    )
    probes.write_text(re.sub(beginning, lambda found: found[1] + unasked, probes.read_text()))


def cyclonus() -> None:
    sh("go", "install", "-ldflags=-s -w", CYCLONUS, env=ENVIRONMENT | {"GOBIN": str(BIN)})


def flannel() -> None:
    """Its daemon, its plugin, and the manifest it is installed by. Two of its backends are left out: a cloud's whose module is not to be
    had either, and one that is written in C.
    """
    folder = BUILT / "src/flannel"
    if not folder.exists():
        shutil.copytree(_downloaded(FLANNEL), folder)
    main = folder / "main.go"
    kept = [line for line in main.read_text().splitlines() if not line.endswith(('/tencentvpc"', '/udp"'))]
    main.write_text("\n".join(kept))
    version = FLANNEL.partition("@")[2]
    labels = f"-ldflags=-s -w -X github.com/flannel-io/flannel/pkg/version.Version={version}"
    sh("go", "build", "-mod=mod", *LEAN, labels, "-o", BIN / "flanneld", ".", cwd=folder, env=ENVIRONMENT)
    sh("go", "install", *LEAN, "-ldflags=-s -w", FLANNEL_PLUGIN, env=ENVIRONMENT | {"GOBIN": str(BIN)})


def _downloaded(module: str) -> str:
    """The folder of a module's release."""
    said = sh("go", "mod", "download", "-json", module, cwd=BUILT, env=ENVIRONMENT).stdout
    return str(json.loads(said)["Dir"])


FLANNEL_MANIFEST = BUILT / "src/flannel/Documentation/kube-flannel.yml"
NAMES = {"e2e": "e2e.test", "administrators": "conformance.test", "flannel": "flanneld"}
BUILDERS = {item.__name__: item for item in (kube, agnhost, coredns, e2e, flannel, administrators, cyclonus)}
