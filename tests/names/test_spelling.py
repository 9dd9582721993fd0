"""What may be a name, and under which a pod is answered."""

from __future__ import annotations

import pytest

from cni.names.spelling import is_name, known_as


@pytest.mark.parametrize("text", ["web", "web-1", "my_app", "web.default.net", "3com", "_sip", "a", "x" * 63, "a.b.c"])
def test_names(text: str):
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "web.",
        ".web",
        "a..b",
        "-web",
        "web-",
        "Web",
        "w b",
        "w\n10.1.0.9 evil",
        "w#x",
        "wéb",
        "x" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
def test_no_names(text: str):
    assert not is_name(text)


@pytest.mark.parametrize("text", ["10.1.0.1", "1", "web.7"])
def test_what_could_be_an_address_is_no_name(text: str):
    assert not is_name(text)


def test_who_has_no_namespace_is_known_under_the_domain_and_without_it():
    assert known_as(["Web", "web", "api.example"], "", "net") == ("web.net", "api.example.net", "web", "api.example")


def test_who_has_a_namespace_is_known_in_it_first():
    assert known_as(["web", "db"], "shop", "net") == (
        "web.shop.net", "db.shop.net", "web.net", "db.net", "web", "db",
    )  # fmt: skip


def test_a_pod_cannot_take_a_name_of_the_world_or_of_another_namespace():
    assert known_as(["google.com", "web.other"], "shop", "net") == ("google.com.shop.net", "web.other.shop.net")


@pytest.mark.parametrize("name", ["localhost", "wpad"])
def test_some_names_are_nobodys_without_their_domain(name: str):
    assert known_as([name], "", "net") == (f"{name}.net",)


def test_what_is_too_long_with_its_domain_is_left_out():
    long = "a" * 60
    assert known_as([long], "n" * 63, ".".join(["d" * 60] * 3)) == (f"{long}.{'.'.join(['d' * 60] * 3)}", long)
