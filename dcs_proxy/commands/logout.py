"""``dcs-proxy logout``: forget the API key that ``login`` has kept."""

from __future__ import annotations

import argparse
import os

from dcs_proxy.api.credentials import forget_file, sources_before_the_keyring
from dcs_proxy.app import Options, open_keyring, show_notice
from dcs_proxy.errors import KeyringUnusable

HELP = "remove the API key from the system keyring"
DESCRIPTION = "Remove what login has kept, and say what else still gives a key."
EXAMPLES = (("Remove the key file too", "dcs-proxy logout --file"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--file", action="store_true", help="remove the key file too")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Remove the key.  Raises ConfigError, or CredentialsError where it may still be there."""
    settings = options.settings(os.environ)
    if arguments.file:
        was_there = forget_file(settings.key_file)
        print(f"dcs-proxy: {settings.key_file}: {'removed' if was_there else 'there was none'}")
    try:
        was_there = open_keyring(settings, os.environ).remove()
        done = "removed from" if was_there else "not in"
        print(f"dcs-proxy: the key for {settings.base_url} is {done} the system keyring")
    except KeyringUnusable as error:
        show_notice(f"{error.message}: there is nothing to remove")
    for source in sources_before_the_keyring(os.environ, settings.key_file):
        show_notice(f"{source} still gives a key")
    return 0
