# Installs the packages named as arguments, and starts none of their services: a Kamailio of
# Debian's own must not take ports and run beside the tests' instances.
set -eu
policy=/usr/sbin/policy-rc.d # invoke-rc.d asks it before it starts a service
mark='# for the time of an installation by cargo xtask test'
if [ ! -e "$policy" ] || grep -qxF "$mark" "$policy"; then
    # Removed on every way out; the mark finds it again after a power cut.
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends "$@"
