"""The checks of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api import network
from dcs_proxy.api.client import Probe
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.network import CA_VARIABLES
from dcs_proxy.app import ApiFactory, Options
from dcs_proxy.doctor.api import check_access, check_api, check_clock, check_key, check_settings
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import failed, passed
from dcs_proxy.errors import ApiUnavailable, CredentialsError, DcsError
from dcs_proxy.local.http_proxy import parse_http_proxy
from dcs_proxy.local.settings import Settings


def context(directory: Path, probe: Probe, org_id: str = "") -> Context:
    made = Context(Options(str(directory)), {}, str(directory / "config"), True, None)
    made.settings, made.probe = Settings(org_id=org_id), probe
    return made


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(0.0, "agrees with the API's"), (90.0, "90 s behind the API's"),
     (-7200.0, "7200 s ahead of the API's")],
)  # fmt: skip
def test_the_clock_is_named_from_this_computers_side(
    tmp_path: Path, ahead_s: float, said: str
) -> None:
    check = check_clock(context(tmp_path, Probe(None, True, ahead_s)))
    assert check.ok is (ahead_s == 0) and check.text.startswith(said)


@pytest.mark.parametrize(
    ("probe", "org_id", "is_ok", "said"),
    [
        (Probe(None, True, 0.0), "", True, "the key is accepted"),
        (Probe(None, True, 0.0), "org-1", True, "the key is accepted for org-1"),
        (Probe(None, False, 0.0), "", True, "unknown: this API has no list of machines"),
        (Probe(CredentialsError("wrong", hint="log in"), True, 0.0), "", False, "wrong"),
    ],
)
def test_access_is_what_the_probe_has_found(
    tmp_path: Path, probe: Probe, org_id: str, is_ok: bool, said: str
) -> None:
    check = check_access(context(tmp_path, probe, org_id))
    assert check.ok is is_ok and check.text.removeprefix(said) in ("", " to check the key with")
    assert check.hint == ("" if is_ok else "log in")


def fresh(directory: Path, environment: dict[str, str] | None = None, **settings: Any) -> Context:
    """A context whose settings have been checked."""
    made = Context(Options(str(directory)), environment or {}, "/c", True, None)
    made.settings = Settings(**settings)
    return made


@pytest.mark.parametrize(("option", "variable"), [(True, False), (False, True), (True, True)])
def test_the_config_file_in_use_is_named(tmp_path: Path, option: bool, variable: bool) -> None:
    own, named = tmp_path / "own.toml", tmp_path / "named.toml"
    own.write_text('agent = "user"\nbase_url = "https://own.example"\n')
    named.write_text('base_url = "https://named.example"\n')
    made = Context(
        Options(str(tmp_path), str(own) if option else None),
        {"DCS_PROXY_CONFIG": str(named)} if variable else {}, "/c", True, None,
    )  # fmt: skip
    assert check_settings(made) == passed(
        f"{own}; API https://own.example, agent user" if option
        else f"{named}; API https://named.example, agent private"
    )  # fmt: skip
    assert made.settings is not None
    assert made.settings.base_url.startswith("https://own." if option else "https://named.")


def test_without_a_config_file_there_are_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Context(Options(str(tmp_path)), {}, "/c", True, None)
    path = f"{tmp_path}/.config/dcs-proxy/config.toml"
    assert check_settings(made) == passed(
        f"defaults ({path} does not exist); API {Settings().base_url}, agent private"
    )


@pytest.mark.parametrize("source", ["DEDALUS_API_KEY", "/home/me/key"])
def test_a_key_that_editors_may_lack_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    limits: list[float] = []
    found = Credentials("dsk-key", None, source)
    monkeypatch.setattr(ApiFactory, "find_credentials", lambda self, deadline: (
        limits.append(deadline.seconds) or found))  # fmt: skip
    made = fresh(tmp_path)
    more = "; editors may not have this variable: dcs-proxy login stores the key for them"
    assert check_key(made) == passed(
        f"found: {source}{more if source == 'DEDALUS_API_KEY' else ''}"
    )
    assert (made.credentials, limits) == (found, [20])


VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy",
             "NO_PROXY", "no_proxy")  # fmt: skip


class Api:
    def __init__(self, outcome: Probe | DcsError) -> None:
        self.outcome = outcome

    def probe(self) -> Probe:
        if isinstance(self.outcome, DcsError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The factories that opened an API, and the time limits; the API is `opened[0]`."""
    found: list[Any] = [Api(Probe(None, True, 0.0))]
    for name in (*VARIABLES, *CA_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ApiFactory, "open", lambda self, deadline: (
        found.append((self, deadline.seconds)) or found[0]))  # fmt: skip
    return found


def test_the_api_is_asked_with_the_key_if_there_is_one(tmp_path: Path, opened: list[Any]) -> None:
    key = Credentials("dsk-key", None, "a test")
    for credentials, sent in ((key, key), (None, Credentials(None, None, "", ""))):
        made = fresh(tmp_path, base_url="https://a.example")
        made.credentials = credentials
        assert check_api(made) == passed("https://a.example answers")
        assert made.probe is opened[0].outcome
        factory, limit_s = opened.pop()
        assert (factory.credentials, limit_s) == (sent, 20)


def test_what_happens_meanwhile_is_not_shown(
    tmp_path: Path, opened: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    check_api(fresh(tmp_path))
    opened[-1][0].notice("the API is limiting requests")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("url", ["https://a.example", "http://127.0.0.1:1"])
@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("empty", ["ALL_PROXY", "HTTP_PROXY"])
def test_proxies_are_named_without_their_passwords(
    tmp_path: Path, opened: list[Any], url: str, is_up: bool, empty: str
) -> None:
    if not is_up:
        opened[0] = Api(ApiUnavailable("the API is down", hint="wait"))
    variables = {name: f"http://me:secret@{name.lower()}.example" for name in VARIABLES}
    made = fresh(tmp_path, {**variables, empty: ""}, base_url=url)
    shown = ", ".join(
        f"{name}=http://[masked]@{name.lower()}.example" for name in VARIABLES
        if name != empty
    )  # fmt: skip
    unused = ", not used for loopback" if "127" in url else ""
    if is_up:
        assert check_api(made) == passed(f"{url} answers ({shown}{unused})")
    else:
        assert check_api(made) == failed(f"the API is down ({shown}{unused})", "wait")


@pytest.mark.parametrize(
    ("variables", "url", "said"),
    [
        ({}, "https://a.example", ""),
        ({"HTTPS_PROXY": "http://p.example:1"}, "https://a.example",
         "; editors may not have these variables, so set proxy"),
        ({"REQUESTS_CA_BUNDLE": "/etc/ca.pem"}, "https://a.example",
         "; editors may not have these variables, so set ca_file"),
        ({"HTTPS_PROXY": "http://p.example:1", "REQUESTS_CA_BUNDLE": "/etc/ca.pem"},
         "https://a.example",
         "; editors may not have these variables, so set proxy and ca_file"),
        ({"REQUESTS_CA_BUNDLE": "/etc/ca.pem"}, "http://127.0.0.1:1", ""),
    ],
)  # fmt: skip
def test_variables_that_editors_may_lack_have_settings(
    tmp_path: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], url: str, said: str,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(network, "check_ca", lambda *_: None)
    assert check_api(fresh(tmp_path, base_url=url)) == passed(f"{url} answers{said}")


def test_settings_in_the_config_file_are_for_every_program(
    tmp_path: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "check_ca", lambda *_: None)
    proxy = parse_http_proxy("http://p.example:1")
    made = fresh(tmp_path, base_url="https://a.example", proxy=proxy, ca_file="/etc/ca.pem")
    assert check_api(made) == passed("https://a.example answers")
