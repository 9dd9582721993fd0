"""The network configuration: decoded, versioned, and judged against a plugin's schema.

A schema is JSON Schema 2020-12 in ``plugins/NAME.schema.json``. Keys the runtime and libcni put
into every configuration are in ``runtime.schema.json`` beside this file and are merged in, so a
plugin's schema lists its own keys only and every other key is refused. Three annotations of ours:

* ``"unsupported": "why"``: a value that fails here is code 2 with that reason
* ``"format"``: ``cidr`` (no host bits), ``interface`` (address with prefix), ``address``, ``mac``,
  ``ifname``
* ``"$ref": "OTHER.schema.json#/$defs/x"``: a schema beside this one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any

from cni.decoding import decoded
from cni.errors import CniError, DecodingFailure, IncompatibleVersion, InvalidConfig, UnsupportedField
from cni.naming import OWN_IPAM
from cni.protocol import foreign
from cni.protocol.call import is_name
from cni.protocol.formats import FORMATS, REFUSALS
from cni.protocol.schema import PLUGINS, Schema, fits, kept, load, part_of, schema_of
from cni.protocol.versions import SINCE, SUPPORTED, at_least

#: A network configuration as the runtime sends it (libcni's name), and an object within one.
NetConf = dict[str, Any]
Section = dict[str, Any]

#: The runtime's capability by which a pod's annotations arrive (containerd, CRI-O).
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"

#: By difflib's ratio, from 0 to 1: a word that is another one misspelt, rather than one of its own.
_SURELY = 0.8

#: NUL, and halves of what JSON spells in two: no bytes are theirs.
_ODD = {"\0", *map(chr, range(0xD800, 0xE000))}


def parse(text: bytes, where: str = "stdin") -> NetConf:
    """Decode a configuration. Raises DecodingFailure naming `where` unless it is one JSON object."""
    try:
        netconf = decoded(text)
    except ValueError as error:
        said = foreign.whose(text)
        raise DecodingFailure(f"{where}: the network configuration is not JSON: {error}{said}") from None
    if not isinstance(netconf, dict):
        raise DecodingFailure(
            f"{where}: the network configuration is {_kind(netconf)}, not an object{foreign.whose(text)}"
        )
    return netconf


def version_of(netconf: NetConf) -> str:
    """The cniVersion to answer in; absent means 0.1.0, as in libcni."""
    version = netconf.get("cniVersion") or SUPPORTED[0]
    if version not in SUPPORTED:
        raise IncompatibleVersion(f"cniVersion: {version!r} is not supported", f"supported: {', '.join(SUPPORTED)}")
    return str(version)


def refuse_wrong_header(netconf: NetConf, command: str) -> None:
    """Raise unless version and name are there, valid, and the version knows `command`."""
    version = version_of(netconf)
    since = SINCE.get(command, SUPPORTED[0])
    if not at_least(version, since):
        raise IncompatibleVersion(f"cniVersion: {version} has no {command}; it came with {since}")
    name = netconf.get("name")
    if not name:
        raise InvalidConfig("$.name: the network's name is missing")
    if not isinstance(name, str) or not is_name(name):
        raise InvalidConfig(f"$.name: {name!r} must be letters, digits, '_', '.', '-'")
    ipam = netconf.get("ipam")
    ours = ipam if isinstance(ipam, dict) and ipam.get("type", OWN_IPAM) == OWN_IPAM else {}
    for path, section in (("$", netconf), ("$.ipam", ours)):
        folder = section.get("dataDir") or "/"  # every verb looks there, also those that judge nothing else
        if not (isinstance(folder, str) and folder.startswith("/") and _ODD.isdisjoint(folder)):
            raise InvalidConfig(f"{path}.dataDir: {_short(folder)} is no absolute path")


def validate(netconf: NetConf, plugin: str) -> None:
    """Judge a configuration against `plugin`'s schema and report everything at once.

    Raises UnsupportedField (2) where keys are unknown and nothing else is wrong, else
    InvalidConfig (7). Each line of the message begins with a JSON path.
    """
    found = faults(netconf, plugin)
    if not found:
        return
    unsupported = all(error is UnsupportedField for error, _ in found)
    raise (UnsupportedField if unsupported else InvalidConfig)("; ".join(text for _, text in found))


def faults(netconf: NetConf, plugin: str) -> tuple[tuple[type[CniError], str], ...]:
    """All that `plugin`'s schema says against a configuration, each with the class of its error."""
    return _faults(json.dumps(netconf), plugin)  # as a text: a dict cannot be a cache's key


def without_unknown(netconf: NetConf, plugin: str) -> NetConf:
    """A copy of a configuration without the keys nobody knows."""
    known: NetConf = json.loads(json.dumps(netconf))
    for error in list(validator(plugin).iter_errors(known)):  # all of them, before what they walk is changed
        if error.validator == "additionalProperties":
            for key in _unknown(error):
                del error.instance[key]
    return known


def folded(mapping: Mapping[str, Any] | None, key: str) -> Any:
    """A value by key whatever its case: Go callers send ``Ips`` for ``ips`` in runtimeConfig."""
    for name, value in (mapping or {}).items():
        if name.lower() == key.lower():
            return value
    return None


def listed(value: str | list[str] | None) -> list[str]:
    """A key that takes one text or a list of them, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


@lru_cache(maxsize=64)
def _faults(netconf: str, plugin: str) -> tuple[tuple[type[CniError], str], ...]:
    """What is wrong with a configuration; a network's own comes again with every pod."""
    return faults_by(json.loads(netconf), kept(plugin), partial(validator, plugin))


def faults_by(
    document: Any, schema: Schema, judge: Callable[[], Any] | None = None
) -> tuple[tuple[type[CniError], str], ...]:
    """All that a schema says against any document; `judge` is what makes its validator, where that is kept."""
    if odd := [path for path, text in _texts(document, "$") if not _ODD.isdisjoint(text)]:
        return tuple((InvalidConfig, f"{path}: has a character no name or file may have") for path in odd)
    if fits(document, schema):
        return ()
    found = (judge() if judge else validator_of(schema)).iter_errors(document)
    return tuple(fault for error in sorted(found, key=lambda error: error.json_path) for fault in _told(error))


def read_by(text: bytes, schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """The document of a file that is no plugin's, without what says nothing, and what its schema says against it, each line with its
    JSON path.
    """
    try:
        document = decoded(text)
    except ValueError as error:
        return {}, [f"$: it is not JSON: {error}"]
    if not isinstance(document, dict):
        return {}, ["$: it is no JSON object"]
    said = _without_nothing(document)
    return said, [line for _, line in faults_by(said, schema)]


def _without_nothing(value: Any) -> Any:
    """A document without keys of null or "", which say nothing."""
    if not isinstance(value, dict):
        return value
    return {key: _without_nothing(item) for key, item in value.items() if item not in (None, "")}


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text of a configuration and its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from _texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{path}[{number}]")


@cache
def validator(plugin: str) -> Any:
    """The jsonschema validator of a plugin's configurations."""
    return validator_of(schema_of(plugin))


def validator_of(schema: Schema) -> Any:
    """The jsonschema validator of a schema."""
    from jsonschema import Draft202012Validator, FormatChecker
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    files = (file.name for file in PLUGINS.glob("*.schema.json"))
    schemas = ((name, DRAFT202012.create_resource(load(name))) for name in files)
    registry: Registry[Any] = Registry().with_resources(schemas).crawl()
    checker = FormatChecker(formats=())
    for name, refuse in FORMATS.items():
        checker.checks(name, raises=REFUSALS)(partial(_is_of_format, refuse))
    return Draft202012Validator(schema, registry=registry, format_checker=checker)


def _is_of_format(refuse: Callable[[str], object], value: object) -> bool:
    if isinstance(value, str):
        refuse(value)
    return True


def _told(error: Any) -> Iterator[tuple[type[CniError], str]]:
    """One schema error as (class, line); an unknown key becomes a line of its own."""
    path, schema = error.json_path, error.schema
    if error.validator == "additionalProperties":
        for key in _unknown(error):
            said = f"unknown key, value {_short(error.instance[key])}{_hint(key, error)}"
            yield UnsupportedField, f"{path}.{key}: {said}"
    elif isinstance(schema, dict) and "unsupported" in schema:
        yield UnsupportedField, f"{path}: {_short(error.instance)} is not supported: {schema['unsupported']}"
    elif error.validator == "format":
        yield InvalidConfig, f"{path}: {error.cause or f'{_short(error.instance)} is no {error.validator_value}'}"
    elif error.validator == "enum":
        known = ", ".join(_short(item) for item in error.validator_value if item != "")
        yield (
            InvalidConfig,
            f"{path}: {_short(error.instance)} is none of {known}{meant(error.instance, error.validator_value)}",
        )
    elif error.validator == "anyOf":
        yield from _told_of_any(error)
    else:
        yield InvalidConfig, f"{path}: {error.message}"


def _told_of_any(error: Any) -> Iterator[tuple[type[CniError], str]]:
    """Of several forms a value may have, what is wrong with it in the one that it begins to have; else all of them."""
    begun = [item for item in error.context if item.validator not in ("type", "const", "enum") or len(item.path) > 0]
    if begun:
        form = begun[0].schema_path[0]
        yield from (fault for item in begun if item.schema_path[0] == form for fault in _told(item))
    else:
        forms = " or ".join(dict.fromkeys(map(_form, error.context)))
        yield InvalidConfig, f"{error.json_path}: {_short(error.instance)} is not {forms}"


def _form(error: Any) -> str:
    if error.validator == "type":
        return f"of type {error.validator_value!r}"
    return (
        "one of " + ", ".join(map(_short, error.validator_value))
        if error.validator == "enum"
        else _short(error.validator_value)
    )


def _unknown(error: Any) -> list[str]:
    return [key for key in error.instance if part_of(error.schema, key) is True and not key.startswith("cni.dev/")]


def _hint(key: str, error: Any) -> str:
    """What a key that a section does not have may be: somebody else's word for something, a key of another case, one misspelt, one
    of another section.
    """
    schema, section = error.schema, error.json_path.rpartition(".")[2].partition("[")[0].removeprefix("$")
    if said := foreign.advice(key, error.instance[key], section):
        return f" ({said})"
    known = schema.get("properties", {})
    if cased := next((name for name in known if name.lower() == key.lower()), ""):
        return f" (did you mean {cased!r}?)"
    sections = (name for name, part in known.items() if key in _parts(part, schema))
    return (
        meant(key, known, _SURELY) or _meant_elsewhere(key, section) or meant(key, known)
        or next((f" (did you mean '{name}.{key}'?)" for name in sections), "")
    )  # fmt: skip


def _meant_elsewhere(key: str, section: str) -> str:
    """The same of somebody else's word that is misspelt."""
    import difflib

    close = difflib.get_close_matches(key.lower(), foreign.words(section), 1, _SURELY)
    return f" (as {close[0]!r}: {foreign.words(section)[close[0]]})" if close else ""


def meant(value: Any, known: Iterable[Any], likeness: float = 0.6) -> str:
    """The known text that is most like a value, as a question, or nothing; `likeness` is difflib's ratio, from 0 to 1."""
    import difflib

    close = difflib.get_close_matches(str(value), [item for item in known if isinstance(item, str)], 1, likeness)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _parts(section: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterable[str]:
    """The keys of a section, also where it stands elsewhere in its schema or in another plugin's."""
    file, _, path = str(section.get("$ref", "")).partition("#/")
    found = load(file) if file else schema if path else section
    for step in filter(None, path.split("/")):
        found = found.get(step, {})
    return _parts(found["then"], schema) if "then" in found else dict(found.get("properties", {}))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
