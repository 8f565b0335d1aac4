"""Checks of the way to the API: settings, key, network, clock."""

from __future__ import annotations

import os

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import ApiFactory
from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.redact import mask_urls
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import ApiUnavailable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import config_path

PROXY_VARIABLES = (
    "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy",
    "NO_PROXY", "no_proxy",
)  # fmt: skip
_API_S = 20.0


def check_settings(exam: Context) -> Check:
    """The config file and the environment."""
    exam.settings = exam.options.settings(exam.environment)
    path = exam.options.config or config_path(exam.environment)
    where = path if os.path.exists(path) else f"defaults, there is no {path}"
    return passed(f"{where}; API {exam.settings.base_url}, agent {exam.settings.agent}")


def check_key(exam: Context) -> Check:
    """The API key, wherever it is kept; it is never shown."""
    settings = required(exam.settings)
    factory = ApiFactory(settings, exam.environment, exam.log)
    exam.credentials = factory.find_credentials(Deadline(_API_S))
    return passed(f"found: {exam.credentials.source}")


def check_api(exam: Context) -> Check:
    """Whether the API answers at all; without a key it is expected to refuse."""
    settings = required(exam.settings)
    credentials = exam.credentials or Credentials(None, None, "", "")
    factory = ApiFactory(settings, exam.environment, exam.log, lambda _: None, credentials)
    try:
        exam.answer = factory.open(Deadline(_API_S)).probe()
    except ApiUnavailable as error:
        return failed(error.summary() + _proxies(exam), error.hint)
    return passed(f"{settings.base_url} answers{_proxies(exam)}")


def check_access(exam: Context) -> Check:
    """Whether the API accepts the key."""
    answer = required(exam.answer)
    if answer.refusal is not None:
        return failed(answer.refusal.summary(), answer.refusal.hint)
    if not answer.has_list:
        return passed("not refused; this API has no list of machines to ask for")
    organisation = required(exam.settings).org_id
    return passed("the key is accepted" + (f" for {organisation}" if organisation else ""))


def check_clock(exam: Context) -> Check:
    """Whether this computer's clock agrees with the API's: certificates are judged by it."""
    ahead_s = required(exam.answer).clock_ahead_s
    if not ahead_s:
        return passed("agrees with the API's")
    how = "behind" if ahead_s > 0 else "ahead of"
    return failed(
        f"{abs(ahead_s):.0f} s {how} the API's, and ssh checks the gateway's certificate by it",
        "set it, for example: sudo timedatectl set-ntp true",
    )


def _proxies(exam: Context) -> str:
    """Return the proxy variables that are set, without passwords."""
    values = [(name, exam.environment.get(name)) for name in PROXY_VARIABLES]
    shown = [f"{name}={mask_urls(value)}" for name, value in values if value]
    if not shown:
        return ""
    unused = ", not used for this computer" if required(exam.settings).is_loopback else ""
    return f" ({', '.join(shown)}{unused})"
