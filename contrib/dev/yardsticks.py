"""Log in as the service's own command line does: with a new key and a new session each time.

Once with curl, so that no interpreter is in it, and once in node, in which the service's client is
written.  Each is a script for a user's environment: `W` is a directory for its files, `CA` a file
with the API's certificate authority, or empty.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.user import User

CURL = """
set -eu
rm -f "$W"/k "$W"/k.pub "$W"/k-cert.pub
ssh-keygen -q -t ed25519 -N '' -f "$W/k"
ask() { curl -sS --fail ${CA:+--cacert "$CA"} -H "x-api-key: $DEDALUS_API_KEY" "$@"; }
field() { sed -n 's/.*"'"$1"'": *"\\([^"]*\\)".*/\\1/p' "$W/s"; }
ask -X POST -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \\
    -H 'Content-Type: application/json' \\
    -d "{\\"public_key\\": \\"$(cut -d' ' -f1,2 "$W/k.pub")\\"}" \\
    "$DEDALUS_BASE_URL/v1/machines/dm-foo/ssh" >"$W/s"
while [ "$(field status)" != ready ]; do
    sleep 0.5
    ask "$DEDALUS_BASE_URL/v1/machines/dm-foo/ssh/$(field session_id)" >"$W/s"
done
field user_certificate >"$W/k-cert.pub"
echo "@cert-authority $(field host_pattern) $(field public_key)" >"$W/kh"
port=$(sed -n 's/.*"port": *\\([0-9]*\\).*/\\1/p' "$W/s")
exec ssh -F none -i "$W/k" -o IdentitiesOnly=yes -o UserKnownHostsFile="$W/kh" \\
    -o StrictHostKeyChecking=yes -p "$port" "$(field ssh_username)@$(field endpoint)" true
"""

NODE = """
const { spawnSync } = require("node:child_process");
const { randomUUID } = require("node:crypto");
const fs = require("node:fs");
const { W, DEDALUS_API_KEY, DEDALUS_BASE_URL } = process.env;
const base = `${DEDALUS_BASE_URL}/v1/machines/dm-foo/ssh`;
const headers = { "x-api-key": DEDALUS_API_KEY, "Content-Type": "application/json" };
async function ask(url, options) {
    const response = await fetch(url, { ...options, headers: { ...headers, ...options?.headers } });
    if (!response.ok) throw new Error(`${response.status}`);
    return response.json();
}
async function main() {
    for (const name of ["k", "k.pub", "k-cert.pub"]) fs.rmSync(`${W}/${name}`, { force: true });
    spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${W}/k`]);
    const key = fs.readFileSync(`${W}/k.pub`, "utf8").split(" ").slice(0, 2).join(" ");
    let session = await ask(base, {
        method: "POST", headers: { "Idempotency-Key": randomUUID() },
        body: JSON.stringify({ public_key: key }),
    });
    while (session.status !== "ready") {
        await new Promise((resolve) => setTimeout(resolve, 500));
        session = await ask(`${base}/${session.session_id}`);
    }
    const { endpoint, port, ssh_username, user_certificate, host_trust } = session.connection;
    const { host_pattern, public_key } = host_trust;
    fs.writeFileSync(`${W}/k-cert.pub`, user_certificate);
    fs.writeFileSync(`${W}/kh`, `@cert-authority ${host_pattern} ${public_key}\\n`);
    const words = ["-o", "IdentitiesOnly=yes", "-o", `UserKnownHostsFile=${W}/kh`];
    words.push("-o", "StrictHostKeyChecking=yes");
    const login = ["-p", `${port}`, `${ssh_username}@${endpoint}`, "true"];
    process.exitCode = spawnSync("ssh", ["-F", "none", "-i", `${W}/k`, ...words, ...login]).status;
}
main();
"""


def official(user: User, place: Path, ca: str = "") -> None:
    """Log in once by ssh-keygen, curl and ssh, with files in the directory `place`."""
    _log_in(user, place, ["bash", "-c", CURL], ca)


def official_in_node(user: User, place: Path) -> None:
    """Log in once by node, ssh-keygen and ssh, with files in the directory `place`."""
    _log_in(user, place, ["node", "-e", NODE], "")


def _log_in(user: User, place: Path, command: list[str], ca: str) -> None:
    place.mkdir(exist_ok=True)
    done = user.run(command, env={**user.environment, "W": str(place), "CA": ca})
    if done.returncode:
        raise RuntimeError(done.stderr)
