"""``dcs-proxy emulator``: run a local control plane and SSH gateway.

It needs the extra ``emulator``, whose packages are imported only when the command runs.
"""

from __future__ import annotations

import argparse
import os

from dcs_proxy.api.credentials import check_key
from dcs_proxy.app import Options
from dcs_proxy.console.stdout import put
from dcs_proxy.errors import ConfigError, DcsError, UsageError
from dcs_proxy.local.trusted_file import read_trusted
from dcs_proxy.text import clean_text

HELP = "run a local API and gateway, for tests"
DESCRIPTION = (
    "Run a local API and SSH gateway on loopback, for tests and experiments, until a signal ends "
    "it (needs the Python package asyncssh). The first line of output is a JSON object with "
    "api (for DEDALUS_BASE_URL), key (for DEDALUS_API_KEY) and machines (their ids). Remote "
    "commands run on this computer, as the current user. A FAULT is KIND[:ARGUMENT][/METHOD]"
    "[@COUNT][~SHARE] with a KIND that --list-faults names; it strikes only requests with METHOD, "
    "only COUNT times, and only a SHARE (0 to 1) of them."
)
EXAMPLES = (
    ("A machine that takes five seconds to wake",
     "dcs-proxy emulator --machine dm-demo:sleeping --wake-seconds 5"),
    ("An API that answers 503 to the first three requests for a session",
     "dcs-proxy emulator --fault dm-demo=503/POST@3"),
)  # fmt: skip

_DEFAULT_MACHINE = "dm-demo:sleeping"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "dcs-proxy emulator [OPTION ...]"
    add = parser.add_argument
    add("--machine", metavar="NAME[:PHASE]", action="append", dest="machines",
        help="add a machine, running unless a phase is given; may be repeated (default: "
        f"{_DEFAULT_MACHINE})")  # fmt: skip
    add("--ids", choices=("dm", "uuid"), default="dm",
        help="machine ids as in the API contract (dm-NAME), or bare UUIDs as the service has "
        "used since September 2026; NAME then stands for a made-up UUID "
        "(default: %(default)s)")  # fmt: skip
    add("--wake-seconds", metavar="S", type=_seconds, default=2.0,
        help="how long a machine takes to wake (default: %(default)g)")  # fmt: skip
    add("--session-seconds", metavar="S", type=_seconds, default=3600.0,
        help="how long a session lasts (default: %(default)g)")  # fmt: skip
    add("--autosleep-seconds", metavar="S", type=_seconds, default=300.0,
        help="how long an idle machine stays awake (default: %(default)g)")  # fmt: skip
    add("--login", metavar="session|NAME", default="session",
        help="login name: a different one in each session, or NAME (default: session)")  # fmt: skip
    add("--endpoint", metavar="NAME", default="localhost",
        help="the gateway's host name, also in its certificate (default: localhost)")  # fmt: skip
    add("--gateway", metavar="HOST:PORT", type=_address,
        help="let sessions use another SSH server instead of the emulator's gateway")  # fmt: skip
    add("--ca-directory", metavar="DIR",
        help="where the authorities' keys are stored (user_ca, host_ca and .pub)")  # fmt: skip
    add("--home", metavar="DIR", dest="homes",
        help="where the machines' home directories are (default: temporary)")  # fmt: skip
    add("--api-key-file", metavar="FILE",
        help="a file, mode 0600, with the API key to accept (default: a new key); whoever has the "
        "key gets a shell as the user who runs the emulator")  # fmt: skip
    add("--org-id", metavar="ID", default="",
        help="the organisation that the API key belongs to (default: any)")  # fmt: skip
    add("--port", metavar="PORT", type=int, default=0, help="the API's port (default: a free one)")
    add("--tls", metavar="FILE",
        help="serve HTTPS, with a new certificate that is written to FILE")  # fmt: skip
    add("--tls-name", metavar="NAME", default="localhost",
        help="the API's name in that certificate (default: localhost)")  # fmt: skip
    add("--post-only", action="store_true",
        help="accept only the POST that creates sessions, as some deployments do")  # fmt: skip
    add("--without", metavar="PART", action="append", default=[],
        choices=("certificate", "host-trust"),
        help="leave certificate or host-trust out of sessions; may be repeated")  # fmt: skip
    add("--rate-limit", metavar="N", type=_seconds,
        help="answer 429 to more than N changes a second")  # fmt: skip
    add("--journal", metavar="FILE", help="append each event to FILE, as one JSON object per line")
    add("--fault", metavar="NAME=FAULT", action="append", default=[], dest="faults",
        help="show a fault of the machine NAME, or of all with *; may be repeated")  # fmt: skip
    add("--list-faults", action="store_true", help="list the kinds of faults and exit")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Serve until a signal.  Raises UsageError, or ConfigError without the extra."""
    try:
        from dcs_proxy.emulator import serve
        from dcs_proxy.emulator.faults import describe_faults, parse_fault
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the emulator needs the Python package {error.name}",
            hint=f"pipx inject dcs-proxy {error.name}, or add it with pip or uv",
        ) from None
    if arguments.list_faults:
        put(*describe_faults())
        return 0
    machines = [_machine(text, arguments.ids) for text in arguments.machines or [_DEFAULT_MACHINE]]
    try:
        serve.serve(
            serve.EmulatorOptions(
                ids=arguments.ids,
                machines=machines,
                faults=[parse_fault(text) for text in arguments.faults],
                wake_seconds=arguments.wake_seconds,
                session_seconds=arguments.session_seconds,
                autosleep_seconds=arguments.autosleep_seconds,
                login=None if arguments.login == "session" else arguments.login,
                endpoint=arguments.endpoint,
                gateway=arguments.gateway,
                ca_directory=arguments.ca_directory,
                home=arguments.homes,
                api_key=_read_key(arguments.api_key_file),
                org_id=arguments.org_id,
                post_only=arguments.post_only,
                without=frozenset(arguments.without),
                rate_limit=arguments.rate_limit,
                journal=arguments.journal,
                port=arguments.port,
                tls=arguments.tls,
                tls_name=arguments.tls_name,
            )
        )
    except OSError as error:
        raise DcsError(f"the emulator cannot start: {clean_text(str(error))}") from None
    return 0


def _read_key(path: str | None) -> str | None:
    """Return the key in a file; None if there is no path.  Raises ConfigError.

    There is no option for the key itself: every user of a computer can read its command lines.
    """
    if path is None:
        return None
    file = read_trusted(os.path.abspath(path), "the API key file", ConfigError)
    if file is None:
        raise ConfigError(f"the API key file {path} does not exist")
    if not file.is_private:
        raise ConfigError(f"the API key file {path} is readable by other users", hint=file.hint)
    return check_key(file.data.decode("latin-1"), path)


def _machine(text: str, ids: str) -> tuple[str, str]:
    from dcs_proxy.emulator.ids import Ids
    from dcs_proxy.emulator.machines import PHASES

    name, _, phase = text.partition(":")
    phase = phase or "running"
    if Ids(ids).machine_id(name) is None or phase not in PHASES:
        or_uuid = " or a UUID" if ids == "uuid" else ""
        raise UsageError(
            f"{clean_text(text)} is not NAME[:PHASE]",
            hint=f"NAME is dm-...{or_uuid}; PHASE is one of: {', '.join(PHASES)}",
        )
    return name, phase


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{clean_text(text)} is not a number of at least 0")
    return value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{clean_text(text)} is not HOST:PORT")
    return host, int(port)
