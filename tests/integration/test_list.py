"""dcs-proxy list, as a person and a program use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
ALIASES = '[aliases]\ndm-web = "dm-foo"\ndm-www = "dm-foo"\n'


def test_machines_are_shown_with_phase_size_age_and_alias(
    start_emulator: Start, user: User
) -> None:
    user.settings(ALIASES)
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--machine", "dm-a-long-name")
    user.use(emulator, config=False)
    done = user.proxy("list")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    assert head == ["NAME", "PHASE", "SIZE", "AGE", "ALIAS"]
    assert all(re.fullmatch(r"\d+ s", row.pop(3)) for row in rows)
    assert rows == [
        ["dm-a-long-name", "running", "2 vCPU 4 GiB 20 GiB", "-"],
        ["dm-foo", "sleeping", "2 vCPU 4 GiB 20 GiB", "dm-web dm-www"],
    ]
    assert not emulator.events(method="POST"), "looking wakes nothing"


def test_machines_are_in_natural_order_everywhere(start_emulator: Start, user: User) -> None:
    names = ["dm-ci-2", "dm-ci-10", "dm-ci-100", "dm-web"]
    machines = [word for name in reversed(names) for word in ("--machine", name)]
    user.use(start_emulator(*machines))
    shown = user.proxy("list").stdout.splitlines()[1:]
    assert [line.split()[0] for line in shown] == names
    assert [each["name"] for each in json.loads(user.proxy("list", "--json").stdout)] == names
    hosts = re.findall(r"^Host (dm-\w.*)$", user.config.read_text(), re.MULTILINE)
    assert hosts == names
    assert user.proxy("wake", "--all").returncode == 0
    status = json.loads(user.proxy("status", "--json").stdout)
    assert [session["machine"] for session in status["sessions"]] == names


def test_json_has_the_documented_keys(start_emulator: Start, user: User) -> None:
    user.settings(ALIASES)
    user.use(start_emulator("--machine", "dm-foo:sleeping"), config=False)
    (machine,) = json.loads(user.proxy("list", "--json").stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", machine.pop("created_at"))
    assert machine == {
        "machine_id": "dm-foo", "phase": "sleeping", "vcpu": 2, "memory_mib": 4096,
        "storage_gib": 20, "autosleep_seconds": 300, "aliases": ["dm-web", "dm-www"],
        "name": "dm-foo", "short_name": "dm-foo", "problem": None,
    }  # fmt: skip


def test_all_pages_are_listed_and_their_names_noted(start_emulator: Start, user: User) -> None:
    names = [f"dm-m{number:03}" for number in range(257)]
    words = [word for name in names for word in ("--machine", name)]
    user.use(start_emulator(*words, "--machine", "dm-old:destroyed"), config=False)
    lines = user.proxy("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*names, "dm-old"]
    assert (user.state / "machines").read_text().splitlines() == names


def test_an_account_without_machines_is_told_so(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator, config=False)
    emulator.control("POST", "faults", fault='*=body:{"items": []}')
    done = user.proxy("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "dcs-proxy: the account has no machines\n"
    assert user.proxy("list", "--json").stdout == "[]\n"


def test_an_api_that_cannot_be_reached_is_a_clear_failure(user: User) -> None:
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    user.environment["DEDALUS_API_KEY"] = "dsk-x"
    done = user.proxy("list")
    assert (done.returncode, done.stdout) == (7, "")
    assert "dcs-proxy: the API at http://127.0.0.1:1 cannot be reached" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(start_emulator: Start, user: User) -> None:
    words = [word for number in range(200) for word in ("--machine", f"dm-m{number:03}")]
    user.use(start_emulator(*words), config=False)
    pipe = f"set -o pipefail; {sys.executable} -m dcs_proxy list | sed -n '2{{p;q}}'"
    done = user.run(["bash", "-c", pipe])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dm-m000 ")
    closed = user.start(sys.executable, "-m", "dcs_proxy", "list", stdout=subprocess.PIPE)
    assert closed.stdout is not None
    closed.stdout.close()
    assert closed.stderr is not None
    assert (closed.stderr.read(), closed.wait(60)) == (b"", 0)


def test_a_rate_limit_and_a_missing_route_do_not_speak_of_a_machine(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for fault, said, code in (
        ("429:1000", "the API is limiting requests: ", 7),
        ("404", f"the API at {emulator.api} has no list of machines: ", 8),
        ("405", f"the API at {emulator.api} has no list of machines: ", 8),
    ):
        emulator.control("POST", "faults", fault=f"*={fault}/GET")
        done = user.proxy("list")
        assert done.returncode == code
        assert said in done.stderr
        assert not re.search("wak|session|such machine", done.stderr)
        emulator.control("DELETE", "faults")
