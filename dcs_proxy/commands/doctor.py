"""``dcs-proxy doctor [HOST]``: check everything from the API key to a login, and suggest fixes.

Prints one line per check: a mark, the check's name, what was found, how long it took; below a
failed check, a hint.  The exit code is 0 if no check failed, else 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from dcs_proxy import __version__
from dcs_proxy.app import Options
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put, put_json, wrap
from dcs_proxy.doctor.bundle import check_bundle_path, write_bundle
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.plan import steps_for
from dcs_proxy.doctor.redact import mask
from dcs_proxy.doctor.runner import Check, run_steps
from dcs_proxy.local.environment import full_path
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.openssh.config_file import DEFAULT_PATH

HELP = "check everything and suggest fixes"
DESCRIPTION = (
    "Check everything from the API key to the ssh config and, with HOST, every step of a login to "
    "that machine. Each failed check comes with a fix. The exit code is 0 if no check failed, "
    "otherwise 1."
)
EXAMPLES = (
    ("Try to log in to a machine, waking it", "dcs-proxy doctor dm-foo"),
    ("Write what a bug report needs", "dcs-proxy doctor --bundle report.txt"),
)

_MARKS = {"ok": "✓", "failed": "✗", "skipped": "-"}
_PLAIN_MARKS = {"ok": "ok  ", "failed": "FAIL", "skipped": "-   "}
_WIDTH = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="also log in to this machine, waking it"
    )
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object")
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write what a bug report needs, secrets masked"
    )
    parser.add_argument(
        "--ssh-config", metavar="FILE", help="the user's ssh config (default: ~/.ssh/config)"
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Run the checks and print them; return 1 if any failed.  Raises UsageError, StateError."""
    if arguments.bundle is not None:
        check_bundle_path(arguments.bundle)
    chosen = arguments.ssh_config
    context = Context(
        options=options,
        environment=os.environ,
        ssh_config=full_path(chosen or DEFAULT_PATH),
        is_default_config=chosen is None,
        host=arguments.host,
    )
    checks: list[Check] = []
    marks = _PLAIN_MARKS if _is_plain(os.environ) else _MARKS
    for found in run_steps(steps_for(arguments.host), context, context.log):
        # Text from a server or from the user's config may contain the key.
        secrets = context.secrets()
        check = replace(found, text=mask(found.text, secrets), hint=mask(found.hint, secrets))
        checks.append(check)
        if not arguments.json:
            put(*_lines(check, marks))
    has_failed = any(check.ok is False for check in checks)
    if arguments.json:
        put_json(_document(checks, is_ok=not has_failed))
    failed = ",".join(check.name for check in checks if check.ok is False)
    context.log.event(
        "doctor", machine=arguments.host, failed=failed or None, ms=milliseconds_since()
    )
    if arguments.bundle is not None:
        write_bundle(arguments.bundle, context, checks)
        show(f"dcs-proxy: wrote {arguments.bundle}; read it before you send it")
    return int(has_failed)


def _lines(check: Check, marks: Mapping[str, str]) -> list[str]:
    mark = marks[check.status]
    text = f"{mark} {check.name:<{_WIDTH}} {check.text}{_took(check.seconds)}"
    lines = wrap(text, indent=len(mark) + _WIDTH + 2)
    if check.hint:
        # Not wrapped, because it is often a command to copy.
        lines.append(f"{' ' * len(mark)} {'':<{_WIDTH}} hint: {check.hint}")
    return lines


def _took(seconds: float) -> str:
    if seconds >= 1:
        return f" ({seconds:.1f} s)"
    return f" ({seconds * 1000:.0f} ms)" if seconds >= 0.001 else ""


def _document(checks: list[Check], *, is_ok: bool) -> dict[str, object]:
    """Return the documented JSON object."""
    return {
        "ok": is_ok,
        "version": __version__,
        "checks": [
            {
                "name": check.name,
                "status": check.status,
                "text": check.text,
                "hint": check.hint,
                "seconds": round(check.seconds, 3),
            }
            for check in checks
        ],
    }


def _is_plain(environment: Mapping[str, str]) -> bool:
    """Return whether the terminal cannot show the marks.

    stdout's encoding is not enough: Python uses UTF-8 even in the C locale.
    """
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    encodings = (locale, getattr(sys.stdout, "encoding", "") or "")
    return not all("utf8" in name.lower().replace("-", "") for name in encodings)
