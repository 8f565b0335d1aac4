"""Write, check and remove the files that ssh reads for a machine.

ssh parses every included file for every host that the user types, and exits at a malformed line.
So files are replaced atomically, and a damaged file is removed before ssh reads it.
"""

from __future__ import annotations

import os
import re
import stat

from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.names import MachineName, file_stem
from dcs_proxy.openssh.config_text import (
    Snippet,
    render_agent_snippet,
    render_known_hosts,
    render_snippet,
)
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.keys import public_line
from dcs_proxy.ssh.private_agents import PrivateAgents

# Complete lines, balanced quotation marks, and only the options that we write.
_WELL_FORMED = re.compile(
    rb"(#[^\n]*\n)*Match [^\n]+\n"
    rb"(    (HostName|User|HostKeyAlias|IdentityFile|CertificateFile|IdentitiesOnly|IdentityAgent|"
    rb"UserKnownHostsFile|GlobalKnownHostsFile|ForwardAgent) (\"[^\"\n]+\"|[^\"\s]+)\n)+\Z"
)
_FORWARDED = re.compile(rb'^    ForwardAgent "([^"\n]+)"$', re.MULTILINE)


def publish(
    state: StateDirectory, host: MachineName, name: MachineName, record: Record
) -> list[str]:
    """Write what ssh reads for `host`, the name that the user types.

    Return the files that a fast entry depends on: these, and the record, which a process changes as
    soon as it learns that the session is over.  Only files that differ are written.  `record` must
    have a ready session.  Raises StateError.
    """
    snippet = write_identity(state, host, name, record)
    if _write(state.snippet_path(host), render_snippet(snippet)):
        _drop_old_files(state, name, {record.attempt.token, record.previous_token})
    identity = [snippet.identity_file, snippet.certificate_file]
    return [
        state.session_path(name, ".json"), state.snippet_path(host), snippet.known_hosts_file,
        *(path for path in identity if path),
    ]  # fmt: skip


def write_identity(
    state: StateDirectory, host: MachineName, name: MachineName, record: Record
) -> Snippet:
    """Write the files that a snippet for `host` names; return the snippet."""
    ready, token = record.ready, record.attempt.token
    if ready is None:
        raise ValueError("only a ready session has anything to publish")
    key = state.session_path(name, f".{token}.pub")
    certificate = state.session_path(name, f".{token}-cert.pub")
    known_hosts = state.session_path(name, f".{token}.known_hosts")
    plain = ready.bare_key or not ready.certificate
    _write(known_hosts, render_known_hosts(ready.endpoint, ready.authority))
    if ready.certificate:
        _write(certificate, f"{ready.certificate}\n")
    if plain:
        _write(key, f"{public_line(record.attempt.public)}\n")
    return Snippet(
        machine=host,
        user=ready.ssh_username,
        host_key_alias=ready.endpoint,
        identity_file=key if plain else certificate,
        certificate_file=certificate if plain and ready.certificate else None,
        identity_agent=record.attempt.agent_path,
        known_hosts_file=known_hosts,
    )


def unpublish(state: StateDirectory, name: MachineName) -> None:
    """Remove all files of the machine and its aliases except its lock, which the caller holds.

    Raises StateError.
    """
    stem = file_stem(name)
    named = re.compile(rb"/" + re.escape(stem.encode()) + rb"\.[0-9a-f]{12}\.known_hosts\"\n")
    for entry in os.scandir(state.file("hosts")):
        host, suffix = os.path.splitext(entry.name)
        if suffix == ".conf" and named.search(read_small(entry.path) or b""):
            remove_file(state.file("sessions", f"{host}.warm"))
            remove_file(entry.path)
    remove_file(state.snippet_path(name))
    own = re.compile(re.escape(stem) + r"\.(json|warm|used|failure|[0-9a-f]{12}[a-z_.-]+)\Z")
    for entry in os.scandir(state.file("sessions")):
        if own.match(entry.name):
            remove_file(entry.path)


def publish_user_agent(state: StateDirectory, path: str) -> None:
    """Let ``ssh -A`` forward the user's own agent at `path` (SSH_AUTH_SOCK, may be empty).

    If there is only one agent, its file applies to every ssh, which costs ssh nothing.  If there
    are several, or this ssh has none, each file applies only to an ssh with that SSH_AUTH_SOCK.
    A private agent is never forwarded, even if SSH_AUTH_SOCK is a link to it.
    """
    known = {_forwarded(entry.path): entry.path for entry in os.scandir(state.file("agents"))}
    private = PrivateAgents(state.path)
    alive = {each for each in known if os.path.exists(each) and not private.has(each)}
    is_theirs = os.path.exists(path) and not private.has(path)
    wanted = alive | {path} if is_theirs else alive
    texts: dict[str, str | None] = {}
    if is_theirs and wanted == {path}:
        texts = {state.file("agents", "only.conf"): render_agent_snippet(path, always=True)}
    else:
        for each in wanted:
            file = state.file("agents", f"{os.fsencode(each).hex()}.conf")
            texts[file] = render_agent_snippet(each, always=False)
    for file, text in texts.items():
        if text is not None:
            _write(file, text)
    for file in known.values():
        if texts.get(file) is None:
            remove_file(file)


def _forwarded(file: str) -> str:
    """Return the agent's socket in a file under ``agents``, "" if the file is damaged."""
    match = _FORWARDED.search(read_small(file) or b"")
    return os.fsdecode(match[1]).replace("%%", "%") if match else ""


def remove_broken(state: StateDirectory) -> None:
    """Remove or repair every included file at which ssh would exit.  Raises StateError."""
    for directory in ("hosts", "agents"):
        for entry in os.scandir(state.file(directory)):
            if not entry.name.endswith(".conf"):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            data = read_small(entry.path) if stat.S_ISREG(status.st_mode) else None
            if data is None or not is_well_formed(data) or status.st_uid != os.geteuid():
                remove_file(entry.path)
            elif stat.S_IMODE(status.st_mode) != 0o600:
                os.chmod(entry.path, 0o600)


def mark_checked(state: StateDirectory) -> None:
    """Record that all included files are well formed, as of now."""
    write_atomically(state.file("checked"), b"")


def is_well_formed(data: bytes) -> bool:
    """Return whether ssh can parse a snippet: complete lines of options that we write."""
    return _WELL_FORMED.match(data) is not None


def _write(path: str, text: str) -> bool:
    """Write a file unless it has this text already; return whether it was written."""
    data = os.fsencode(text)
    if read_small(path) == data:
        return False
    write_atomically(path, data)
    return True


def _drop_old_files(state: StateDirectory, name: MachineName, keep: set[str]) -> None:
    """Remove the files of attempts before the last two."""
    prefix = os.path.basename(state.session_path(name, "."))
    old = re.compile(re.escape(prefix) + r"([0-9a-f]{12})(-cert\.pub|\.pub|\.known_hosts)\Z")
    for entry in os.scandir(state.file("sessions")):
        match = old.match(entry.name)
        if match and match[1] not in keep:
            remove_file(entry.path)
