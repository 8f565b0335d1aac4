"""``dcs-proxy version``: the same as ``dcs-proxy --version``."""

from __future__ import annotations

import argparse

from dcs_proxy import __version__
from dcs_proxy.app import Options
from dcs_proxy.console.stdout import put

HELP = "print the version"
DESCRIPTION = "Print the version, as --version does."
EXAMPLES = (("For a bug report", "dcs-proxy version"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the version."""
    put(f"dcs-proxy {__version__}")
    return 0
