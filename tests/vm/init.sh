#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
# The first and only program of the virtual machine that run.py boots: runs what is in /tests and
# attaches the load balancer to a virtio-net device, says on the console how each went, switches off.
# Busybox's shell would prefer its own ip to iproute2's, which the tests need.
/bin/busybox --install -s /bin && cp /usr/bin/dash /bin/sh.new && mv /bin/sh.new /bin/sh
rm -f /bin/ip
export PATH=/usr/sbin:/usr/bin:/bin CMOCKA_MESSAGE_OUTPUT=TAP
mkdir -p /proc /sys /dev /tmp /run/gatehouse /var/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
/usr/sbin/ip link set lo up
modprobe virtio_pci
modprobe virtio_net
modprobe veth
modprobe ipv6 2>/dev/null # where it is a module
echo "== kernel $(uname -r)"

for test in /tests/*; do
	echo "== begin ${test##*/}"
	busybox timeout -s KILL "$TEST_TIMEOUT_S" "$test" 2>&1
	echo "== end $?"
done

# say NUMBER NAME COMMAND...: one line of the Test Anything Protocol, with the output before it.
say() {
	number=$1 name=$2
	shift 2
	if "$@" >/tmp/said 2>&1; then echo "ok $number - $name"; else
		sed 's/^/# /' /tmp/said
		echo "not ok $number - $name"
	fi
}
json_has() {
	if nlbctl --json status >/tmp/status && grep -q "$1" /tmp/status; then return 0; fi
	cat /tmp/status /tmp/nlbd
	return 1
}
balancer_forwards() {
	nlbd -c /nlb.json >/tmp/nlbd 2>&1 &
	for _ in $(seq 300); do
		grep -q forwarding /tmp/nlbd && break
		usleep 100000
	done
	json_has '"interface":"eth0"'
}
echo "== begin nlbd on virtio-net"
/usr/sbin/ip address add 10.0.0.2/24 dev eth0
/usr/sbin/ip link set eth0 up
say 1 "nlbd loads, attaches and answers" balancer_forwards
say 2 "in native mode" json_has '"xdp_mode":"native"'
kill "$(pidof nlbd)"
for _ in $(seq 100); do
	pidof nlbd >/tmp/pid || break
	usleep 100000
done
say 3 "and goes on when nlbd has ended" test -e /sys/fs/bpf/gatehouse/eth0/link
say 4 "nlbctl detach ends it" nlbctl detach eth0
/usr/sbin/ip address add 203.0.113.10/32 dev lo
say 5 "decapsulation attaches" nlbctl decap attach eth0 --source 10.0.0.3
say 6 "and detaches" nlbctl decap detach eth0
echo "== end 0"
echo "== done"
poweroff -f
