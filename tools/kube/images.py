"""Container images from files of this machine, as tars that `ctr images import` takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import build
from node import PAUSE
from shell import BIN, BUILT, HOME, ROOT, sh

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost"
SHELL, NAMES, ENVOY, SUITE = (
    "rig.local/shell:1",
    "rig.local/coredns:1",
    "rig.local/envoy:1",
    "docker.io/library/agent-cni:0.1.0",
)
FOLDER = HOME / "images"
PROXY = ROOT / ".cache/dev/envoy/_bin/envoy"  # of the Python Package Index, as the tests have it
BUSYBOX = BUILT / "debian/bin/busybox"


Files = Mapping[str, Path | bytes | str]


def tar(name: str, image: str, files: Files, entry: list[str], folder: Path | None = None) -> Path:
    """One layer of `folder` and `files` (path: file, content, or the target of a link), as an OCI layout; made once."""
    target = FOLDER / f"{name}.tar"
    target.parent.mkdir(parents=True, exist_ok=True)
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as archive:
        if folder:
            archive.add(folder, arcname=".")
        for path in ("tmp", "proc", "sys", "dev", "etc", "run"):
            archive.addfile(_info(path, tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755))
        for path, content in files.items():
            _add(archive, path, content)
    digest = _digest(layer.read_bytes())
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]},
              "config": {"Entrypoint": entry[:1], "Cmd": entry[1:], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}}  # fmt: skip
    blobs: dict[str, bytes] = {digest: layer.read_bytes()}
    layer.unlink()
    vnd = "application/vnd.oci.image"
    manifest = {"schemaVersion": 2, "mediaType": f"{vnd}.manifest.v1+json", "config": _blob(blobs, config, f"{vnd}.config.v1+json"),
                "layers": [{"mediaType": f"{vnd}.layer.v1.tar", "digest": digest, "size": len(blobs[digest])}]}  # fmt: skip
    main = _blob(blobs, manifest, f"{vnd}.manifest.v1+json") | {"annotations": {"io.containerd.image.name": image}}
    with tarfile.open(target.with_suffix(".new"), "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [main]}).encode())
        for key, content in blobs.items():
            _add(archive, f"blobs/sha256/{key.split(':')[1]}", content)
    target.with_suffix(".new").rename(target)
    return target


def every() -> list[Path]:
    """All that the parts which are built allow for."""
    made = [*shell(), suite(), *(envoy() if PROXY.exists() else [])]
    made += coredns() if (BIN / "coredns").exists() else []
    made += flannel() if (BIN / "flanneld").exists() else []
    return made + (
        agnhost((BUILT / "agnhost.version").read_text(), build.CYCLONUS_AGNHOST, build.ADMINISTRATORS_AGNHOST)
        if (BIN / "agnhost").exists()
        else []
    )


def made() -> list[Path]:
    return sorted(FOLDER.glob("*.tar"))


def shell() -> list[Path]:
    """The pause image and one with busybox's applets (httpd, nc, nslookup, sh) and curl; Debian's static wget cannot ask for a name."""
    applets = _applets()
    return [
        tar("pause", PAUSE, applets, ["/bin/sleep", "2147483647"]),
        tar("shell", SHELL, applets | _program("/usr/bin/curl"), []),
    ]


def envoy() -> list[Path]:
    """A proxy, and busybox to ask for it."""
    return [tar("envoy", ENVOY, _applets() | _program(str(PROXY)) | {"envoy": str(PROXY)}, ["/envoy"])]


def coredns() -> list[Path]:
    return [tar("coredns", NAMES, {"coredns": BIN / "coredns"}, ["/coredns"])]


def flannel() -> list[Path]:
    """The two that its manifest asks for: what installs its plugin, and its daemon, which changes rules by iptables."""
    plugin, daemon = sorted({*re.findall(r"image: (\S+)", build.FLANNEL_MANIFEST.read_text())}, key=len, reverse=True)
    iptables = _program("/usr/sbin/xtables-nft-multi") | {
        str(file).lstrip("/"): file for file in Path("/usr/lib/x86_64-linux-gnu/xtables").glob("*.so")
    }
    for name in (f"{kind}{what}" for kind in ("iptables", "ip6tables") for what in ("", "-save", "-restore")):
        iptables[f"usr/sbin/{name}"] = "/usr/sbin/xtables-nft-multi"
    programs = {"flannel": BIN / "flannel"}
    daemons = {"opt/bin/flanneld": BIN / "flanneld"}
    return [
        tar("flannel-plugin", plugin, _applets() | programs, ["/bin/sh"]),
        tar("flannel", daemon, _applets() | iptables | daemons, ["/opt/bin/flanneld"]),
    ]


def agnhost(*versions: str) -> list[Path]:
    """What Kubernetes' own tests run in their pods, with the tools they call there."""
    nc = {"usr/bin/nc": BUILT / "debian/bin/nc.openbsd"}
    for library in ("libbsd.so.0", "libmd.so.0"):
        nc[f"lib/x86_64-linux-gnu/{library}"] = (BUILT / f"debian/usr/lib/x86_64-linux-gnu/{library}").resolve()
    nc["lib/x86_64-linux-gnu/libresolv.so.2"] = Path("/lib/x86_64-linux-gnu/libresolv.so.2").resolve()
    shell = _program("/bin/dash") | {
        "bin/sh": "/bin/dash",
        "bin/bash": "/bin/dash",
    }  # busybox's own shell would take busybox's own nc
    files = (
        _applets()
        | nc
        | shell
        | {
            "agnhost": BIN / "agnhost",
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        }
    )
    files |= _program("/usr/bin/wget")  # busybox's crashes
    files |= _program("/usr/bin/curl") | {item.name: item for item in (BUILT / "agnhost").glob("localhost.*")}
    made = [tar(f"agnhost-{version}", f"{AGNHOST}:{version}", files, ["/agnhost", "pause"]) for version in versions]
    return [*made, tar("pause-k8s", "registry.k8s.io/pause:3.10.1", _applets(), ["/bin/sleep", "2147483647"])]


def suite(name: str = "suite", image: str = SUITE, fill: Callable[[Path], None] | None = None) -> Path:
    """What deploy/Containerfile says, from a minimal Debian root with Python and this checkout's own wheels; of its sources, or those that
    `fill` puts into a folder.
    """
    root, source = HOME / "suite", HOME / "stage-source"
    for folder in (root, source):
        sh("rm", "-rf", folder)
        folder.mkdir(parents=True)
    sh("cp", "-a", f"{ROOT}/.cache/image/root/.", root)
    (fill or copy_source)(source)  # a build writes into it
    script = f"""set -e
    mount --bind /proc {root}/proc
    /usr/bin/python3 -m venv --without-pip {root}/opt/installer
    {ROOT}/.cache/pip/bin/pip --quiet --disable-pip-version-check --python {root}/opt/installer/bin/python3 install --no-index \\
        --find-links {ROOT}/.cache/wheels -c {source}/constraints.txt {source}
    """
    sh("unshare", "--mount", "--propagation", "private", "bash", "-c", script)
    for text in (root / "opt/installer/bin").iterdir():
        if text.is_file() and not text.is_symlink() and text.read_bytes()[:2] == b"#!":
            text.write_bytes(text.read_bytes().replace(str(root).encode(), b""))
    inside = (
        "mount --bind /proc $0/proc && exec chroot $0 /opt/installer/bin/agent-cni install --python /usr/bin/python3"
    )
    sh("unshare", "--mount", "--propagation", "private", "sh", "-ec", inside, root)
    sh("rm", "-rf", root / "opt/installer", root / "opt/cni")
    own = ("chroot", "ls", "cat", "sh")  # debian:12-slim has its own
    coreutils = {f"usr/bin/{name}": "/bin/busybox" for name in own}
    made = tar(name, image, coreutils, ["/opt/agent-cni/bin/agent-cni"], folder=root)
    sh("rm", "-rf", root, source)
    return made


def copy_source(target: Path) -> None:
    listed = sh("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    there = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    sh("cp", "--parents", "--no-dereference", "--preserve=mode", "--target-directory", target, *there, cwd=ROOT)


def of_commit(commit: str) -> Callable[[Path], None]:
    """Fill a folder with the sources of a commit of this repository."""

    def fill(target: Path) -> None:
        file = target / "sources.tar"
        sh("git", "-C", ROOT, "archive", "--output", file, commit)
        sh("tar", "--extract", "--file", file, "--directory", target)
        file.unlink()

    return fill


def _applets() -> dict[str, Path | bytes | str]:
    names = sh(BUSYBOX, "--list").stdout.split()
    return {"bin/busybox": BUSYBOX} | {f"bin/{name}": "/bin/busybox" for name in names if name != "busybox"}


def _program(path: str) -> dict[str, Path | bytes | str]:
    """A program of this machine with the libraries it is linked to."""
    lines = sh("ldd", path).stdout.split("\n")
    found = [word for line in lines for word in line.split() if word.startswith("/")]
    return {item.lstrip("/"): Path(item) for item in (path, *found)}


def _add(archive: tarfile.TarFile, path: str, content: Path | bytes | str) -> None:
    if isinstance(content, str):
        link = _info(path, tarfile.SYMTYPE, 0o777)
        link.linkname = content
        archive.addfile(link)
        return
    data = content.read_bytes() if isinstance(content, Path) else content
    info = _info(path, tarfile.REGTYPE, 0o755 if isinstance(content, Path) and os.access(content, os.X_OK) else 0o644)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _info(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = kind, mode
    return info


def _blob(blobs: dict[str, bytes], thing: Any, kind: str) -> dict[str, Any]:
    data = json.dumps(thing).encode()
    blobs[_digest(data)] = data
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
