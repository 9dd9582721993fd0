"""An authority and the certificates it gives, by openssl, in a folder as cert-manager's Secrets are mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
FAKETIME = Path(__file__).parents[2] / ".cache/faketime/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def openssl(*words: object, begun: float = 0) -> str:
    """What it says; it takes its own time to have begun so many seconds ago."""
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"-{begun:.0f}s"} if begun else {}
    command = ["openssl", *map(str, words)]
    done = subprocess.run(command, env=os.environ | clock, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Authority:
    """One, in a folder of its own; `ca` is its certificate."""

    def __init__(self, folder: Path, days: int = 2) -> None:
        folder.mkdir(parents=True)
        self.folder, self.ca, self._key = folder, folder / "ca.pem", folder / "ca-key.pem"
        subject = ("-days", days, "-subj", f"/CN={folder.name}")
        openssl("req", "-x509", *_CURVE, "-keyout", self._key, "-out", self.ca, *subject)

    def give(
        self, name: str, addresses: Sequence[str] = ("127.0.0.1",), *, seconds: float = 86_400
    ) -> tuple[bytes, bytes]:
        """A certificate for addresses that is good for so many seconds of a day, and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        names = ",".join(f"IP:{address}" for address in addresses)
        openssl(
            "req", "-x509", *_CURVE, "-CA", self.ca, "-CAkey", self._key, "-keyout", key, "-out", cert, "-days", 1,
            "-subj", f"/O={name}", "-addext", f"subjectAltName={names}", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
            "-addext", "basicConstraints=critical,CA:FALSE", begun=86_400 - seconds,
        )  # fmt: skip
        return cert.read_bytes(), key.read_bytes()


class Mounted:
    """A Secret's volume: ca.crt, tls.crt and tls.key are links into a folder that another takes the place of in one step (kubelet)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self._count = folder, 0
        self.ca, self.cert, self.key = (folder / name for name in ("ca.crt", "tls.crt", "tls.key"))
        self._said: dict[str, bytes] = {}

    def put(self, ca: bytes = b"", pair: tuple[bytes, bytes] | None = None) -> None:
        """Say otherwise what is given."""
        self._said |= {"ca.crt": ca} if ca else {}
        self._said |= dict(zip(("tls.crt", "tls.key"), pair, strict=True)) if pair else {}
        self._count += 1
        version = self.folder / f"..{self._count}"
        version.mkdir()
        for name, text in self._said.items():
            (version / name).write_bytes(text)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(version.name)
        (self.folder / "..new").rename(self.folder / "..data")
