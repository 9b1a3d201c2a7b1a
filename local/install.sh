#!/bin/sh
# Installs the Debian packages that are missing, and nothing when none is: `local/install.sh run|test|bench`.
# apt verifies them by the signature of the distribution's archive; their versions are the archive's of the day.
# For "run", not being root is an error when something is missing; tests say themselves what they lack, and skip.
set -eu

mode=${1:?run, test or bench}
missing=''

need() { # need PACKAGE COMMAND: the package that brings the command
    PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null 2>&1 || missing="$missing $1"
}

engine_answers() {
    socket=/var/run/docker.sock
    case "${DOCKER_HOST:-}" in unix://*) socket=${DOCKER_HOST#unix://} ;; esac
    test -S "$socket" && "${PYTHON:-python3}" -c '
import socket, sys
with socket.socket(socket.AF_UNIX) as engine:
    engine.settimeout(5)
    engine.connect(sys.argv[1])
    engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    sys.exit(b"OK" not in engine.recv(4096).partition(b"\r\n")[0])
' "$socket" 2>/dev/null
}

"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || need python3-venv no-such-command
engine_answers && [ "$mode" = run ] || need docker.io dockerd
need haproxy haproxy
need mmdebstrap mmdebstrap
need iptables iptables
need iproute2 ip
need util-linux setpriv
test -e /etc/ssl/certs/ca-certificates.crt || missing="$missing ca-certificates"
if [ "$mode" != run ]; then
    need docker.io docker # the command; some tests start engines of their own besides
    need chromium chromium
    need busybox busybox
    need curl curl
    need git git
    need lego lego # these two for the proxy's certificate
    need pebble pebble
    need docker-registry docker-registry
    need strace strace
    need podman podman
    need rootlesskit rootlesskit # these three for rootless Docker
    need uidmap newuidmap
    need slirp4netns slirp4netns
    need nodejs node # these two for a second DynamoDB
    need npm npm
    need awscli aws
fi
if [ "$mode" = bench ]; then # the peers that Homeport is measured beside, and what asks them
    need wrk wrk
fi

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "Missing Debian packages:$missing. As root: apt-get install$missing" >&2
    [ "$mode" != run ] || exit 1
    exit 0
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
quietly() { "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly apt-get update -q -o Acquire::Retries=3
# shellcheck disable=SC2086 # a list of names
quietly apt-get install -q -y --no-install-recommends -o Acquire::Retries=3 $missing
