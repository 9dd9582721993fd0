"""etcd's words in JSON: ranges, transactions, leases and watches, and a user's token.

Source: etcd 3.4, "gRPC gateway" and "API reference": int64 are strings, what is zero or false is left out, bytes are base64.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd.keys import Range
from cni.decoding import decoded
from cni.errors import Compacted, Unreachable
from cni.kernel.http import Answer, Door, Request, Stream

#: A transaction has no more comparisons and no more operations.
MOST_OPERATIONS = 128
#: How etcd says that a token is to be got anew; nothing was done then.
_NO_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old")
#: How it ends a watch whose token it does not know, and that of a user who may not see what is watched.
_DENIED = "permission denied"
_NO_USERS = "authentication is not enabled"
#: A member that knows no leader is to end a watch instead of being silent.
_HAS_LEADER = {"Grpc-Metadata-hasleader": "true"}
#: What reading raises where an answer has another shape: who answered is not etcd.
_NOT_ETCDS = (AttributeError, KeyError, TypeError, ValueError, OverflowError)

T = TypeVar("T")


class Refused(Unreachable):
    """etcd was reached, and says why it does not do what is asked for: nothing was done."""


class Row(NamedTuple):
    """What is under a key, the revisions that made it and changed it last, and the lease it goes with, "0" if none."""

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: str


class At(NamedTuple):
    """By what an etcd is known to be as it was: who it is, and how far it has come."""

    cluster: str
    term: int
    revision: int

    def follows(self, other: At) -> bool:
        """Whether it may be the same one, later."""
        return self.cluster == other.cluster and self.term >= other.term and self.revision >= other.revision


class Done(NamedTuple):
    """What a transaction came to: whether its comparisons held, and the rows of each range it asked for."""

    held: bool
    at: At
    rows: list[list[Row]]


class Gateway:
    """An etcd. Each method waits for `seconds` at most; raises Unreachable."""

    def __init__(self, config: EtcdConfig, seconds: float) -> None:
        self._door = Door(config.endpoints, cacert=config.cacert, cert=config.cert, key=config.key)
        self._config, self._seconds = config, seconds
        self._token: str | None = None if config.user else ""

    def reconnect(self) -> None:
        """Ask by other connections from now on."""
        self._door.reconnect()

    def look(self, *ranges: Range | bytes, limit: int = 0) -> Done:
        """What is there, at one revision; of each range the first `limit`."""
        operations = [{"request_range": _span(span) | {"limit": limit}} for span in ranges]
        return self._ask("/v3/kv/txn", {"success": operations}, _done)

    def page(self, span: Range, limit: int, revision: int) -> tuple[At, list[Row], bool]:
        """The first rows of a range, as of a revision (0 is now), and whether there are more. Raises Compacted."""
        return self._ask("/v3/kv/range", _span(span) | {"limit": limit, "revision": revision}, _page)

    def newest(self, span: Range, revision: int) -> Row | None:
        """Of all in a range, as of a revision, what was put last; for etcd that is to read it all. Raises Compacted."""
        asked = {"sort_order": "DESCEND", "sort_target": "MOD", "limit": 1, "revision": revision}
        _, rows, _ = self._ask("/v3/kv/range", _span(span) | asked, _page)
        return rows[0] if rows else None

    def write(self, compared: list[dict[str, Any]], operations: list[dict[str, Any]]) -> Done:
        """A transaction, which is sent once."""
        return self._ask("/v3/kv/txn", {"compare": compared, "success": operations}, _done, again=False)

    def lease(self, seconds: float) -> tuple[str, float]:
        """A lease and its seconds, which are not fewer."""
        asked = {"TTL": max(1, int(-(-seconds // 1)))}
        return self._ask("/v3/lease/grant", asked, lambda said: (str(said["ID"]), float(said["TTL"])))

    def keep(self, lease: str) -> float:
        """Let a lease begin anew; its seconds, 0 if it has ended."""
        return self._ask("/v3/lease/keepalive", {"ID": lease}, _kept)

    def granted(self, lease: str) -> float:
        """For how many seconds a lease was given, 0 if it has ended."""
        return self._ask("/v3/lease/timetolive", {"ID": lease}, _granted)

    def end(self, lease: str) -> None:
        """Take a lease away, with what goes with it."""
        self._ask("/v3/lease/revoke", {"ID": lease}, _at, again=False)

    @contextmanager
    def watch(self, span: Range, start: int, silence: float) -> Iterator[Iterator[Watched]]:
        """What changes from a revision on, first nothing; it ends in silence. Raises Compacted."""
        asked = {"create_request": _span(span) | {"start_revision": start, "progress_notify": True, "fragment": True}}
        request = Request("/v3/watch", asked, _HAS_LEADER | self._login())
        with self._door.stream(request, self._seconds) as stream:
            yield self._watched(stream, silence)

    def _watched(self, stream: Stream, silence: float) -> Iterator[Watched]:
        for line in stream.lines(silence):
            try:
                said = decoded(line)
                result = said.get("result", said)
                why = _why(said.get("error", "")) or _why_ended(result)
                told = None if why or "compact_revision" in result else _told(result)
            except _NOT_ETCDS:
                raise stream.broken(f"what it says is not etcd's: {line[:100]!r}") from None
            if told is None and "compact_revision" in result:
                raise Compacted(f"what changed before revision {result['compact_revision']} is not known any more")
            if told is None:
                self._token = None if _DENIED in why and self._config.user else self._token
                raise stream.broken(why)
            yield told

    def _ask(
        self, path: str, document: Mapping[str, Any], read: Callable[[dict[str, Any]], T], *, again: bool = True
    ) -> T:
        """One request, once more with another token where that was the fault; its answer as `read` understands it."""
        for last in (False, True):
            login = self._login()
            answer = self._door.ask(Request(path, document, login, again), self._seconds)
            if answer.status == 200 and isinstance(answer.document, dict):
                return _understood(answer, read)
            why = _why(answer.document)
            if last or not self._forget(why, login.get("Authorization")):
                break
        if "compacted" in why:
            raise Compacted(why)
        raise Refused(f"{answer.endpoint}: {why or f'it says {answer.status}'}")

    # --- a user

    def _login(self) -> dict[str, str]:
        if self._token is None:
            self._token = self._authenticated()
        return {"Authorization": self._token} if self._token else {}

    def _authenticated(self) -> str:
        """A token; empty where etcd has no users."""
        try:
            password = Path(self._config.password_file).read_text().partition("\n")[0]
        except (OSError, ValueError) as error:
            raise Unreachable(f"the password of etcd's user {self._config.user}: {error}") from error
        asked = {"name": self._config.user, "password": password}
        answer: Answer = self._door.ask(Request("/v3/auth/authenticate", asked, {}), self._seconds)
        if answer.status == 200 and isinstance(answer.document, dict):
            return str(answer.document.get("token", ""))
        if _NO_USERS in (why := _why(answer.document)):
            return ""
        raise Refused(f"{answer.endpoint}: user {self._config.user}: {why or answer.status}")

    def _forget(self, why: str, token: str | None) -> bool:
        """Whether a refusal is the token's fault, which is not used any more then, unless there is a newer one."""
        if not self._config.user or not any(words in why for words in _NO_TOKEN):
            return False
        if token == self._token:
            self._token = None
        return True


class Watched(NamedTuple):
    """One message of a watch: rows that were put, and keys of those that are gone. Nothing is missed until `revision`, 0 where it
    does not say; with `more` the next message is of the same revision.
    """

    at: At
    rows: list[Row | bytes]
    revision: int
    more: bool


# --- what a transaction is made of


def encoded(value: Mapping[str, Any]) -> bytes:
    """A value, as it is put."""
    return json.dumps(value, separators=(",", ":")).encode()


def is_at(key: bytes, *, created: int | None = None, modified: int | None = None) -> dict[str, Any]:
    """That a row was made, or changed last, at a revision; 0 is that there is none."""
    if created is not None:
        return {"key": _text(key), "target": "CREATE", "create_revision": created}
    return {"key": _text(key), "target": "MOD", "mod_revision": modified}


def is_empty(span: Range) -> dict[str, Any]:
    """That nothing is in a range."""
    return _span(span) | {"target": "CREATE", "create_revision": 0}


def put(key: bytes, value: Mapping[str, Any], lease: str = "0") -> dict[str, Any]:
    """To put a value, with a lease if one is given."""
    return {"request_put": {"key": _text(key), "value": _text(encoded(value)), "lease": lease}}


def delete(span: Range | bytes) -> dict[str, Any]:
    """To delete what is there."""
    return {"request_delete_range": _span(span)}


def _span(span: Range | bytes) -> dict[str, Any]:
    return {"key": _text(span[0]), "range_end": _text(span[1])} if isinstance(span, Range) else {"key": _text(span)}


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


def _why(said: Any) -> str:
    """The words of an error, which are in one of two places."""
    if not isinstance(said, dict):
        return str(said or "")[:200]
    error = said.get("error") or said.get("message") or ""
    return _why(error) if isinstance(error, dict) else str(error)


def _why_ended(result: Mapping[str, Any]) -> str:
    """Why a watch is over; empty of one that goes on."""
    return str(result.get("cancel_reason") or "no reason is told") if result.get("canceled") else ""


def _understood(answer: Answer, read: Callable[[dict[str, Any]], T]) -> T:
    try:
        return read(answer.document)
    except _NOT_ETCDS:
        raise Unreachable(f"{answer.endpoint}: what it says is not etcd's: {str(answer.document)[:100]}") from None


def _page(said: Mapping[str, Any]) -> tuple[At, list[Row], bool]:
    return _at(said), [_row(item) for item in said.get("kvs", [])], bool(said.get("more"))


def _kept(said: Mapping[str, Any]) -> float:
    result = said["result"]
    _at(result)
    return float(result.get("TTL", 0))


def _granted(said: Mapping[str, Any]) -> float:
    return float(said.get("grantedTTL", 0)) if float(said.get("TTL", 0)) > 0 else 0.0


def _row(said: Mapping[str, Any]) -> Row:
    created, modified = int(said.get("create_revision", 0)), int(said.get("mod_revision", 0))
    return Row(b64decode(said["key"]), b64decode(said.get("value", "")), created, modified, str(said.get("lease", "0")))


def _told(said: Mapping[str, Any]) -> Watched:
    """The first message says what it is of, and not how far it has come; the others do by their last event, or else by their own."""
    events, at = said.get("events", []), _at(said)
    rows = [b64decode(item["kv"]["key"]) if item.get("type") == "DELETE" else _row(item["kv"]) for item in events]
    begins = 0 if "created" in said else at.revision
    return Watched(at, rows, int(events[-1]["kv"]["mod_revision"]) if events else begins, "fragment" in said)


def _at(said: Mapping[str, Any]) -> At:
    header = said["header"]
    return At(str(header["cluster_id"]), int(header.get("raft_term", 0)), int(header.get("revision", 0)))


def _done(said: Mapping[str, Any]) -> Done:
    found = [item.get("response_range", {}).get("kvs", []) for item in said.get("responses", [])]
    return Done(bool(said.get("succeeded")), _at(said), [[_row(row) for row in rows] for rows in found])
