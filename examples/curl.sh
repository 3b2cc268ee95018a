#!/bin/sh
# Ask twice and see in the headers who answered; then ask for a fresh answer.
set -eu
url="${CACHEPROXY_URL:-http://127.0.0.1:11435}"
body='{"model":"llama3.2","stream":false,"messages":[{"role":"user","content":"Why is fire hot?"}]}'

ask() {
    # Not straight into grep: a pipe would hide that curl failed.
    headers="$(curl --silent --show-error --fail --dump-header - --output /dev/null "$url/api/chat" --data "$body" "$@")"
    echo "$headers" | grep -iE '^(x-cache|cache-status|age):'
}

ask                                  # X-Cache: MISS
sleep 1                              # an answer is kept just after it was given
ask                                  # X-Cache: EXACT
ask --header 'Cache-Control: no-cache' # X-Cache: MISS
