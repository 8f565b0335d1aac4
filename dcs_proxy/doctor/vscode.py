"""What VS Code's Remote-SSH needs in its ``settings.json`` to work with machines that sleep."""

from __future__ import annotations

from dcs_proxy.local.settings import Settings

CONNECT_TIMEOUT = "remote.SSH.connectTimeout"


def remote_ssh_settings(settings: Settings) -> dict[str, object]:
    """Return the settings by name: how long to wait (in seconds), and the hosts' platform.

    Remote-SSH takes patterns for hosts since November 2023 (vscode-remote-release, issue 9191), so
    that a machine made tomorrow needs no new entry; aliases begin with ``dm-`` too.
    """
    return {
        CONNECT_TIMEOUT: settings.wake_seconds,
        "remote.SSH.remotePlatform": {"dm-*": "linux"},
    }
