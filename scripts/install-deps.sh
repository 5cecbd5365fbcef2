#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what gatehouse needs from Debian's packages, for the named purposes; quick when nothing is
# missing. usage: install-deps.sh [build] [demo] [check] [browser] [vm] [bench] [lint]
set -eu

build='gcc g++ make pkg-config clang libbpf-dev libelf-dev bpftool libssl-dev libnghttp2-dev libjansson-dev
	libhiredis-dev libprotobuf-dev libcmocka-dev zlib1g-dev libexpat1-dev'
demo='iproute2 ethtool util-linux procps curl openssl python3 ca-certificates'
check="$demo bird2 nghttp2-server redis-server protobuf-compiler python3-grpcio python3-protobuf python3-pytest python3-pytest-xdist python3-jwt python3-cryptography python3-jsonschema"
# For the registry's page: 350 MB, so only where it is asked for; its tests are skipped without.
browser='chromium'
vm='qemu-system-x86 busybox-static cpio kmod'
bench='haproxy nginx-light wrk nghttp2-client etcd-server'
lint='clang-format clang-tidy cppcheck shellcheck pyflakes3'

usage() { sed -n '3,4s/^# //p' "$0"; exit 2; }
[ $# -gt 0 ] || usage
cd "$(dirname "$0")/.."
wanted=
for purpose in "$@"; do
	case $purpose in
	build) wanted="$wanted $build llhttp" ;;
	demo) wanted="$wanted $demo" ;;
	check) wanted="$wanted $check" ;;
	browser) wanted="$wanted $browser" ;;
	vm) wanted="$wanted $vm" ;;
	bench) wanted="$wanted $bench" ;;
	lint) wanted="$wanted $lint" ;;
	*) usage ;;
	esac
done

is_installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# What the tests want of npm, where somebody installed that: Debian's package brings hundreds of others.
# Tests that miss it are skipped, so that nobody needs npm's registry for the rest.
install_npm() {
	cmp -s tests/npm/package-lock.json build/npm/package-lock.json && return
	command -v npm >/dev/null && command -v node >/dev/null || return 0
	echo 'install-deps: npm packages of the tests'
	rm -rf build/npm build/npm.new
	mkdir -p build/npm.new
	cp tests/npm/package.json tests/npm/package-lock.json build/npm.new/
	if npm --prefix build/npm.new ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
		mv build/npm.new build/npm
	fi
}

missing=
for package in $wanted; do
	case $package in
	# Debian 12 ships llhttp as sources inside node-llhttp, Debian 13 as a library.
	llhttp)
		is_installed libllhttp-dev || is_installed node-llhttp || missing="$missing llhttp"
		;;
	*) is_installed "$package" || missing="$missing $package" ;;
	esac
done
case " $* " in
*' check '*) install_npm ;;
esac
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "install-deps: this needs Debian's apt-get; install by hand:$missing" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "install-deps: missing:$missing" >&2
	echo "install-deps: run as root once: make deps" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
echo "install-deps: installing$missing"
apt-get update -qq
case $missing in
*llhttp*)
	if apt-cache show libllhttp-dev >/dev/null 2>&1; then llhttp=libllhttp-dev; else llhttp=node-llhttp; fi
	missing=$(echo "$missing" | sed "s/llhttp/$llhttp/")
	;;
esac

# Benchmark peers must not start as services of this machine just because they were installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT INT TERM
fi
# shellcheck disable=SC2086 # a list of words on purpose
apt-get install -y -qq --no-install-recommends $missing >/dev/null
