"""What config-ssh finds, the block keeps; and what others write around it cannot break a login."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]


@pytest.mark.parametrize(
    "line",
    [
        "HostName %h.corp.example",
        "HostName other.example",
        "KnownHostsCommand /bin/false %H",
        "PubkeyAuthentication no",
        "PreferredAuthentications password,keyboard-interactive",
        "CASignatureAlgorithms rsa-sha2-512",
        "HostKeyAlgorithms ssh-ed25519",
        "PubkeyAcceptedAlgorithms rsa-sha2-512",
        "PKCS11Provider /nowhere/provider.so",
        "ProxyJump hop.example",
        "IdentityAgent none",
        "IdentityFile ~/.ssh/other",
        "UserKnownHostsFile /nowhere/known",
        "GlobalKnownHostsFile /nowhere/known",
        "HostKeyAlias other.example",
        "User somebody",
        "Port 2222",
        "IdentitiesOnly no",
        "ProxyUseFdpass no",
        "UpdateHostKeys yes",
        "VerifyHostKeyDNS yes",
        "CanonicalizeHostname always",
        "AddKeysToAgent yes",
        "NoHostAuthenticationForLocalhost yes",
        "ConnectionAttempts 3",
    ],
)
def test_no_host_star_breaks_a_login(start_emulator: Start, user: User, line: str) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    insert_between_blocks(user.config, f"Host *\n    {line}\n")
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_the_config_file_that_config_ssh_found_is_used_in_every_environment(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping")
    user.use(emulator, config=False)
    del user.environment["DCS_PROXY_CONFIG"]
    config_home = user.root / "config home"
    (config_home / "dcs-proxy").mkdir(parents=True)
    (config_home / "dcs-proxy" / "config.toml").write_text('wake = "never"\n')
    key = config_home / "dcs-proxy" / "api-key"
    key.write_text(emulator.key)
    key.chmod(0o600)
    del user.environment["DEDALUS_API_KEY"]
    user.environment["XDG_CONFIG_HOME"] = str(config_home)
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert written.returncode == 0, written.stderr
    other = user.root / "other.toml"
    other.write_text('wake = "always"\n')
    for more in ({}, {"XDG_CONFIG_HOME": "/nowhere"}, {"DCS_PROXY_CONFIG": str(other)}):
        del user.environment["XDG_CONFIG_HOME"]
        user.environment |= more
        done = user.ssh("dm-foo", "true")
        assert done.returncode == 255
        assert 'wake = "never"' in done.stderr
        user.environment["XDG_CONFIG_HOME"] = ""
    assert emulator.creates() == []


TRAPS = {
    "PYTHONPATH": ":{trap}",
    "PYTHONHOME": "{trap}",
    "PYTHONSTARTUP": "{trap}/argparse.py",
    "PYTHONDEVMODE": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONPROFILEIMPORTTIME": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONINSPECT": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONPLATLIBDIR": "nowhere",
}


@pytest.mark.parametrize("name", TRAPS)
def test_pythons_environment_changes_nothing(start_emulator: Start, user: User, name: str) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    trap = user.root / "trap"
    trap.mkdir()
    for module in ("argparse", "json", "requests", "socket", "dcs_proxy", "sitecustomize"):
        (trap / f"{module}.py").write_text(f"open({str(trap / 'sprung')!r}, 'w')\n")
    user.environment[name] = TRAPS[name].format(trap=trap)
    for _ in range(2):
        done = user.ssh("dm-foo", "echo in", cwd=trap)
        assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert not (trap / "sprung").exists()


def test_a_file_that_cannot_be_replaced_is_written_in_place(
    start_emulator: Start, user: User
) -> None:
    """As one that a container mounts: its name cannot be given to another file."""
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    mounted = user.root / "mounted"
    mounted.write_text("Host mine\n")
    user.config.write_text("")
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    command = [sys.executable, "-m", "dcs_proxy", "config-ssh", "--ssh-config", str(user.config)]
    done = user.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(mounted), str(user.config), *command]
    )
    assert done.returncode == 0, done.stderr
    assert "Host mine\n" in mounted.read_text() and "dcs-proxy top" in mounted.read_text()


def test_a_file_in_a_read_only_place_is_answered_with_another_file(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    store = user.root / "store"
    store.mkdir()
    (store / "config").write_text("Host mine\n")
    user.config.symlink_to(store / "config")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "dcs_proxy", "config-ssh", "--ssh-config", str(user.config)]
    done = user.run(["unshare", "-m", "sh", "-c", script, "sh", str(store), *command])
    assert done.returncode == 3
    other = f"{user.config}-dcs-proxy"
    assert f"dcs-proxy config-ssh --ssh-config {shlex.quote(str(other))}" in done.stderr
    assert f"Include {other}" in done.stderr
    assert "DCS_PROXY_HOME" not in done.stderr
    assert user.proxy("config-ssh", "--ssh-config", other).returncode == 0
    user.config.unlink()
    user.config.write_text(f'Include "{other}"\nHost mine\n')
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_another_home_than_ssh_goes_by_is_said(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    written = user.proxy("config-ssh")
    assert written.returncode == 0
    home = os.path.expanduser("~" + subprocess.check_output(["id", "-un"], text=True).strip())
    assert f"ssh reads {home}/.ssh/config whatever HOME says, not this file" in written.stderr
    assert (
        f"dcs-proxy config-ssh --ssh-config {shlex.quote(f'{home}/.ssh/config')}" in written.stderr
    )


def test_root_makes_nothing_in_the_home_of_another_user(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    del user.environment["DCS_PROXY_HOME"]
    os.chown(user.home, 4711, 4711)
    for command in (["config-ssh"], ["wake", "dm-foo"]):
        done = user.proxy(*command)
        assert done.returncode != 0
        assert f"{user.home} belongs to user id 4711" in done.stderr
        assert os.listdir(user.home) == []
    # It needs to write nothing.
    assert user.proxy("list").returncode == 0
    assert os.listdir(user.home) == []


def test_a_user_without_an_entry_is_named(start_emulator: Start, user: User) -> None:
    """As in a container that runs as any user number."""
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    other = ["unshare", "--user", "--map-user=4711", "--map-group=4711"]
    for command in (["config-ssh"], ["doctor"]):
        done = user.run([*other, sys.executable, "-m", "dcs_proxy", *command])
        said = done.stdout + done.stderr
        assert "user id 4711 has no entry in the user database" in said, said
        assert "internal error" not in said


def test_a_block_that_this_ssh_refuses_is_not_written(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    old_ssh = user.root / "bin" / "ssh"
    old_ssh.parent.mkdir()
    old_ssh.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -V ]; then echo "OpenSSH_9.9p1, OpenSSL 3" >&2; exit; fi\n'
        'grep -q PKCS11Provider "$3" && { echo "Bad configuration option: pkcs11provider" >&2; '
        "exit 255; }\nexit 0\n"
    )
    old_ssh.chmod(0o755)
    user.environment["PATH"] = f"{old_ssh.parent}:{user.environment['PATH']}"
    user.config.write_text("Host mine\n")
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 3
    assert 'refuses the block, so nothing was changed: "Bad configuration option' in done.stderr
    assert user.config.read_text() == "Host mine\n"


def test_config_ssh_ends_with_what_to_try(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert written.stdout.endswith(f"dcs-proxy: try it: ssh -F '{user.config}' dm-foo\n")
    assert user.proxy("config-ssh").stdout.endswith("dcs-proxy: try it: ssh dm-foo\n")


def test_config_ssh_ends_with_what_to_try_in_an_empty_account(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator, config=False)
    emulator.control("POST", "faults", fault='*=body:{"items": []}')
    assert user.proxy("config-ssh").stdout.endswith("dcs-proxy: try it: ssh dm-NAME\n")


def test_a_host_that_an_editor_adds_below_the_block_changes_nothing(
    start_emulator: Start, user: User
) -> None:
    """As VS Code's "Add New SSH Host..." does with ``ssh me@dm-foo``."""
    user.use(start_emulator("--machine", "dm-foo"))
    with user.config.open("a") as file:
        file.write("\nHost dm-foo\n  HostName dm-foo\n  User me\n  ForwardAgent yes\n")
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
