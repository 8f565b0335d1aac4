# Sourced by contrib/demo and contrib/test: a virtual environment of their own, and the system
# programs that they need.  What is installed is printed first; with $offline set, nothing is.
# POSIX sh.

offline=

say() { printf '%s\n' "${0##*/}: $*" >&2; }

die() { say "$@"; exit 1; }

# find_python: print the first Python 3.10 or later.
find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# need PROGRAM=PACKAGE...: install the Debian packages of the programs that are missing, where we
# may; otherwise say which they are.
need() {
    missing=
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null 2>&1 ||
            missing="$missing ${pair#*=}"
    done
    # Debian ships venv without ensurepip unless python3-venv is there.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    [ -n "$missing" ] || return 0
    if [ -n "$offline" ]; then
        say "offline: not installed, and the tests that need them fail:$missing"
        return 0
    fi
    if [ "$(id -u)" = 0 ]; then sudo=; else sudo='sudo -n'; fi
    if command -v apt-get >/dev/null 2>&1 && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
        say "installing with apt-get:$missing"
        # shellcheck disable=SC2086
        { $sudo apt-get update -qq &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                --no-install-recommends $missing; } >&2 && return
    fi
    die "these packages are missing and could not be installed:$missing"
}

# without_user: forget the user's API, agent, home and keys, and find sshd.  Tests bring their own.
without_user() {
    unset DEDALUS_API_KEY DEDALUS_X_API_KEY DEDALUS_ORG_ID DEDALUS_BASE_URL
    unset DCS_PROXY_HOME DCS_PROXY_CONFIG SSH_AUTH_SOCK DBUS_SESSION_BUS_ADDRESS
    # With it, each of thousands of programs compiles our modules anew: 0.5 s of CPU and not 0.15.
    unset PYTHONDONTWRITEBYTECODE
    PATH=$PATH:/usr/sbin:/sbin
    export PATH
}

# make_venv NAME EXTRA [PIP OPTIONS]: make .venv/NAME with this checkout and its extra; set $venv.
# The path that an editable install adds, in place of a finder, costs a start of Python nothing.
make_venv() {
    venv="$root/.venv/$1"
    extra=$2
    shift 2
    stamp="$("$python" -V) $(cksum <"$root/setup.cfg") $root"
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        if [ -n "$offline" ]; then
            [ -x "$venv/bin/python" ] || die "offline: there is no virtual environment yet: $venv"
            say "offline: $venv may lack what setup.cfg asks for by now"
            return 0
        fi
        say "installing with pip into $venv: the packages that setup.cfg names for [$extra] $*"
        rm -rf "$venv"
        "$python" -m venv "$venv" || die "no virtual environment could be made"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --config-settings editable_mode=compat --editable "$root[$extra]" "$@" >&2 ||
            die "the Python packages could not be installed"
        printf '%s\n' "$stamp" >"$venv/stamp"
    fi
}

# make_node_modules PACKAGE...: install npm packages below $venv and export where they are.  Without
# npm, or if it cannot install them, the tests that need them are skipped.
make_node_modules() {
    if [ "$(cat "$venv/node/packages" 2>/dev/null)" != "$*" ]; then
        [ -n "$offline" ] || say "installing with npm: $*"
        if [ -n "$offline" ] || ! command -v npm >/dev/null 2>&1 ||
            ! npm install --silent --no-audit --no-fund --prefix "$venv/node" "$@" >&2; then
            say "no npm packages ($*): the tests that need them are skipped"
            return
        fi
        printf '%s\n' "$*" >"$venv/node/packages"
    fi
    DCS_PROXY_NODE_MODULES=$venv/node/node_modules
    export DCS_PROXY_NODE_MODULES
}

# make_old_sdk: install the first of the service's Python libraries that has machines beside $venv's
# own, and export where it is.
make_old_sdk() {
    DCS_PROXY_OLD_SDK=$venv/sdk-oldest
    if [ ! -d "$DCS_PROXY_OLD_SDK/dedalus_sdk" ]; then
        if [ -n "$offline" ]; then
            say "offline: no dedalus-sdk 0.0.4: the tests that need it are skipped"
            DCS_PROXY_OLD_SDK=
            return 0
        fi
        say "installing with pip: dedalus-sdk 0.0.4"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --target "$DCS_PROXY_OLD_SDK" dedalus-sdk==0.0.4 >&2 ||
            die "dedalus-sdk 0.0.4 could not be installed"
    fi
    export DCS_PROXY_OLD_SDK
}

# make_outsiders: install beside $venv's own packages what checks us from outside.  Editors bundle
# any version of ssh-config.
make_outsiders() {
    set -- ssh2 @stoplight/prism-cli
    for ssh_config in 3.0.0 3.0.1 4.0.2 4.0.4 4.0.5 4.0.6 4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.1.6 4.2.0 \
        4.2.1 4.4.0 4.4.1 4.4.2 4.4.3 4.4.4 5.0.0 5.0.1 5.0.3 5.0.4 5.1.0 5.2.0 5.2.1 5.3.0; do
        set -- "$@" "ssh-config-$ssh_config@npm:ssh-config@$ssh_config"
    done
    make_node_modules "$@"
    make_old_sdk
}

# find_root: set $root to the checkout of the running script, or to that of the current directory
# if the script is elsewhere.
find_root() {
    for root in "$(dirname -- "$0")" .; do
        root=$(CDPATH='' cd -- "$root" 2>/dev/null && pwd)
        while [ -n "$root" ]; do
            [ ! -f "$root/setup.cfg" ] || return 0
            root=${root%/*}
        done
    done
    return 1
}

find_root || die "this is not in a checkout of dcs-proxy"
python=$(find_python) || die "Python 3.10 or later is missing (Debian and Ubuntu: apt install python3)"
