"""Write a text file with the details that a bug report needs, secrets masked."""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields

from dcs_proxy import __version__
from dcs_proxy.api.network import CA_VARIABLES
from dcs_proxy.app import internal_error
from dcs_proxy.doctor.api import PROXY_VARIABLES
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.redact import mask, mask_url
from dcs_proxy.doctor.runner import Check
from dcs_proxy.errors import AgentRefused, AgentUnavailable, DcsError, StateError, UsageError
from dcs_proxy.local.files import cannot_write, read_small
from dcs_proxy.local.log_reader import read_log
from dcs_proxy.local.programs import SECRET_VARIABLES
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE
from dcs_proxy.session.records import parse_record
from dcs_proxy.ssh.agent import LIST_S, Agent
from dcs_proxy.ssh.private_agents import PrivateAgents
from dcs_proxy.text import MASK, safe_line

_LOG_LINES = 500
_VARIABLES = (
    "DEDALUS_BASE_URL", "DEDALUS_ORG_ID", "DCS_PROXY_HOME", "DCS_PROXY_CONFIG", "DCS_PROXY_LOG",
    "DCS_PROXY_KEY_FILE",
    *PROXY_VARIABLES, *CA_VARIABLES, "SSL_CERT_FILE", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR", "HOME", "PATH", "LANG", "LC_ALL", "TERM",
)  # fmt: skip
_URLS = ("DEDALUS_BASE_URL", *PROXY_VARIABLES)
# Options whose values may be secrets of the user's.
_PRIVATE_OPTIONS = frozenset(
    {"setenv", "localcommand", "remotecommand", "knownhostscommand", "pkcs11provider"}
)


def check_bundle_path(path: str) -> None:
    """Raise UsageError if the file exists, so that no file of the user's is overwritten."""
    if os.path.lexists(path):
        raise UsageError(f"{path} already exists", hint="choose another name")


def write_bundle(path: str, context: Context, checks: Sequence[Check]) -> None:
    """Write the file, 0600.  Raises UsageError if it exists, StateError if it cannot be written."""
    text = mask(render_bundle(context, checks), context.secrets())
    text = "".join(f"{safe_line(line)}\n" for line in text.splitlines())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8", "replace"))
    except FileExistsError:
        check_bundle_path(path)
    except OSError as error:
        raise cannot_write(path, error) from None


def render_bundle(context: Context, checks: Sequence[Check]) -> str:
    """Return the file's text, with nothing masked yet."""
    parts: list[tuple[str, Callable[[], Iterable[str]]]] = [
        ("versions", lambda: _versions(context)),
        ("checks", lambda: _checks(checks)),
        ("environment", lambda: _environment(context)),
        ("settings", lambda: _settings(context)),
        ("sessions", lambda: _sessions(context)),
        ("agent", lambda: _agent(context)),
        ("block", lambda: _block(context)),
        ("ssh -G", lambda: _options(context)),
        ("log", lambda: deque(read_log(context.log.path), _LOG_LINES)),
    ]
    lines = ["dcs-proxy doctor --bundle: secrets are masked; read it before you send it"]
    for title, part in parts:
        lines += ["", f"== {title} =="]
        try:
            lines += part()
        except DcsError as error:
            lines.append(error.one_line())
        except Exception as error:  # the other parts are still useful
            lines.append(internal_error(error, context.log).one_line())
    return "".join(f"{line}\n" for line in lines)


def _versions(context: Context) -> Iterator[str]:
    yield f"dcs-proxy {__version__}"
    yield f"Python {platform.python_version()}, {platform.platform()}"
    if context.ssh is not None:
        yield context.ssh.text


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    for check in checks:
        yield f"{check.status:7} {check.name}: {check.text} ({check.seconds:.3f} s)"
        if check.hint:
            yield f"        hint: {check.hint}"


def _environment(context: Context) -> Iterator[str]:
    for name in SECRET_VARIABLES:
        yield f"{name} {'set' if context.environment.get(name) else 'not set'}"
    for name in _VARIABLES:
        if name in context.environment:
            # Masked before repr, which would escape some characters of a secret.
            value = context.environment[name]
            value = mask_url(value) if name in _URLS else mask(value, context.secrets())
            yield f"{name}={value!r}"


def _settings(context: Context) -> Iterator[str]:
    if context.settings is not None:
        for field in fields(context.settings):
            yield f"{field.name} = {getattr(context.settings, field.name)!r}"


def _sessions(context: Context) -> Iterator[str]:
    if context.state is None:
        return
    for entry in sorted(os.scandir(context.state.file("sessions")), key=lambda e: e.name):
        data = read_small(entry.path) if entry.name.endswith(".json") else None
        record = None if data is None else parse_record(data)
        if record is not None:
            ready = record.ready
            where = f"{ready.ssh_username}@{ready.endpoint}:{ready.port}" if ready else "not ready"
            yield f"{entry.name} {record.attempt.session_id} {where} until {record.ends_at():.0f}"


def _agent(context: Context) -> Iterator[str]:
    if context.state is None:
        return
    for path in PrivateAgents(context.state.path, create=False).paths():
        name = os.path.basename(path)
        try:
            for identity in Agent(path, timeout_s=LIST_S).identities():
                yield f"{name}: {len(identity.blob)} bytes, {identity.comment}"
        except (AgentRefused, AgentUnavailable) as error:
            yield f"{name}: {error.message}"


def _block(context: Context) -> Iterator[str]:
    parts = config_file.read_blocks(context.ssh_config)
    for part in (parts.top, parts.end):
        yield from (part or b"(none)").decode("utf-8", "replace").splitlines()


def _options(context: Context) -> Iterator[str]:
    if context.ssh is None:
        raise StateError("ssh cannot be run", hint="install the OpenSSH client")
    options, errors = context.read_options(context.host or NO_MACHINE)
    yield from errors.splitlines()
    for option, values in options.items():
        for value in values:
            yield f"{option} {_shown(context, option, value)}"


def _shown(context: Context, option: str, value: str) -> str:
    """Return an option's value, masked if it may be a secret."""
    if option in _PRIVATE_OPTIONS:
        return MASK
    if (
        option == "proxycommand"
        and context.options.state_directory(context.environment) not in value
    ):
        return f"{value.split()[0]} {MASK}"
    return value
