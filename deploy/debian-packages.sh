#!/bin/bash
# Installs the Debian packages of the named groups when root; otherwise says what is missing and how to get it.
# What excludes another package that is wanted is not installed but unpacked, into $MAILFLEET_CACHE (~/.cache/mailfleet).
# A package:program is not asked for where that program is there already, from wherever (Docker brings a containerd).
# usage: debian-packages.sh tests|cluster ...
set -euo pipefail
declare -A group=(
  [tests]="postgresql pgbouncer redis-server postfix openssl python3-aiosmtpd git:git
    libsasl2-modules libdb5.3 libgnutls-dane0 libidn12 libidn2-0 libnsl2 libpcre2-8-0"
  [cluster]="containerd:containerd runc:runc buildah:buildah debootstrap:debootstrap debian-archive-keyring
    containernetworking-plugins iptables conntrack:conntrack iproute2 procps openssl"
)
# Exim's libraries are above, for Postfix is the machine's mail transport agent; of sasl2-bin and prometheus one
# program each is wanted (saslauthd, promtool), no service.
declare -A unpacked=([tests]="exim4-daemon-light sasl2-bin prometheus")
home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6) # under sudo: of who asks, as the tests will
cache=${MAILFLEET_CACHE:-$home/.cache/mailfleet}/debian
missing=() absent=()
for name in "$@"; do
  for wanted in ${group[$name]:?"unknown group $name; known: ${!group[*]}"}; do
    package=${wanted%%:*}
    if [[ $wanted == *:* ]] && command -v "${wanted#*:}" >/dev/null; then continue; fi
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  for package in ${unpacked[$name]:-}; do
    [ -d "$cache/$package" ] && getent passwd Debian-exim >/dev/null || absent+=("$package")
  done
done
[ ${#missing[@]} -eq 0 ] && [ ${#absent[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "missing Debian packages: ${missing[*]} ${absent[*]}; run as root: $0 $*" >&2
  exit 1
fi
# The packages' own services are not wanted: tests start private ones.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ ${#missing[@]} -gt 0 ]; then
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
for package in "${absent[@]}"; do
  fetched=$(mktemp -d)
  (cd "$fetched" && chmod 755 . && apt-get download -qq "$package" 2>/dev/null)
  rm -rf "${cache:?}/$package"
  mkdir -p "$cache" && chown "${SUDO_UID:-0}" "${cache%/*}" "$cache"
  dpkg -x "$fetched/$package"_*.deb "$fetched/unpacked"
  mv "$fetched/unpacked" "$cache/$package"
  rm -rf "$fetched"
done
# Exim refuses to start without the user that its package would make.
if [[ " ${absent[*]} " == *" exim4-daemon-light "* ]] && ! getent passwd Debian-exim >/dev/null; then
  useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin Debian-exim
fi
