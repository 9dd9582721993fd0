"""Real Envoys beside pods: plain interception with one port, and mutual TLS between two pods."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from authority import Mounted
from lab import PATIENCE, ROOT, Namespace, eventually, sh
from traffic import PROXY

ENVOY = ROOT / ".cache/dev/envoy/_bin/envoy"
PASSTHROUGH = ("127.0.0.6", "::6")
_OF_THE_MESH = {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://mesh/"}}]}


class Envoy:
    """An Envoy under the proxy's user in a pod. Use it with `with`."""

    def __init__(self, where: Namespace, config: dict[str, Any], folder: Path) -> None:
        file, self.log = folder / f"{where.name}.json", folder / f"{where.name}.log"
        file.write_text(json.dumps(config))
        ids = ["setpriv", "--reuid", str(PROXY), "--regid", str(PROXY), "--clear-groups"]
        options = ["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
        command = ["nsenter", f"--net={where.path}", *ids, str(ENVOY), "-c", str(file), *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        self.where = where

    def __enter__(self) -> Self:
        listening = eventually(lambda: ":15001 " in self.where.run("ss", "-Hltn").stdout)
        assert listening, self.log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


class Authority:
    """A certificate authority for one mesh; identities are URIs as in SPIFFE."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        self._key("ca")
        self._openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=mesh", "-days", "2", "-out", "ca.pem")

    def identity(self, name: str) -> tuple[str, str]:
        """Certificate and key files of a new identity ``spiffe://mesh/NAME``."""
        self._key(name)
        (self.folder / f"{name}.ext").write_text(f"subjectAltName=URI:spiffe://mesh/{name}\n")
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    @property
    def trusted(self) -> str:
        return str(self.folder / "ca.pem")

    @property
    def certificate(self) -> bytes:
        return (self.folder / "ca.pem").read_bytes()

    def pair(self, name: str) -> tuple[bytes, bytes]:
        """What the files of a new identity say."""
        certificate, key = map(Path, self.identity(name))
        return certificate.read_bytes(), key.read_bytes()

    def _key(self, name: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        (self.folder / f"{name}.key").chmod(0o644)

    def _openssl(self, *words: str) -> None:
        sh("openssl", *words, cwd=self.folder)


def plain(addresses: list[str], port: int = 15001) -> dict[str, Any]:
    """One port for both directions, no TLS: what is for the pod's own addresses is inbound."""
    own = {"prefix_ranges": [_prefix(address) for address in addresses]}
    chains = [_proxied("inbound") | {"filter_chain_match": own}, _proxied("outbound")]
    return _envoy([_listener("both", port, chains)], [_cluster("inbound", PASSTHROUGH), _cluster("outbound")])


def mutual_tls(authority: Authority, name: str) -> dict[str, Any]:
    """Outbound is encrypted with the pod's identity; inbound must show one of the mesh."""
    certificate, key = authority.identity(name)
    return _mutual(
        {
            "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
            "validation_context": {"trusted_ca": {"filename": authority.trusted}, **_OF_THE_MESH},
        }
    )


def rotating_tls(mount: Mounted) -> dict[str, Any]:
    """The same by files of a Secret's volume, which Envoy reads again when another takes its place (SDS, from files)."""
    watched = {"watched_directory": {"path": str(mount.folder)}}
    pair = {"certificate_chain": {"filename": str(mount.cert)}, "private_key": {"filename": str(mount.key)}}
    found = {
        name: _secret(mount.folder.parent / f"{mount.folder.name}-{name}.json", name, said)
        for name, said in (
            ("identity", {"tls_certificate": pair | watched}),
            ("trusted", {"validation_context": {"trusted_ca": {"filename": str(mount.ca)}, **watched}}),
        )
    }
    return _mutual(
        {
            "tls_certificate_sds_secret_configs": [found["identity"]],
            "combined_validation_context": {
                "default_validation_context": _OF_THE_MESH,
                "validation_context_sds_secret_config": found["trusted"],
            },
        }
    )


def _secret(file: Path, name: str, said: dict[str, Any]) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    file.write_text(json.dumps({"resources": [{"@type": kind, "name": name, **said}]}))
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _mutual(common: dict[str, Any]) -> dict[str, Any]:
    newest = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    common = {"tls_params": newest, **common}
    terminated = _tls("Downstream", {"common_tls_context": common, "require_client_certificate": True})
    inbound = _listener("inbound", 15006, [_proxied("inbound") | terminated])
    outbound = _listener("outbound", 15001, [_proxied("outbound")])
    originated = _tls("Upstream", {"common_tls_context": common})
    return _envoy([outbound, inbound], [_cluster("inbound", PASSTHROUGH), _cluster("outbound") | originated])


def _envoy(listeners: list[Any], clusters: list[Any]) -> dict[str, Any]:
    node = {"id": "envoy", "cluster": "mesh"}  # which secrets are asked for by
    return {"node": node, "static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(name: str, port: int, chains: list[Any]) -> dict[str, Any]:
    """A port on every address; SO_ORIGINAL_DST says where each connection was going."""
    return {
        "name": name,
        "address": _socket("0.0.0.0", port),
        "additional_addresses": [{"address": _socket("::", port)}],
        "listener_filters": [_typed("listener.original_dst", "listener.original_dst.v3.OriginalDst")],
        "filter_chains": chains,
    }


def _proxied(cluster: str) -> dict[str, Any]:
    settings = {"stat_prefix": cluster, "cluster": cluster}
    return {"filters": [_typed("network.tcp_proxy", "network.tcp_proxy.v3.TcpProxy", settings)]}


def _cluster(name: str, sources: tuple[str, ...] = ()) -> dict[str, Any]:
    """Connect where the client wanted to go, from one of `sources` where there are any."""
    made: dict[str, Any] = {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": f"{PATIENCE}s",
    }
    if sources:
        first, *others = ({"address": address, "port_value": 0} for address in sources)
        extra = [{"address": other} for other in others]
        made["upstream_bind_config"] = {"source_address": first, "extra_source_addresses": extra}
    return made


def _tls(side: str, settings: dict[str, Any]) -> dict[str, Any]:
    kind = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"
    return {"transport_socket": {"name": "tls", "typed_config": {"@type": kind, **settings}}}


def _typed(name: str, kind: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    config = {"@type": f"type.googleapis.com/envoy.extensions.filters.{kind}", **(settings or {})}
    return {"name": f"envoy.filters.{name}", "typed_config": config}


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _prefix(address: str) -> dict[str, Any]:
    return {"address_prefix": address, "prefix_len": 128 if ":" in address else 32}
