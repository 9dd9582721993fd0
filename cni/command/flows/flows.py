"""Who this node's pods talked to, and who talked to them."""

from __future__ import annotations

import argparse

from cni.agent.settings import Settings
from cni.command.flows.options import CONFIGURATION, SUGGESTIONS


def flows(options: argparse.Namespace) -> int:
    """Print who talked to whom, as the recorder saw it: agent-cni flows --record, a daemon."""
    if options.suggest and options.suggest not in SUGGESTIONS:  # --suggest POD
        if options.pod:
            options.refuse(f"--suggest {options.suggest!r}: there are {', '.join(SUGGESTIONS)}")
        options.pod, options.suggest = options.suggest, CONFIGURATION
    settings = Settings.load(options.config)
    said = settings.flows
    folder = options.folder or said.folder
    if options.record:
        from cni.agent.exporter import Exporter
        from cni.agent.sending import FLOWS
        from cni.flows.ring import Ring
        from cni.flows.run import record  # who only reads does not
        from cni.kernel.resolved import Resolved

        exporter = Exporter(options.config, what=FLOWS) if settings.otlp and said.export else None
        record(Ring(folder, (options.size or said.size) << 20), Resolved().names_of, exporter)
        return 0
    from cni.command.flows.table import shown  # and who records does not read

    return shown(options, folder)
