"""Interception with the real Envoy: one port for both directions, and mutual TLS across hosts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from interception import APP_UID, BACKENDS, WEB, address_of, network
from lab import Host, Lab, eventually
from mesh import Envoy, plain
from mesh_scene import SECRET, Mesh
from traffic import Actor

FAMILIES = (4, 6)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder another user may enter."""
    with tempfile.TemporaryDirectory(dir="/run") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_envoy_on_one_port_serves_both_directions(lab: Lab, host: Host, folder: Path, backend: str):
    pod, far = lab.pod(), lab.pod()
    far_result = host.add(network(), far)
    result = host.add(network() | {"sidecar": {"backend": backend}}, pod)
    own = {family: address_of(result, family) for family in FAMILIES}
    with ExitStack() as held:
        app, outside = (held.enter_context(Actor(where, uid)) for where, uid in ((pod, APP_UID), (far, 0)))
        app.listen("app", WEB)
        outside.listen("outside", 80)
        held.enter_context(Envoy(pod, plain(list(own.values())), folder))
        for family in FAMILIES:
            inbound = outside.connect(own[family], WEB)
            assert (inbound["who"], inbound["peer"][0]) == ("app", ("127.0.0.6", "::6")[family == 6])
            outbound = app.connect(address_of(far_result, family), 80)
            assert (outbound["who"], outbound["peer"][0]) == ("outside", own[family])


def test_two_pods_on_two_hosts_speak_mutual_tls_and_their_applications_know_nothing(lab: Lab, folder: Path):
    mesh = Mesh(lab, folder)
    results = mesh.attach()
    with mesh.held:
        mesh.start()
        for family in FAMILIES:
            target = address_of(results[1], family)
            with mesh.wire() as wire:
                seen, echoed = mesh.says(target, SECRET)
            assert (seen["who"], seen["peer"][0]) == ("app-b", ("127.0.0.6", "::6")[family == 6])
            assert echoed == SECRET
            assert wire.carried(b"\x17\x03\x03"), "no TLS records passed: the capture saw nothing"
            assert not wire.carried(SECRET.encode())
            assert not wire.carried(b"app-b"), "the banner passed in the clear"
        assert "CERTIFICATE_REQUIRED" in mesh.stranger(mesh.hosts[1], address_of(results[1], 4))
        identity = mesh.authority.identity("friend")
        assert "app-b" in mesh.stranger(mesh.hosts[1], address_of(results[1], 4), *identity)
    for number in (0, 1):
        mesh.cnitool("check", number)
        mesh.cnitool("del", number)
    assert [host.state() for host in mesh.hosts] == [{"attachments": [], "leases": []}] * 2


def test_an_authority_and_identities_rotate_while_a_connection_stands(lab: Lab, folder: Path):
    mesh = Mesh(lab, folder)
    target = address_of(mesh.attach()[1], 4)
    with mesh.held:
        mesh.start()
        seen, echoed = mesh.says(target, SECRET, kept="stands")
        assert (seen["who"], echoed) == ("app-b", SECRET)
        former = mesh.authority.identity("friend")
        old = mesh.rotate()
        fresh = mesh.authority.identity("friend")
        assert eventually(lambda: "app-b" in mesh.stranger(mesh.hosts[1], target, *fresh)), "it shows the new identity"
        assert eventually(lambda: "UNKNOWN_CA" in mesh.stranger(mesh.hosts[1], target, *former))
        assert mesh.client.echo("stands", "as before") == "as before"
        assert mesh.says(target, SECRET, kept="new")[1] == SECRET
        mesh.authority = old
        assert "CERTIFICATE_VERIFY_FAILED" in mesh.stranger(mesh.hosts[1], target, *former)
    for number in (0, 1):
        mesh.cnitool("del", number)


def test_without_the_mesh_the_same_words_are_read_on_the_wire(lab: Lab, folder: Path):
    mesh = Mesh(lab, folder)
    for host in mesh.hosts:
        file = next(host.folder.glob("*.conflist"))
        conflist = json.loads(file.read_text())
        del conflist["plugins"][0]["sidecar"]
        file.write_text(json.dumps(conflist))
    results = mesh.attach()
    with mesh.held:
        mesh.start()
        with mesh.wire() as wire:
            _, echoed = mesh.says(address_of(results[1], 4), SECRET)
        assert echoed == SECRET
        assert wire.carried(SECRET.encode())
