"""Checks of ssh's complete configuration: the output of ``ssh -G`` with a session of ours.

A line above our block overrides it, so the options are compared with those that a session needs,
and the line that overrides an option is reported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.doctor.ssh_config import read_program
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.local.trusted_file import real_path
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE, Snippet, render_snippet, uses_pipes
from dcs_proxy.ssh.keys import CERTIFICATE_TYPE
from dcs_proxy.ssh.private_agents import PrivateAgents
from dcs_proxy.text import clean_text

_FIXED = {
    "ProxyUseFdpass": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "VerifyHostKeyDNS": "no",
    "CanonicalizeHostname": "no",
    "PubkeyAuthentication": "yes",
    "PreferredAuthentications": "publickey",
}
_HARMFUL = {
    "KnownHostsCommand": "it fails for names without DNS, so the login fails",
    "PKCS11Provider": "ssh may ask for a smart card",
}
_AUTHORITY = "ssh-ed25519"
_OUR_ERROR = re.compile(r"^dcs-proxy: ([^\r\n]+)\r?\ndcs-proxy: hint: ([^\r\n]+)", re.MULTILINE)
# What ssh -v says of each file, its included ones too.
_READ = re.compile(r"^debug1: Reading configuration data (/[^\r\n]+)", re.MULTILINE)
_SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_CERTIFICATES = "-cert-v01@openssh.com"
_ORDER = "lines for dm- hosts belong below the dcs-proxy block; dcs-proxy config-ssh puts it first"
_LISTS = "begin the list with + or ^ to keep the algorithms of certificates"


@dataclass(frozen=True)
class WrongOption:
    """An option with a value that breaks sessions.

    `option` is a regular expression for its name in a config file, `text` says what is wrong.
    """

    option: str
    text: str
    hint: str


def check_options(context: Context) -> Check:
    """Check the options that any machine would get, with a snippet for a made-up session."""
    state = required(context.state)
    path = state.snippet_path(NO_MACHINE)
    snippet = Snippet(
        machine=NO_MACHINE,
        user="dcs-proxy-doctor",
        host_key_alias="doctor.invalid",
        identity_file=state.file("sessions", "doctor-cert.pub"),
        certificate_file=None,
        identity_agent=PrivateAgents(state.path).path(1),
        known_hosts_file=state.file("sessions", "doctor.known_hosts"),
    )
    write_atomically(path, os.fsencode(render_snippet(snippet)))
    try:
        return _compare(context, NO_MACHINE, path)
    finally:
        remove_file(path)


def check_host_options(context: Context) -> Check:
    """Check the options of the user's machine, with its own session."""
    host = MachineName(required(context.host))
    return _compare(context, host, required(context.state).snippet_path(host))


def find_faults(options: Mapping[str, list[str]], wanted: Mapping[str, str]) -> list[WrongOption]:
    """Return the options that differ from `wanted`, and others that would break a login."""
    faults = []
    for option, value in wanted.items():
        have = options.get(option.lower(), [])
        if value not in have:
            # A command's arguments may be secret.
            words = [value.partition(" ")[0] for value in have]
            shown = clean_text(", ".join(words), 60) or "not set"
            faults.append(WrongOption(option, f"{option} is {shown}", _ORDER))
    if options.get("proxyjump", ["none"]) != ["none"]:
        faults.insert(0, WrongOption("ProxyJump", "ProxyJump replaces our command", _ORDER))
    # ssh prints these only if they are set.
    for option, what in _HARMFUL.items():
        if options.get(option.lower(), ["none"]) != ["none"]:
            faults.append(WrongOption(option, f"{option} is set: {what}", _ORDER))
    faults += _find_missing_algorithms(options)
    faults += _find_unreadable(options)
    return faults


def _find_missing_algorithms(options: Mapping[str, list[str]]) -> list[WrongOption]:
    host = "".join(options.get("hostkeyalgorithms", []))
    # The second is the name before OpenSSH 8.5.
    names = ("pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes")
    user = "".join(value for name in names for value in options.get(name, []))
    faults = []
    if _CERTIFICATES not in host:
        text = "HostKeyAlgorithms has no certificates, so the gateway cannot prove its identity"
        faults.append(WrongOption("HostKeyAlgorithms", text, _LISTS))
    authorities = "".join(options.get("casignaturealgorithms", [_AUTHORITY]))
    if _AUTHORITY not in authorities.split(","):
        text = f"CASignatureAlgorithms lacks {_AUTHORITY}, so ssh rejects the gateway's certificate"
        faults.append(WrongOption("CASignatureAlgorithms", text, _LISTS))
    if CERTIFICATE_TYPE.decode() not in user.split(","):
        text = f"PubkeyAcceptedAlgorithms lacks {CERTIFICATE_TYPE.decode()}"
        faults.append(WrongOption("PubkeyAccepted(Algorithms|KeyTypes)", text, _LISTS))
    return faults


def _find_unreadable(options: Mapping[str, list[str]]) -> list[WrongOption]:
    """Return a fault for a list of revoked keys that ssh cannot read: it then rejects every key."""
    faults = []
    for path in options.get("revokedhostkeys", ["none"]):
        if path != "none" and not os.access(os.path.expanduser(path), os.R_OK):
            text = (
                f"RevokedHostKeys names {path}, which cannot be read, so ssh rejects every host key"
            )
            hint = "make that file readable, or remove the line"
            faults.append(WrongOption("RevokedHostKeys", clean_text(text), hint))
    return faults


def _compare(context: Context, host: MachineName, snippet: str) -> Check:
    options, errors = context.read_options(host)
    if not options:
        lines = errors.strip().splitlines() or ["no message"]
        return failed(f"ssh -G fails: {clean_text(lines[-1])}", f"fix that; see: ssh -G {host}")
    faults = find_faults(options, _wanted(context, snippet))
    if not faults:
        return passed(f"ssh -G {host} prints what a session needs")
    if said := _OUR_ERROR.search(errors):  # of `prepare`, without which the block has no effect
        return failed(clean_text(said[1]), clean_text(said[2]))
    files = _files_read(context, host)
    shown = [fault.text + _where(files, fault.option) for fault in faults[:3]]
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return failed("; ".join(shown) + more, faults[0].hint)


def _wanted(context: Context, snippet: str) -> dict[str, str]:
    """Return the options that our block and the included file set, as ``ssh -G`` prints them."""
    wanted = dict(_FIXED)
    block = config_file.read_blocks(context.ssh_config).top or b""
    top = block.decode("utf-8", "surrogateescape")
    if uses_pipes(top):
        del wanted["ProxyUseFdpass"]
    program = read_program(top)
    if program is not None:
        wanted["ProxyCommand"] = program.launch("--login", "'%r'", "'%h'", "%p")
    for line in os.fsdecode(read_small(snippet) or b"").splitlines()[1:]:
        option, _, value = line.strip().partition(" ")
        wanted[option] = value.strip('"').replace("%%", "%")
    return wanted


def _files_read(context: Context, host: str) -> list[str]:
    """Return the files that ssh reads for a host, included ones too, but none of ours."""
    _, said = context.read_options(host, verbose=True)
    ours = f"{required(context.state).path}/"
    files = dict.fromkeys([context.ssh_config, *_READ.findall(said), _SYSTEM_CONFIG])
    return [path for path in files if not path.startswith(ours)]


def _where(files: Sequence[str], option: str) -> str:
    """Return which line sets an option, in parentheses; "" if it is in none of the files."""
    pattern = re.compile(rf"\s*{option}[\s=]", re.IGNORECASE)
    for path in files:
        try:
            data, _ = config_file.read(real_path(path))
        except ConfigError:  # a file that ssh reads, such as a FIFO
            continue
        inside = False
        for number, line in enumerate((data or b"").decode("utf-8", "replace").splitlines(), 1):
            inside = line.startswith("# >>> dcs-proxy") or (
                inside and not line.startswith("# <<< dcs-proxy")
            )
            if not inside and pattern.match(line):
                return f" (line {number} of {path})"
    return ""
