"""A real sshd on loopback, for the user who runs the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from dcs_proxy.emulator.authority import Authorities
from dcs_proxy.emulator.loopback import closed_port
from tests.support.keys import certify, make_key, public_file
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S, wait_until

_CONFIG = """\
ListenAddress 127.0.0.1:{port}
{listen_6}HostKey {directory}/host_key
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200:30:300
MaxSessions 100
Subsystem sftp internal-sftp
X11Forwarding yes
SetEnv XAUTHORITY={directory}/xauthority
AuthorizedKeysFile {directory}/authorized_keys
AuthorizedPrincipalsFile {directory}/principals
"""


class Sshd:
    """sshd in `directory`, on 127.0.0.1 and ::1 at `port`.

    With `user_ca` it takes certificates for the tester's own login name, with `host_ca` its host
    certificate names `principals`, and it takes the keys in `authorized_keys` (lines).
    """

    def __init__(
        self,
        directory: Path,
        *,
        user_ca: Path | None = None,
        host_ca: Path | None = None,
        principals: Sequence[str] = (),
        authorized_keys: Sequence[str] = (),
    ) -> None:
        directory.mkdir()
        self.port = closed_port()
        self.log = directory / "log"
        self.host_key = directory / "host_key"
        make_key(self.host_key)
        has_ipv6 = Path("/proc/net/if_inet6").exists()
        listen_6 = f"ListenAddress [::1]:{self.port}\n" if has_ipv6 else ""
        config = _CONFIG.format(port=self.port, directory=directory, listen_6=listen_6)
        (directory / "authorized_keys").write_text("".join(f"{k}\n" for k in authorized_keys))
        (directory / "principals").write_text(f"{getpass.getuser()}\n")
        if user_ca is not None:
            config += f"TrustedUserCAKeys {user_ca}\n"
        if host_ca is not None:
            certificate = certify(
                host_ca, public_file(self.host_key), "-I", "host", "-h", "-n", ",".join(principals)
            )
            config += f"HostCertificate {certificate}\n"
        (directory / "config").write_text(config)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert program, "sshd is missing"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(directory / "config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(),
            )  # fmt: skip

    def __enter__(self) -> Sshd:
        wait_until(lambda: self._process.poll() is not None or "listening" in self.said())
        assert self._process.poll() is None, self.said()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_S)

    @property
    def pid(self) -> int:
        """The process that listens."""
        return self._process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def authorised_sshd(
    directory: Path, *, host_ca: Path | None = None, authorized_keys: Sequence[str] = ()
) -> Iterator[tuple[Sshd, list[str]]]:
    """Run a sshd as the gateway; yield it and the arguments that tell an emulator of it.

    Its host certificate is signed by the emulator's own authority or by `host_ca`; it takes plain
    `authorized_keys` too.
    """
    authorities = directory / "ca"
    Authorities(str(authorities))
    with Sshd(
        directory / "sshd",
        user_ca=authorities / "user_ca.pub",
        host_ca=host_ca or authorities / "host_ca",
        principals=["localhost"],
        authorized_keys=authorized_keys,
    ) as sshd:
        yield sshd, [
            "--ca-directory", str(authorities), "--gateway", f"localhost:{sshd.port}",
            "--login", getpass.getuser(),
        ]  # fmt: skip
