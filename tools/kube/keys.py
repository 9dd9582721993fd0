"""Who may ask the API server: a certificate authority of the run's own."""

from __future__ import annotations

import json
from pathlib import Path

from addressing import CONTROL
from shell import sh


class Keys:
    """A certificate authority, and whom it vouches for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._new(
            "ca", "/CN=kube-rig", "-x509", "-days", "30", "-addext", "keyUsage=critical,keyCertSign,digitalSignature"
        )
        sh("openssl", "genrsa", "-out", folder / "accounts.key", "2048")

    def issue(self, name: str, user: str, group: str = "", names: str = "") -> None:
        """A key and certificate `name`, for a client or for the server of `names`."""
        self._new(name, (f"/O={group}" if group else "") + f"/CN={user}")
        more = "extendedKeyUsage=clientAuth,serverAuth\n" + (f"subjectAltName={names}\n" if names else "")
        (self.folder / f"{name}.ext").write_text(more)
        at = str(self.folder / name)
        sh("openssl", "x509", "-req", "-in", f"{at}.crt", "-out", f"{at}.crt", "-days", "30", "-extfile", f"{at}.ext",
           "-CA", self.folder / "ca.crt", "-CAkey", self.folder / "ca.key", "-CAcreateserial")  # fmt: skip

    def _new(self, name: str, subject: str, *more: str) -> None:
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        at = self.folder / name
        sh("openssl", "req", "-new", *kind, "-keyout", f"{at}.key", "-out", f"{at}.crt", "-subj", subject, *more)

    def kubeconfig(self, name: str) -> Path:
        """How `name` reaches the API server."""
        at = self.folder / name
        user = {"client-certificate": f"{at}.crt", "client-key": f"{at}.key"}
        cluster = {"server": f"https://{CONTROL}:6443", "certificate-authority": str(self.folder / "ca.crt")}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{"name": "rig", "cluster": cluster}], "users": [{"name": "rig", "user": user}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig"}}],
        }  # fmt: skip
        file = self.folder / f"{name}.kubeconfig"
        file.write_text(json.dumps(config))
        return file
