#!/bin/sh
# Obtains the notebooks' wildcard certificate by ACME and renews it, for a proxy that serves TLS itself (compose.yaml).
#
#   NOTEBOOK_DOMAIN  the certificate is for *.<it>; a wildcard's proof is a DNS record (DNS-01)
#   ACME_EMAIL       the account's address
#   ACME_DNS         lego's name for the DNS provider (https://go-acme.github.io/lego/dns/), whose own variables name
#                    the credentials: those that end in _FILE, files with them
#   ACME_SERVER      another ACME directory than Let's Encrypt's
#   ACME_DAYS        how many days before its end a certificate is renewed (30)
#   ACME_OPTIONS     further options of lego, such as --dns.resolvers=1.1.1.1:53
#   ACME_STATE       account and certificates (/acme); keep it
#   ACME_TARGET      the PEM file for the proxy (/certificate/notebooks.pem), put there in one step
#   ACME_OWNER       whose it is: the proxy's user and group (880:880)
#   ACME_PAUSE       seconds to the next look (43200)
#   ACME_RETRY       the same after a failure (3600): CAs limit those
set -eu
umask 077

domain=${NOTEBOOK_DOMAIN:?names the notebooks}
state=${ACME_STATE:-/acme}
target=${ACME_TARGET:-/certificate/notebooks.pem}
made="$state/certificates/_.$domain.pem"
PATH="$PATH:/" # the image has lego in its root folder
trap 'exit 0' TERM INT

acme() { # acme run|renew OPTION…
    # shellcheck disable=SC2086 # the options are words
    lego --accept-tos --email "${ACME_EMAIL:?is the address of the account}" --domains "*.$domain" --pem \
        --dns "${ACME_DNS:?names the DNS provider}" --path "$state" \
        ${ACME_SERVER:+--server "$ACME_SERVER"} ${ACME_OPTIONS:-} "$@"
}

obtain() {
    if [ -s "$made" ]; then
        acme renew --no-random-sleep --days "${ACME_DAYS:-30}"
    else
        acme run
    fi
}

publish() { # the proxy never sees half a file; what is its own cannot be read any more without capabilities
    if ! { [ -e "$target" ] && cmp -s "$made" "$state/published.pem"; }; then
        rm -f "$target.new"
        cp "$made" "$target.new"
        chmod 0400 "$target.new"
        chown "${ACME_OWNER:-880:880}" "$target.new"
        mv -f "$target.new" "$target"
        cp "$made" "$state/published.pem"
    fi
}

while :; do
    pause=${ACME_PAUSE:-43200}
    obtain || pause=${ACME_RETRY:-3600}
    [ ! -s "$made" ] || publish
    sleep "$pause" &
    wait $!
done
