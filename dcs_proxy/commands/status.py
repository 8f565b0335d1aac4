"""``dcs-proxy status``: sessions, agent, files and settings on this computer, without the network.

``--json`` prints an object with these keys:

``sessions``
   an array of objects, by machine: ``machine``, ``short_name``, ``aliases``, ``base_url``,
   ``session_id``, ``status`` (``waking``, ``ready`` or ``ended``), ``endpoint``, ``port``,
   ``ssh_username``, ``expires_at``, ``seconds_left``, ``certificate`` (``principals``,
   ``valid_from``, ``valid_to``), ``identity_held``, ``proved_at``; unknown values are null, times
   are RFC 3339
``agent``
   ``kind`` (``private`` or ``user``), ``place`` (the directory of the sockets, or the one socket),
   ``sockets`` (those on which an agent answers), ``identities`` (a number, or null with the reason
   in ``problem``)
``base_url``, ``config_file``, ``config_file_exists``, ``state_directory``, ``log``
   what is in use
``api_key_source``
   where the API key comes from, or null with the reason in ``api_key_problem``; never the key
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from dcs_proxy.api.fields import parse_time
from dcs_proxy.app import ApiFactory, Options, open_factory
from dcs_proxy.console.format import in_words
from dcs_proxy.console.stdout import columns, put, put_json
from dcs_proxy.errors import CredentialsError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings, config_path
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lookup import find_locally
from dcs_proxy.session.report import Agents, AgentStatus, CertificateStatus, SessionStatus, sessions
from dcs_proxy.ssh.private_agents import PrivateAgents

HELP = "show sessions, certificates and agents"
DESCRIPTION = (
    "Show each session with its certificate and the time left, the agent, the files, and where "
    "the API key comes from (never the key itself). Does not use the network."
)
EXAMPLES = (("For a program", "dcs-proxy status --json"),)

# A keyring that does not answer in time is shown as waiting to be unlocked.
_KEYRING_S = 5.0


@dataclass(frozen=True)
class Status:
    """Everything that the command shows; the field names are the keys of ``--json``."""

    sessions: list[SessionStatus]
    agent: AgentStatus
    base_url: str
    api_key_source: str | None
    api_key_problem: str
    config_file: str
    config_file_exists: bool
    state_directory: str
    log: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "hosts", metavar="HOST", nargs="*", help="only the sessions of these machines"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the status.  Raises ConfigError, StateError or UsageError."""
    now = time.time()
    status = collect(options, os.environ, now, arguments.hosts)
    if arguments.json:
        put_json(asdict(status))
    else:
        put(*render(status, now))
    return 0


def collect(
    options: Options, environment: Mapping[str, str], now: float, hosts: Sequence[str] = ()
) -> Status:
    """Return the status, with only the sessions of the machines `hosts` if there are any."""
    settings = options.settings(environment)
    state = StateDirectory(options.state_directory(environment), create=False)
    agents = Agents()
    factory = open_factory(options, environment, settings)
    source, problem = _key_source(factory)
    seen = factory.known.load()
    found = sessions(state, settings, seen, agents, now)
    if hosts:
        names = state.machines()
        wanted = {find_locally(host, settings, names, seen) for host in hosts}
        found = [session for session in found if session.machine in wanted]
    config_file = options.config_file(environment) or config_path(environment)
    return Status(
        sessions=found,
        agent=_agent_status(settings, environment, state, agents),
        base_url=settings.base_url,
        api_key_source=source,
        api_key_problem=problem,
        config_file=config_file,
        config_file_exists=os.path.exists(config_file),
        state_directory=state.path,
        log=factory.log.path,
    )


def render(status: Status, now: float) -> list[str]:
    """Return the lines that a person reads."""
    lines = [] if status.sessions else ["no sessions"]
    for session in status.sessions:
        lines += _render_session(session, status, now)
    agent = status.agent
    missing = "" if status.config_file_exists else " (does not exist)"
    rows = [
        ("agent", f"{agent.kind}, {agent.place or 'none'}: {_held(agent)}"),
        ("API", status.base_url),
        ("API key", status.api_key_source or f"none: {status.api_key_problem}"),
        ("config file", f"{status.config_file}{missing}"),
        ("state directory", status.state_directory),
        ("log", status.log),
    ]
    return [*lines, "", *columns(rows)]


def _render_session(session: SessionStatus, status: Status, now: float) -> list[str]:
    others = [name for name in (session.short_name, *session.aliases) if name != session.machine]
    aliases = f" ({', '.join(others)})" if others else ""
    left = "" if session.status == "ended" else f", {in_words(session.seconds_left)} left"
    rows = [("session", f"{session.session_id or 'requested'}, {session.status}{left}")]
    if session.base_url != status.base_url:
        rows.append(("API", session.base_url or "unknown"))
    if session.ssh_username is not None:
        rows.append(("login", f"{session.ssh_username} at {session.endpoint} port {session.port}"))
    if session.certificate is not None:
        rows.append(("certificate", _render_certificate(session.certificate)))
    held = {
        True: "in the agent",
        False: "not in the agent",
        None: "the agent does not answer",
    }
    rows.append(("identity", held[session.identity_held]))
    if session.status != "waking":
        proved = parse_time(session.proved_at or "")
        ago = "not yet" if proved is None else f"{in_words(now - proved.timestamp())} ago"
        rows.append(("last confirmed", ago))
    return [f"{session.machine}{aliases}", *(f"  {line}" for line in columns(rows))]


def _render_certificate(certificate: CertificateStatus) -> str:
    begin, end = certificate.valid_from, certificate.valid_to
    until = f"to {_clock(end)} UTC" if end else "UTC, no end"
    return f"{', '.join(certificate.principals)}, valid {_clock(begin)} {until}"


def _clock(moment: str) -> str:
    """Return an RFC 3339 time of ours without its zone, to the second."""
    return moment.partition(".")[0].replace("T", " ")


def _agent_status(
    settings: Settings, environment: Mapping[str, str], state: StateDirectory, agents: Agents
) -> AgentStatus:
    if settings.agent == "user":
        path = environment.get("SSH_AUTH_SOCK", "")
        return agents.status("user", path, [path] if path else [])
    private = PrivateAgents(state.path, create=False)
    return agents.status("private", private.place, private.paths())


def _key_source(factory: ApiFactory) -> tuple[str | None, str]:
    """Return where the API key comes from, or why there is none."""
    try:
        return factory.find_credentials(Deadline(_KEYRING_S)).source, ""
    except CredentialsError as error:
        return None, error.message


def _held(agent: AgentStatus) -> str:
    count = agent.identities
    if count is None:
        return agent.problem
    identities = f"{count} identit{'y' if count == 1 else 'ies'}"
    several = f" in {len(agent.sockets)} agents" if len(agent.sockets) > 1 else ""
    return f"{identities}{several}"
