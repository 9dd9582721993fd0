"""How much there is of what a state file holds: numbers, for who only counts."""

from __future__ import annotations

from cni.state.file import StateFile


class Census(StateFile):
    """What is counted in it."""

    def attachments_counted(self) -> dict[tuple[str, str, bool], int]:
        """Attachments by network, plugin, and whether their ADD was answered."""
        query = "SELECT network, plugin, complete, count(*) FROM attachment GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        return {(network, plugin, bool(complete)): many for network, plugin, complete, many in self._rows(query)}

    def leases_counted(self) -> dict[tuple[str, int], int]:
        """Leased addresses by network and family."""
        query = "SELECT network, family, count(*) FROM lease GROUP BY 1, 2 ORDER BY 1, 2"
        return {(network, family): many for network, family, many in self._rows(query)}

    def unsaid_counted(self) -> dict[str, int]:
        """Addresses of each shared network whose end or beginning the cluster was not told yet; of one that is in none of this host's
        blocks there is nothing to tell.
        """
        query = (
            "SELECT network, (SELECT count(*) FROM endpoint WHERE endpoint.network = shared.network AND wanted IS NOT published"
            " AND EXISTS (SELECT 1 FROM block WHERE (block.network, block.family) = (endpoint.network, endpoint.family)"
            " AND endpoint.address BETWEEN block.first AND block.last AND block.state != 'lost')) FROM shared ORDER BY 1"
        )
        return dict(self._rows(query))
