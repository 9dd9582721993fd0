"""Until when certificates are good, as openssl says it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from authority import Authority, openssl

from cni.kernel.certificates import ends

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def by_openssl(file: Path) -> datetime:
    said = openssl("x509", "-in", file, "-noout", "-enddate").strip().removeprefix("notAfter=")
    return datetime.strptime(said, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)


@pytest.mark.parametrize("key", [EC, ("-newkey", "rsa:2048"), ("-newkey", "rsa:4096"), ("-newkey", "ed25519")], ids=str)
@pytest.mark.parametrize(
    "days", [1, 30, 36_500], ids=["a day", "a month", "a hundred years, in a time of another kind"]
)
def test_a_certificate_of_any_key(tmp_path: Path, key: tuple[str, ...], days: int):
    file, names = tmp_path / "cert.pem", ",".join(f"DNS:host-{number}.example" for number in range(200))
    subject = ("-days", days, "-subj", "/O=a/CN=b", "-addext", f"subjectAltName={names}")
    openssl("req", "-x509", *key, "-nodes", "-keyout", tmp_path / "key", "-out", file, *subject)
    assert ends(file) == [by_openssl(file)]


def test_one_of_the_first_version_has_no_version(tmp_path: Path):
    key, request, file = (tmp_path / name for name in ("key", "csr", "cert"))
    openssl("req", *EC, "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=old")
    openssl("x509", "-req", "-in", request, "-signkey", key, "-out", file, "-days", 3)
    assert "Version: 1" in openssl("x509", "-in", file, "-noout", "-text")
    assert ends(file) == [by_openssl(file)]


def test_each_of_a_chain_in_its_order(tmp_path: Path):
    authority = Authority(tmp_path / "ca", days=400)
    leaf, key = authority.give("leaf")
    (tmp_path / "chain").write_bytes(b"what stands before\n" + leaf + key + authority.ca.read_bytes())
    assert ends(tmp_path / "chain") == [by_openssl(authority.folder / "leaf.pem"), by_openssl(authority.ca)]


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN PRIVATE KEY-----"])
def test_a_file_without_one_is_named(tmp_path: Path, text: str):
    (tmp_path / "none").write_text(text)
    with pytest.raises(ValueError, match="there is no certificate"):
        ends(tmp_path / "none")


def test_what_is_cut_off_anywhere_is_no_certificate(tmp_path: Path):
    leaf, _ = Authority(tmp_path / "ca").give("leaf")
    head, *lines, foot = leaf.decode().strip().splitlines()
    for many in range(len(lines)):
        (tmp_path / "cut").write_text("\n".join([head, *lines[:many], "AAAA", foot]))
        with pytest.raises(ValueError, match="cannot be read"):
            ends(tmp_path / "cut")
