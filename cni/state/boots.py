"""What of a state outlives a boot: nothing that was in the kernel, and so no attachment.

By default the state is in /run and dies with them; a `dataDir` may be on a disk, as host-local's users have theirs.
"""

from __future__ import annotations

from cni.kernel.netns import boot
from cni.state.records import Record, Records


class Boots(Records):
    """What is asked and forgotten of an earlier boot."""

    def is_of_this_boot(self) -> bool:
        """Whether nobody in it is of an earlier boot."""
        return self._rows("SELECT id FROM boot") == [(boot(),)]

    def outlive(self) -> None:
        """Forget attachments of an earlier boot and their addresses, in a transaction of the caller's, unless another call has.

        What is kept for pods that come back is kept.
        """
        if self.is_of_this_boot():
            return
        known = self._rows("SELECT id FROM boot") != []
        # of a file that was brought up nobody knows what boot it is of, but most of its records say so themselves
        for record in self._records("netns_id NOT LIKE ? AND (netns_id != '' OR ?)", f"{boot()}:%", known):
            self._bury(record)
        if known:
            self._db.execute("DELETE FROM configured")
            self._db.execute(
                "DELETE FROM lease AS one WHERE NOT EXISTS (SELECT 1 FROM attachment AS other WHERE"
                " (other.network, other.container, other.ifname, other.plugin)"
                " = (one.network, one.container, one.ifname, one.plugin))"
            )
        self._db.execute("DELETE FROM boot")
        self._db.execute("INSERT INTO boot VALUES (?)", (boot(),))

    def _bury(self, record: Record) -> None:
        """One whose address somebody else gave stays as a pod that is gone: DEL or gc is to tell him."""
        key = (*record.attachment, record.plugin)
        same = "(network, container, ifname, plugin) = (?,?,?,?)"
        self._db.execute(f"DELETE FROM uses WHERE {same}", key)
        named = isinstance(record.config.get("ipam"), dict) and record.config["ipam"].get("type")
        if not named or self._rows(f"SELECT 1 FROM lease WHERE {same}", *key):
            self.forget(record.attachment, record.plugin)
