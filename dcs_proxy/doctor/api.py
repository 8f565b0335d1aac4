"""Checks of the API: settings, key, network, access, clock."""

from __future__ import annotations

import os
from dataclasses import replace

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.network import find_network
from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.redact import mask_url
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import ApiUnavailable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings, config_path

PROXY_VARIABLES = (
    "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy",
    "NO_PROXY", "no_proxy",
)  # fmt: skip
_API_S = 20.0


def check_settings(context: Context) -> Check:
    """Check the config file and the environment."""
    context.settings = context.options.settings(context.environment)
    path = context.options.config or config_path(context.environment)
    where = path if os.path.exists(path) else f"defaults ({path} does not exist)"
    return passed(f"{where}; API {context.settings.base_url}, agent {context.settings.agent}")


def check_key(context: Context) -> Check:
    """Check that there is an API key, wherever it is stored; it is never shown."""
    context.credentials = context.open_factory().find_credentials(Deadline(_API_S))
    source = context.credentials.source
    only_here = "; editors may not have this variable: dcs-proxy login stores the key for them"
    return passed(f"found: {source}{only_here if source.startswith('DEDALUS_') else ''}")


def check_api(context: Context) -> Check:
    """Check that the API answers, even if it rejects the key."""
    settings = required(context.settings)
    credentials = context.credentials or Credentials(None, None, "", "")
    factory = replace(context.open_factory(), credentials=credentials, notice=lambda _: None)
    try:
        context.probe = factory.open(Deadline(_API_S)).probe()
    except ApiUnavailable as error:
        return failed(error.summary() + _proxies(context), error.hint)
    return passed(f"{settings.base_url} answers{_proxies(context)}{_only_here(settings)}")


def check_access(context: Context) -> Check:
    """Check that the API accepts the key."""
    probe = required(context.probe)
    if probe.refusal is not None:
        return failed(probe.refusal.summary(), probe.refusal.hint)
    if not probe.has_list:
        return passed("unknown: this API has no list of machines to check the key with")
    organisation = required(context.settings).org_id
    return passed("the key is accepted" + (f" for {organisation}" if organisation else ""))


def check_clock(context: Context) -> Check:
    """Check this computer's clock against the API's: certificates are valid by the clock."""
    ahead_s = required(context.probe).clock_ahead_s
    if not ahead_s:
        return passed("agrees with the API's")
    how = "behind" if ahead_s > 0 else "ahead of"
    return failed(
        f"{abs(ahead_s):.0f} s {how} the API's, and ssh checks the gateway's certificate by it",
        "set the clock, for example: sudo timedatectl set-ntp true",
    )


def _only_here(settings: Settings) -> str:
    """Return which settings to add for editors, which may not have our environment."""
    network = find_network(settings)
    sources = (("proxy", network.proxy_source), ("ca_file", network.ca_source))
    keys = [key for key, source in sources if source in os.environ]
    if settings.is_loopback or not keys:
        return ""
    return f"; editors may not have these variables, so set {' and '.join(keys)}"


def _proxies(context: Context) -> str:
    """Return the proxy variables that are set, with passwords masked."""
    values = [(name, context.environment.get(name)) for name in PROXY_VARIABLES]
    shown = [f"{name}={mask_url(value)}" for name, value in values if value]
    if not shown:
        return ""
    unused = ", not used for loopback" if required(context.settings).is_loopback else ""
    return f" ({', '.join(shown)}{unused})"
