"""From one state of our chains to another, against a small model of ``iptables-restore --noflush``."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cni.resources.chains import change, differences, ours

FOREIGN = ["-A OUTPUT -d 192.0.2.7/32 -j SOMEBODY", "-A SOMEBODY -j RETURN"]
names = st.sampled_from(("ACNI_A", "ACNI_B", "ACNI_C"))
bodies = st.lists(st.sampled_from(("-p tcp -j RETURN", "-o lo -j RETURN", "-j DROP")), max_size=3)
tables = st.fixed_dictionaries(
    {
        "chains": st.dictionaries(names, bodies, max_size=3),
        "hooked": st.lists(st.sampled_from(("PREROUTING", "OUTPUT")), max_size=2),
    }
)


def document(table: str, state: dict[str, Any]) -> list[str]:
    """What iptables-save would print, with foreign rules among ours."""
    chains, hooks = state["chains"], state["hooked"] if state["chains"] else []
    lines = [f"*{table}", ":OUTPUT ACCEPT [7:420]", ":SOMEBODY - [0:0]", *(f":{name} - [0:0]" for name in chains)]
    lines += [f"-A {where} -j {next(iter(chains))}" for where in hooks] + FOREIGN
    return [*lines, *(f"-A {name} {body}" for name, bodies in chains.items() for body in bodies), "COMMIT"]


def restored(there: list[str], script: str) -> list[str]:
    """The document after ``iptables-restore --noflush`` of a script."""
    chains: dict[str, list[str]] = {line[1:].split()[0]: [] for line in there if line.startswith(":")}
    for line in there:
        if line.startswith("-A"):
            chains.setdefault(line.split()[1], []).append(line)
    for line in script.splitlines():
        _restore_line(chains, line)
    return [
        "*nat",
        *(f":{name} - [0:0]" for name in chains),
        *(rule for rules in chains.values() for rule in rules),
        "COMMIT",
    ]


def _restore_line(chains: dict[str, list[str]], line: str) -> None:
    verb, *words = line.split()
    if line.startswith(":"):
        chains[line[1:].split(maxsplit=1)[0]] = []
    elif verb == "-A":
        chains.setdefault(words[0], []).append(line)
    elif verb == "-I":
        chains.setdefault(words[0], []).insert(0, line.replace("-I", "-A", 1))
    elif verb == "-D":
        chains[words[0]].remove(line.replace("-D", "-A", 1))
    elif verb == "-F":
        chains[words[0]] = []
    elif verb == "-X":
        assert not chains.pop(words[0]), "a chain that is deleted must be empty"
        left = [rule for rules in chains.values() for rule in rules]
        assert not any(rule.endswith(f"-j {words[0]}") for rule in left), "a chain that is deleted is jumped to"


@given(tables, tables)
def test_a_change_leads_from_any_state_to_any_other_and_touches_nothing_foreign(before: Any, after: Any):
    there, wanted = document("nat", before), ours(document("nat", after))
    result = restored(there, change(ours(there), wanted))
    assert ours(result) == wanted or {k: sorted(v.hooks) for k, v in ours(result).items()} == {
        k: sorted(v.hooks) for k, v in wanted.items()
    }
    assert [table.rules for table in ours(result).values()] == [table.rules for table in wanted.values()]
    assert [line for line in result if "SOMEBODY" in line and line.startswith("-A")] == FOREIGN


@given(tables)
def test_what_is_as_wanted_needs_no_change(state: Any):
    there = ours(document("nat", state))
    assert change(there, there) == ""
    assert list(differences(there, there)) == []


@given(tables, tables)
def test_there_is_a_difference_exactly_where_there_is_a_change(before: Any, after: Any):
    there, wanted = ours(document("nat", before)), ours(document("nat", after))
    same = {k: (v.rules, sorted(v.hooks)) for k, v in there.items()} == {
        k: (v.rules, sorted(v.hooks)) for k, v in wanted.items()
    }
    assert (list(differences(there, wanted)) == []) == same


def test_hooks_come_first_and_in_their_order():
    wanted = ours(
        ["*mangle", ":ACNI_A - [0:0]", "-A PREROUTING -j ACNI_A", ":ACNI_B - [0:0]", "-A PREROUTING -j ACNI_B"]
    )
    script = change({}, wanted).splitlines()
    assert [line for line in script if line.startswith("-I")] == ["-I PREROUTING -j ACNI_B", "-I PREROUTING -j ACNI_A"]


def test_what_goes_away_goes_in_the_reverse_of_the_order_in_which_it_came():
    there = ours(["*raw", ":ACNI_A - [0:0]", "COMMIT", "*nat", ":ACNI_B - [0:0]", "COMMIT"])
    assert [line for line in change(there, {}).splitlines() if line.startswith("*")] == ["*nat", "*raw"]
