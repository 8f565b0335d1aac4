"""``dcs-proxy login``: take an API key, see that the API accepts it, keep it.

The key is typed without echo, or comes on stdin; it is never shown.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
import warnings

from dcs_proxy.api.credentials import (
    MAX_KEY,
    Credentials,
    check_key,
    keep_in_file,
    sources_before_the_keyring,
)
from dcs_proxy.app import ApiFactory, Options, open_keyring, open_log, show_notice
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import CredentialsError, UsageError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings

HELP = "keep an API key in the system keyring"
DESCRIPTION = (
    "Take an API key, typed without echo or from standard input, have the API check it, and keep "
    "it in the system keyring, one entry for each base URL. Keyrings that keep secrets in plain "
    "files are never used; where there is no other, --file writes the key file, after asking."
)
EXAMPLES = (
    ("Keep a key that a program prints", "print-key | dcs-proxy login --stdin"),
    ("On a server, without a keyring", "dcs-proxy login --file"),
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
        help="keep the key in the key file (mode 0600), where there is no keyring",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before writing the key file")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Keep the key.  Raises UsageError, ConfigError, CredentialsError or what the API raises."""
    settings = options.settings(os.environ)
    keyring = open_keyring(settings, os.environ)
    # Whether it can be kept is found out before anybody has typed it.
    if not arguments.file:
        place = f"the system keyring ({keyring.name()}) for {settings.base_url}"
    elif arguments.yes or _agrees(settings.key_file):
        place = f"{settings.key_file} (mode 0600)"
    else:
        raise CredentialsError("no key was kept", hint="set DEDALUS_API_KEY where it is needed")
    key, source = _from_stdin() if arguments.stdin else _from_terminal(settings.base_url)
    key = check_key(key, source)
    credentials = Credentials(key, None, source, "copy the key again; it looks like dsk-…")
    log = open_log(options, os.environ)
    _check_with_api(ApiFactory(settings, os.environ, log, credentials=credentials))
    if arguments.file:
        keep_in_file(settings.key_file, key)
    else:
        keyring.keep(key)
    print(f"dcs-proxy: the key is kept in {place}")
    _warn_of_others(settings, arguments.file)
    return 0


def _agrees(path: str) -> bool:
    """Ask on the terminal, which stdin need not be."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        raise UsageError(
            f"there is no terminal to ask on whether to keep the key in {path}",
            hint="add --yes to do it without asking",
        ) from None
    try:
        os.write(terminal, f"dcs-proxy: keep the key in clear text in {path}? [y/N] ".encode())
        answer = os.read(terminal, 100)
    except KeyboardInterrupt:
        show("")
        raise
    finally:
        os.close(terminal)
    return answer.strip().lower() in (b"y", b"yes")


def _from_terminal(base_url: str) -> tuple[str, str]:
    """Return the key and where it comes from."""
    with warnings.catch_warnings():
        # It would go on with echo.
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
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal, which would show the key",
            hint="leave --stdin out, and type the key unseen",
        )
    return sys.stdin.buffer.read(MAX_KEY + 1).decode("latin-1"), "standard input"


def _check_with_api(factory: ApiFactory) -> None:
    """Raise CredentialsError or Forbidden if the API does not accept the factory's key."""
    answer = factory.open(Deadline(_CHECK_S)).probe()
    if answer.refusal is not None:
        raise answer.refusal
    if not answer.has_list:
        show_notice("the API has no list of machines to check the key with")


def _warn_of_others(settings: Settings, in_file: bool) -> None:
    """Say what is used before the key that was just kept."""
    for source in sources_before_the_keyring(os.environ, settings.key_file):
        if source != settings.key_file:
            show_notice(f"{source} is set, and goes before the key that was kept")
            show_notice(f"hint: unset {source}")
        elif not in_file:
            show_notice(f"the key file {source} goes before the key that was kept")
            show_notice(f"hint: rm {shlex.quote(source)}")
