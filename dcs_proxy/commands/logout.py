"""``dcs-proxy logout``: remove the API key that ``login`` has stored."""

from __future__ import annotations

import argparse
import os

from dcs_proxy.api.credentials import overriding_sources, remove_key_file
from dcs_proxy.app import Options, open_keyring, show_notice
from dcs_proxy.console.stdout import put, put_or_show
from dcs_proxy.errors import KeyringUnusable

HELP = "remove the API key from the system keyring"
DESCRIPTION = "Remove the key that login has stored, and report where a key can still be found."
EXAMPLES = (("Remove the key file too", "dcs-proxy logout --file"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--file", action="store_true", help="remove the key file too")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Remove the key.  Raises ConfigError, or CredentialsError if the key may still exist."""
    settings = options.settings(os.environ)
    if arguments.file:
        existed = remove_key_file(settings.key_file)
        done = "removed" if existed else "did not exist"
        put_or_show(f"dcs-proxy: {settings.key_file} {done}")
    try:
        existed = open_keyring(settings, os.environ).remove()
        done = "was removed from" if existed else "was not in"
        put(f"dcs-proxy: the key for {settings.base_url} {done} the system keyring")
    except KeyringUnusable as error:
        show_notice(f"{error.message}: there is nothing to remove")
    for source in overriding_sources(os.environ, settings.key_file):
        show_notice(f"{source} still holds a key")
    return 0
