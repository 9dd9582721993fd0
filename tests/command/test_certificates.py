"""Certificates that end soon, as doctor says it."""

from __future__ import annotations

import json
import ssl
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import create_server
from types import SimpleNamespace
from typing import Any

import pytest
from authority import Authority, Mounted

from cni.agent.settings import Otlp, Settings
from cni.command.doctor import certificates
from cni.command.doctor.certificates import certificate_faults


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "Settings", SimpleNamespace(load=Settings))


@pytest.fixture
def files(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "mount")


def lasting(folder: Path, days: float, name: str = "ca") -> Authority:
    """An authority whose certificate is good for so many days."""
    return Authority(folder / name, days=int(days)) if days >= 1 else ended(folder / name)


def ended(folder: Path) -> Authority:
    made = Authority(folder)
    made.ca.write_bytes(made.give("itself", seconds=-60)[0])
    return made


def found(config: Path) -> list[str]:
    return [f"{item.line} | {item.mend}" for item in certificate_faults(Namespace(config=config))]


def told(tmp_path: Path, files: Mounted, *urls: str) -> Path:
    paths = {"cacert": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
    document: dict[str, Any] = {"node": "a", "etcd": {"endpoints": urls or ("https://127.0.0.1:1",), **paths}}
    (tmp_path / "cluster.json").write_text(json.dumps(document))
    return tmp_path / "cluster.json"


def test_nothing_is_said_on_a_host_that_has_none(tmp_path: Path):
    assert found(tmp_path / "cluster.json") == []


@pytest.mark.parametrize(
    ("days", "says"), [(30, ""), (15, ""), (14, "in 13 days"), (1, "in 0 days"), (-1, "new connections are refused")]
)
def test_two_weeks_before_its_end_a_certificate_is_named(tmp_path: Path, files: Mounted, days: int, says: str):
    authority = Authority(tmp_path / "ca", days=100)
    files.put(authority.ca.read_bytes(), (lasting(tmp_path, days, "leaf").ca.read_bytes(), b"key"))
    lines = found(told(tmp_path, files))
    assert len(lines) == bool(says)
    for line in lines:
        assert line.startswith(f"{files.cert} (cluster.json) end")
        assert says in line
        assert "renew it" in line


def test_of_authorities_one_that_goes_on_is_enough_and_a_chain_ends_with_its_first(tmp_path: Path, files: Mounted):
    short, long = (lasting(tmp_path, days, f"for-{days}").ca.read_bytes() for days in (3, 300))
    files.put(short + long, (long + short, b"key"))
    (line,) = found(told(tmp_path, files))
    assert line.startswith(f"{files.cert} ")
    files.put(short, (long, b"key"))
    (line,) = found(told(tmp_path, files))
    assert line.startswith(f"{files.ca} ")


def test_a_file_that_is_none_is_named(tmp_path: Path, files: Mounted):
    authority = Authority(tmp_path / "ca", days=100)
    files.put(b"nonsense", authority.give("leaf"))
    config = told(tmp_path, files)
    assert "there is no certificate in it" in found(config)[0]
    files.ca.unlink()
    assert f"{files.ca} (cluster.json) cannot be read: No such file or directory" in found(config)[0]


def test_those_of_the_agent_are_named_too(tmp_path: Path, files: Mounted, monkeypatch: pytest.MonkeyPatch):
    files.put(lasting(tmp_path, 3).ca.read_bytes())
    otlp = Otlp("https://127.0.0.1:4318", cacert=str(files.ca))
    monkeypatch.setattr(certificates, "Settings", SimpleNamespace(load=lambda: Settings(otlp)))
    (line,) = found(tmp_path / "cluster.json")
    assert f"{files.ca} (agent.json) ends on" in line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Authority]]:
    """A server whose certificate ends within the day, and the authority it is of."""
    authority = Authority(tmp_path / "servers", days=100)
    for name, text in zip(("s.pem", "s-key.pem"), authority.give("server"), strict=True):
        (tmp_path / name).write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s-key.pem")
    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as made:
                    made.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}", authority
    listener.shutdown(2)
    listener.close()
    thread.join()


def test_the_certificate_of_a_store_is_named_where_it_is_served(
    tmp_path: Path, files: Mounted, server: tuple[str, Authority]
):
    url, authority = server
    files.put(authority.ca.read_bytes(), (lasting(tmp_path, 100, "client").ca.read_bytes(), b"key"))
    document = json.loads(told(tmp_path, files, url, "https://127.0.0.1:1").read_text())
    for name in ("cert", "key"):
        del document["etcd"][name]
    (tmp_path / "cluster.json").write_text(json.dumps(document))
    (line,) = found(tmp_path / "cluster.json")
    assert line.startswith(f"the certificate of {url} ends on ")
    assert line.endswith("in 0 days | renew it where it is served") or "in 1 days" in line
