"""Run the emulator: start its parts, print one JSON line when it is ready, stop on a signal."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcs_proxy.console.stdout import put
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.emulator.broken import BrokenGateway
from dcs_proxy.emulator.control_plane import ControlPlaneServer
from dcs_proxy.emulator.describe import Describer
from dcs_proxy.emulator.faults import STAGES, Fault, Faults
from dcs_proxy.emulator.gateway import KEY_FAULTS, Gateway
from dcs_proxy.emulator.ids import Ids
from dcs_proxy.emulator.journal import Journal
from dcs_proxy.emulator.loopback import closed_port, listen
from dcs_proxy.emulator.machines import Service
from dcs_proxy.emulator.routes import Routes
from dcs_proxy.emulator.tls import make_context


@dataclass(frozen=True)
class EmulatorOptions:
    """The options of ``dcs-proxy emulator``, which its --help explains."""

    ids: str
    machines: Sequence[tuple[str, str]]
    faults: Sequence[Fault]
    wake_seconds: float
    session_seconds: float
    autosleep_seconds: float
    login: str | None
    endpoint: str
    gateway: tuple[str, int] | None
    ca_directory: str | None
    home: str | None
    api_key: str | None
    org_id: str
    post_only: bool
    without: frozenset[str]
    rate_limit: float | None
    journal: str | None
    port: int
    tls: str | None
    tls_name: str


def serve(options: EmulatorOptions) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP.  Raises OSError if a port is taken, ConfigError."""
    asyncio.run(_serve(options))


async def _serve(options: EmulatorOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    homes = options.home or tempfile.mkdtemp(prefix="dcs-emulator.")
    try:
        await _run(options, homes, stop)
    finally:
        if options.home is None:
            shutil.rmtree(homes, ignore_errors=True)


async def _run(options: EmulatorOptions, homes: str, stop: asyncio.Event) -> None:
    service = Service(
        options.wake_seconds, options.session_seconds, options.autosleep_seconds, options.login,
        Ids(options.ids),
    )  # fmt: skip
    for name, phase in options.machines:
        service.add(name, phase)
    faults = Faults(options.faults)
    authorities = Authorities(options.ca_directory)
    journal = Journal(options.journal)
    endpoint, port = options.gateway or (options.endpoint, 0)
    gateway = Gateway(service, authorities, faults, journal, endpoint=endpoint, homes=homes)
    broken: list[BrokenGateway] = []
    ports = {"": port or await _open_gateway(gateway)}
    for kind in (kind for kind, stage in STAGES.items() if stage == "gateway"):
        ports[kind] = await _open_faulty(gateway, kind, broken)
    describer = Describer(service, authorities, faults, endpoint, ports, options.without)
    routes = Routes(
        service, describer, faults, post_only=options.post_only, rate_limit=options.rate_limit
    )
    key = options.api_key or f"dsk-{secrets.token_urlsafe(24)}"
    plane = ControlPlaneServer(
        listen(options.port), routes, faults, journal, key=key, org_id=options.org_id,
        tls=None if options.tls is None else make_context(options.tls, options.tls_name),
    )  # fmt: skip
    plane.start()
    try:
        _print_ready(plane, key, endpoint, ports[""], authorities, service)
        await stop.wait()
    finally:
        await asyncio.to_thread(plane.stop)
        await gateway.stop()
        for listener in broken:
            listener.stop()


async def _open_gateway(gateway: Gateway, fault: str = "") -> int:
    """Start the gateway on a free port, with a `fault` of its host key; return the port."""
    sockets = listen(0)
    await gateway.start(sockets, fault)
    return int(sockets[0].getsockname()[1])


async def _open_faulty(gateway: Gateway, kind: str, broken: list[BrokenGateway]) -> int:
    """Start a gateway with a fault of stage "gateway"; return its port."""
    if kind in KEY_FAULTS:
        return await _open_gateway(gateway, kind)
    if kind == "gateway-refuses":
        return closed_port()
    sockets = listen(0)
    listener = BrokenGateway(resets=kind == "gateway-resets")
    await listener.start(sockets)
    broken.append(listener)
    return int(sockets[0].getsockname()[1])


def _print_ready(
    plane: ControlPlaneServer,
    key: str,
    endpoint: str,
    port: int,
    authorities: Authorities,
    service: Service,
) -> None:
    ready: dict[str, Any] = {
        "api": plane.url,
        "key": key,
        "gateway": port,
        "endpoint": endpoint,
        "host_ca": public_line(authorities.host_ca),
        "user_ca": public_line(authorities.user_ca),
        "machines": {machine.name: each for each, machine in service.machines.items()},
    }
    put(json.dumps(ready))
    # Nothing else is printed, so a program that reads until end of file can continue.
    sys.stdout.close()
