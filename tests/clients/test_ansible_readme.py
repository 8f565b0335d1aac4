"""Ansible: what the collection's README tells people to write and to type."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

import pytest

from tests.clients.ansible_controller import SOURCE, Controller, pinged
from tests.support.emulator import Emulator

Start = Callable[..., Emulator]

works = pytest.mark.client("Ansible", "works")


def example(*words: str) -> str:
    """Return the README's only example that has all these words."""
    text = (SOURCE / "README.md").read_text()
    blocks = re.findall(r"(?<=\n\n)(?:    .*\n|\n(?=    ))+", text)
    (found,) = (each for each in blocks if all(word in each for word in words))
    return textwrap.dedent(found)


@works
def test_the_readmes_examples_of_one_account_run(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    controller.user.use(emulator)
    source = controller.write("dcs.yml", example("plugin:", "keyed_groups"))
    controller.write("ansible.cfg", example("any_unparsed"))
    assert controller.inventory(source)["phase_sleeping"]["hosts"] == ["dm-foo"]
    site = controller.write("site.yml", example("import_role"))
    done = controller.run("ansible-playbook", "-i", source, site)
    assert pinged(done.stdout) == ["dm-foo"], done.stdout
    done = controller.run(*example("-m ping").split())
    assert "dm-foo | SUCCESS" in done.stdout
    assert len(emulator.creates()) == 1


@works
def test_the_readmes_example_of_two_accounts_runs(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    emulator = start_emulator("--machine", "dm-foo", "--org-id", "org-blue")
    user.environment["DEDALUS_BASE_URL"] = emulator.front
    own = user.home / ".config" / "dcs-proxy"
    own.mkdir(parents=True)
    (user.home / ".ssh").mkdir(mode=0o700)
    shown, _, typed = example("$ cat ").partition("$ dcs-proxy ")
    (own / "blue.toml").write_text(shown.partition("\n")[2])
    (own / "blue.key").write_text(f"{emulator.key}\n")
    (own / "blue.key").chmod(0o600)
    done = controller.run("sh", "-c", f"dcs-proxy {typed}")
    assert done.returncode == 0, done.stderr
    source = controller.write("blue.dcs.yml", example("groups: {blue"))
    assert controller.inventory(source)["blue"]["hosts"] == ["dm-foo"]
    done = controller.run("ansible", "-i", source, "blue", "-m", "ping")
    assert "dm-foo | SUCCESS" in done.stdout, done.stdout
    assert len(emulator.creates()) == 1
