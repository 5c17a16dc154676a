#!/bin/sh
# Starts nginx or haproxy, asks it for two pages at its unix socket, and ends it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
chmod 755 "$dir" # Its workers are another user.
cd "$dir"
case "$1" in
nginx) nginx -p "$dir" -c "$here/nginx.conf" -e "$dir/error" ;;
haproxy) haproxy -q -f "$here/haproxy.cfg" ;;
esac
trap 'kill "$(cat pid)"; rm -rf "$dir"' EXIT
for page in / /elsewhere; do
  code=$(curl -s -o page -w '%{http_code}' --unix-socket socket "http://application$page")
  echo "$1 $page: $code" $(grep -o '"original_destination":"[^"]*"' page || true)
done
