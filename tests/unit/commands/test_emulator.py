from __future__ import annotations

import argparse
import sys

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import emulator
from dcs_proxy.emulator import serve
from dcs_proxy.emulator.faults import describe_faults, parse_fault
from dcs_proxy.emulator.machines import PHASES
from dcs_proxy.emulator.serve import EmulatorOptions
from dcs_proxy.errors import ConfigError
from tests.unit.commands.conftest import Commands, Done


def test_without_its_package_the_emulator_says_how_to_add_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("dcs_proxy.emulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(ConfigError) as caught:
        emulator.run(argparse.Namespace(), Options())
    assert caught.value.message == "the emulator needs the Python package asyncssh"
    # Not the extra of a package of ours in an index: it is in none.
    assert caught.value.hint.startswith("pipx inject dcs-proxy asyncssh, or ")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[EmulatorOptions]:
    """The options with which an emulator was to run."""
    calls: list[EmulatorOptions] = []
    monkeypatch.setattr(serve, "serve", calls.append)
    return calls


def test_without_options_it_has_one_machine_that_sleeps(
    commands: Commands, served: list[EmulatorOptions]
) -> None:
    assert commands("emulator") == Done(0, "", "")
    assert served == [
        EmulatorOptions(
            ids="dm", machines=[("dm-demo", "sleeping")], faults=[], wake_seconds=2.0,
            session_seconds=3600.0, autosleep_seconds=300.0, login=None, endpoint="localhost",
            gateway=None, ca_directory=None, home=None, api_key=None, org_id="", post_only=False,
            without=frozenset(), rate_limit=None, journal=None, port=0, tls=None,
            tls_name="localhost",
        )
    ]  # fmt: skip


def test_each_option_reaches_the_emulator(
    commands: Commands, served: list[EmulatorOptions]
) -> None:
    key = commands.home / "key"
    key.write_text("dsk-mine\n")
    key.chmod(0o600)
    line = (
        "emulator --ids uuid --machine dm-a --machine dm-b:sleeping --wake-seconds 1 "
        "--session-seconds 2 --autosleep-seconds 3 --login root --endpoint ssh.example "
        "--gateway gw.example:2222 --ca-directory /ca --home /homes --org-id org-1 --port 80 "
        "--tls /cert.pem --tls-name api.example --post-only "
        "--without certificate --without host-trust --rate-limit 5 --journal /journal "
        f"--fault dm-a=503/POST@3 --api-key-file {key}"
    )
    assert commands(*line.split()) == Done(0, "", "")
    assert served == [
        EmulatorOptions(
            ids="uuid", machines=[("dm-a", "running"), ("dm-b", "sleeping")],
            faults=[parse_fault("dm-a=503/POST@3")], wake_seconds=1.0, session_seconds=2.0,
            autosleep_seconds=3.0, login="root", endpoint="ssh.example",
            gateway=("gw.example", 2222), ca_directory="/ca", home="/homes", api_key="dsk-mine",
            org_id="org-1", post_only=True, without=frozenset(("certificate", "host-trust")),
            rate_limit=5.0, journal="/journal", port=80, tls="/cert.pem",
            tls_name="api.example",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--machine web", "web is not NAME[:PHASE]"),
        ("--machine dm-web:dreaming", "dm-web:dreaming is not NAME[:PHASE]"),
        ("--wake-seconds -1", "argument --wake-seconds: -1 is not a number of at least 0"),
        ("--wake-seconds x", "argument --wake-seconds: x is not a number of at least 0"),
        ("--wake-seconds nan", "argument --wake-seconds: nan is not a number of at least 0"),
        ("--wake-seconds 1e9", "argument --wake-seconds: 1e9 is not a number of at least 0"),
        *((f"--gateway {text}", f"argument --gateway: {text} is not HOST:PORT")
          for text in ("host", ":22", "host:", "host:0", "host:65536", "host:x", "host:²")),
    ],
)  # fmt: skip
def test_a_wrong_value_is_explained(
    commands: Commands, served: list[EmulatorOptions], words: str, said: str
) -> None:
    done = commands("emulator", *words.split())
    assert (done.code, done.err.splitlines()[0], served) == (2, f"dcs-proxy: {said}", [])


@pytest.mark.parametrize(("ids", "names"), [("dm", "dm-..."), ("uuid", "dm-... or a UUID")])
def test_the_hint_says_which_names_there_are(
    commands: Commands, served: list[EmulatorOptions], ids: str, names: str
) -> None:
    done = commands("emulator", "--ids", ids, "--machine", "-")
    assert f"hint: NAME is {names}; PHASE is one of: {', '.join(PHASES)}\n" in done.err


def test_the_edges_of_what_is_right_are_right() -> None:
    assert emulator._seconds("0") == 0 and emulator._seconds("999999999") == 999999999
    assert emulator._address("h:1") == ("h", 1) and emulator._address("::1:65535") == ("::1", 65535)


def test_a_key_file_that_others_can_read_is_refused(
    commands: Commands, served: list[EmulatorOptions]
) -> None:
    key = commands.home / "key"
    done = commands("emulator", "--api-key-file", str(key))
    assert done.err == f"dcs-proxy: the API key file {key} does not exist\n"
    key.write_text("dsk-mine\n")
    key.chmod(0o644)
    done = commands("emulator", "--api-key-file", str(key))
    assert done.err.startswith(f"dcs-proxy: the API key file {key} is readable by other users\n")
    assert (done.code, served) == (3, [])


def test_faults_are_listed_and_nothing_runs(
    commands: Commands, served: list[EmulatorOptions]
) -> None:
    done = commands("emulator", "--list-faults")
    assert (done.code, done.out.splitlines(), served) == (0, [*describe_faults()], [])


def test_a_port_that_is_taken_is_told(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(serve, "serve", fail)
    done = commands("emulator")
    assert (done.code, done.err) == (
        1, "dcs-proxy: the emulator cannot start: [Errno 98] Address already in use\n"
    )  # fmt: skip
