"""contrib/dev/drift on a small client: what we assume, and what has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contrib.dev import drift_check
from contrib.dev.drift_check import FIELDS, ROUTES, VALUES, differences, read_client

UUID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
Change = Callable[[str], str]


def resource() -> str:
    """Return methods that ask for every route that we use."""
    lines = ["class Resource:"]
    for number, (route, is_used) in enumerate(ROUTES.items()):
        method, _, path = route.partition(" ")
        if is_used:
            lines += [
                f"    def ask_{number}(self, machine_id: str):",
                '        """',
                "        Args:",
                "            machine_id: Bare, lowercase, hyphenated Machine UUID. Pass the "
                "returned machine_id unchanged.",
                "        Example:",
                f'            client.machines.ask(machine_id="{UUID}")',
                '        """',
                f'        return self._{method.lower()}(path_template("{path}"), cast_to=X)',
            ]
    return "\n".join(lines) + "\n"


def types() -> str:
    """Return every class that we read, with its fields and their values."""
    lines = ["raise RuntimeError('this was imported')"]
    for name, fields in FIELDS.items():
        lines.append(f"class {name}(BaseModel):")
        for field in sorted(fields):
            values = sorted(VALUES.get(f"{name}.{field}", ()))
            kind = f"Optional[Literal[{', '.join(map(repr, values))}]]" if values else "str"
            lines.append(f"    {field}: {kind}")
    return "\n".join(lines) + "\n"


METADATA = (
    "Version: 9.8\n\nDocumented error statuses: `401`, `403`, `409`, `429`, `503`, `default`.\n"
)
BASE = "# The API requires a compact UUIDv7; retries reuse this generated key.\n"


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[str]]:
    """Write a client, with changes to one of its files, and compare it."""

    def compare(file: str = "", change: Change = str) -> list[str]:
        texts = {
            "sdk/resources/ssh.py": resource(),
            "sdk/types/all.py": types(),
            "sdk/_base_client.py": BASE,
            "sdk-9.8.dist-info/METADATA": METADATA,
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change(text) if name == file else text)
        client = read_client(tmp_path)
        assert client.version == "9.8"
        return list(differences(client))

    return compare


def test_a_client_that_is_as_we_assume_has_nothing_new(found: Callable[..., list[str]]) -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("sdk/resources/ssh.py", "_delete(", "_put(",
         ["route is new: PUT /v1/machines/{machine_id}/ssh/{session_id}",
          "route that we use is gone: DELETE /v1/machines/{machine_id}/ssh/{session_id}"]),
        ("sdk/resources/ssh.py", UUID, "dm-foo",
         ["example of a machine's id is not one to us: dm-foo"]),
        ("sdk/resources/ssh.py", f'(machine_id="{UUID}")', "()", ["no example of a machine's id"]),
        ("sdk/resources/ssh.py", "Bare, lowercase", "Upper-case",
         ["said of ids: Upper-case, hyphenated Machine UUID. Pass the returned machine_id "
          "unchanged.",
          "no longer said of ids: Bare, lowercase, hyphenated Machine UUID. Pass the returned "
          "machine_id unchanged."]),
        ("sdk/resources/ssh.py", '        Args', '        Raises MACHINE_IS_ODD.  Args',
         ["error code is new: MACHINE_IS_ODD"]),
        ("sdk/types/all.py", "'ready'", "'ready', 'parked'",
         ["value of SSHSession.status is new: parked"]),
        ("sdk/types/all.py", "    port: str\n", "    ports: str\n",
         ["field of SSHConnection is new: ports", "field of SSHConnection is gone: port"]),
        ("sdk/types/all.py", "class SSHHostTrust", "class SSHTrust",
         ["SSHHostTrust is gone", "SSHHostTrust.kind is gone"]),
        ("sdk/_base_client.py", "\n", "\nos.environ.get('DEDALUS_NEW')\n",
         ["variable is new: DEDALUS_NEW"]),
        ("sdk-9.8.dist-info/METADATA", "`503`", "`418`",
         ["error status is new: 418", "error status is gone: 503"]),
    ],
)  # fmt: skip
def test_what_has_changed_is_named(
    found: Callable[..., list[str]], file: str, old: str, new: str, said: list[str]
) -> None:
    assert found(file, lambda text: text.replace(old, new)) == said


def test_the_exit_code_tells(
    found: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found()
    assert drift_check.main(str(tmp_path)) == 0
    assert capsys.readouterr().out.endswith("nothing is new\n")
    found("sdk/_base_client.py", lambda text: text + "DEDALUS_NEW = 1\n")
    assert drift_check.main(str(tmp_path)) == 1
    assert "variable is new: DEDALUS_NEW\n" in capsys.readouterr().out
