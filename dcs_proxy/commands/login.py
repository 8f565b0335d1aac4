"""``dcs-proxy login``: read an API key, check it with the API, store it.

The key is typed without echo or read from stdin, and never shown.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
import warnings
from dataclasses import replace

from dcs_proxy.api.credentials import (
    MAX_KEY,
    Credentials,
    check_key,
    overriding_sources,
    write_key_file,
)
from dcs_proxy.app import ApiFactory, Options, open_factory, open_keyring, show_notice
from dcs_proxy.commands._machines import read_listed
from dcs_proxy.console.confirm import confirm
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put
from dcs_proxy.errors import CredentialsError, UsageError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.openssh.config_file import DEFAULT_PATH

HELP = "store the API key in the system keyring"
DESCRIPTION = (
    "Ask for an API key without echoing it, or read it from standard input; check it with the "
    "API; store it in the system keyring, one entry per base URL. A keyring that stores secrets "
    "in plain text is never used: where there is no other, --file writes a key file instead, "
    "after asking."
)
EXAMPLES = (
    ("Store a key that a program prints", "print-key | dcs-proxy login --stdin"),
    ("On a server without a keyring", "dcs-proxy login --file"),
)

_CHECK_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--stdin", action="store_true", help="read the key from standard input, not the terminal"
    )
    parser.add_argument(
        "--file",
        action="store_true",
        help="store the key in the key file (mode 0600) instead of a keyring",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before writing the key file")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Store the key.  Raises UsageError, ConfigError, CredentialsError or what the API raises."""
    settings = options.settings(os.environ)
    keyring = open_keyring(settings, os.environ)
    # Checked before the user types the key.
    if not arguments.file:
        keyring.name()
    elif not arguments.yes and not _agrees(settings.key_file):
        raise CredentialsError("no key was stored", hint="set DEDALUS_API_KEY where it is needed")
    key, source = _from_stdin() if arguments.stdin else _from_terminal(settings.base_url)
    key = check_key(key, source)
    credentials = Credentials(key, None, source, "copy the key again; it looks like dsk-...")
    factory = open_factory(options, os.environ, settings)
    _check_with_api(replace(factory, credentials=credentials))
    if arguments.file:
        write_key_file(settings.key_file, key)
        place = f"{settings.key_file} (mode 0600)"
    else:
        place = f"the system keyring ({keyring.store(key)}) for {settings.base_url}"
    put(f"dcs-proxy: the key is stored in {place}")
    _warn_of_overrides(settings, arguments.file)
    if read_listed(os.path.expanduser(DEFAULT_PATH)) is None:
        put("dcs-proxy: next, make ssh use dcs-proxy: dcs-proxy config-ssh")
    else:
        put("dcs-proxy: next, see your machines: dcs-proxy list")
    return 0


def _agrees(path: str) -> bool:
    answer = confirm(f"store the key in plain text in {path}?")
    if answer is None:
        raise UsageError(
            f"there is no terminal to ask whether to store the key in {path}",
            hint="add --yes to store it without asking",
        )
    return answer


def _from_terminal(base_url: str) -> tuple[str, str]:
    """Return the key and where it comes from."""
    with warnings.catch_warnings():
        # Without a terminal getpass would only warn, and read the key with echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(f"dcs-proxy: API key for {base_url}: "), "the terminal"
        except (getpass.GetPassWarning, EOFError):
            raise UsageError(
                "there is no terminal to type the key on",
                hint="pass it on standard input: dcs-proxy login --stdin",
            ) from None
        except KeyboardInterrupt:
            show("")
            raise


def _from_stdin() -> tuple[str, str]:
    if sys.stdin is None:
        raise UsageError(
            "standard input is closed, so no key can be read from it",
            hint="dcs-proxy login --stdin < FILE",
        )
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal, which would show the key",
            hint="leave out --stdin and type the key; it is not shown",
        )
    return sys.stdin.buffer.read(MAX_KEY + 1).decode("latin-1"), "standard input"


def _check_with_api(factory: ApiFactory) -> None:
    """Raise CredentialsError or Forbidden if the API does not accept the factory's key."""
    answer = factory.open(Deadline(_CHECK_S)).probe()
    if answer.refusal is not None:
        raise answer.refusal
    if not answer.has_list:
        show_notice("the API has no list of machines to check the key with")


def _warn_of_overrides(settings: Settings, in_file: bool) -> None:
    """Name the sources that are read before the key that was just stored."""
    for source in overriding_sources(os.environ, settings.key_file):
        if source != settings.key_file:
            show_notice(f"{source} is set and overrides the stored key")
            show_notice(f"hint: unset {source}")
        elif not in_file:
            show_notice(f"the key file {source} overrides the stored key")
            show_notice(f"hint: rm {shlex.quote(source)}")
