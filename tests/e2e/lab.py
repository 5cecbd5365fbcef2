# SPDX-License-Identifier: Apache-2.0
"""A network of hosts on one machine: a namespace per host, joined by a switch that also routes.

    underlay  10.0.0.0/24, MTU 1600   NLBs, gateways, registry, services, on one bridge
    clients   198.51.100.0/24, MTU 1500, behind the switch, which routes

Everything of a lab carries its random id, so labs run side by side; what an aborted run left
behind is swept by the next one. Standard library only: `make demo` uses it on a bare machine.
"""

import atexit
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time

from procs import ProcGroup, wait_until

STATE_ROOT = "/run/gatehouse-lab"
UNDERLAY_MTU = 1600
CLIENT_MTU = 1500
SWITCH_UNDERLAY = "10.0.0.1"
SWITCH_CLIENTS = "198.51.100.1"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_labs = []


class LabError(Exception):
    pass


def run(*argv, check=True, input_text=None):
    """Runs a command to its end and returns its stdout; LabError with its stderr if it fails."""
    argv = [str(word) for word in argv]
    done = subprocess.run(
        argv,
        input=input_text,
        stdin=None if input_text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"{' '.join(argv)}: " + "\n".join(said[:4]))
    return done.stdout


def why_not():
    """The reason why no lab can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "ethtool", "nsenter", "unshare", "setpriv", "bpftool", "curl", "openssl"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = f"gh{secrets.token_hex(3)}"
    try:
        run("ip", "netns", "add", probe)
    except LabError as error:
        return f"no network namespaces: {error}"
    try:
        run("ip", "-n", probe, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", probe, "link", "add", "va", "type", "veth", "peer", "name", "vb")
    except LabError as error:
        return f"no bridge or veth devices: {error}"
    finally:
        run("ip", "netns", "del", probe, check=False)
    if not os.path.isdir("/sys/fs/bpf"):
        return "this kernel has no BPF file system"
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "this kernel has no BTF (/sys/kernel/btf/vmlinux)"
    return None


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


class Host:
    """One host: a network namespace, eth0, and a BPF file system of its own."""

    def __init__(self, lab, name, address):
        self.lab = lab
        self.name = name
        self.address = address
        self.netns = f"{lab.id}-{name}"
        self.bpffs = os.path.join(lab.directory, "bpf", name)
        self.port = f"to-{name}"  # the switch's end of its link

    def enter_words(self):
        """The command prefix that runs a program on this host.

        nsenter rather than `ip netns exec`, which would mount another /sys; the host's own BPF
        file system is put over /sys/fs/bpf, and stays when its programs end.
        """
        mount = 'mount --bind "$0" /sys/fs/bpf && exec "$@"'
        return (
            ["nsenter", f"--net=/run/netns/{self.netns}"]
            + ["unshare", "--mount", "--propagation", "private"]
            + ["sh", "-c", mount, self.bpffs]
        )

    def run(self, *argv, check=True, input_text=None):
        return run(*self.enter_words(), *argv, check=check, input_text=input_text)

    def start(self, name, argv, env=None, cwd=None):
        return self.lab.procs.start(
            name, argv, env, cwd, prefix=self.enter_words(), detached=self.lab.keep
        )

    @contextlib.contextmanager
    def inside(self):
        """Moves the calling thread into this host's network; sockets made there stay there."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self.netns}", os.O_RDONLY)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield self
            finally:
                _setns(own)
        finally:
            os.close(own)

    def connect(self, address, port, timeout_s=5.0, source=None):
        """A TCP connection from this host."""
        with self.inside():
            return socket.create_connection(
                (address, port), timeout_s, (source, 0) if source else None
            )

    def accepts(self, address, port):
        """True if something on this host's network takes connections there."""
        try:
            self.connect(address, port, 1.0).close()
            return True
        except OSError:
            return False

    def wait_port(self, port, proc=None, address=None, timeout_s=10.0):
        wait_until(
            lambda: self.accepts(address or self.address or "127.0.0.1", port),
            f"{self.name}: port {port} open",
            timeout_s,
            proc,
        )

    def sysctl(self, name, value):
        path = "/proc/sys/" + name.replace(".", "/")
        with self.inside(), open(path, "w", encoding="ascii") as file:
            file.write(str(value))

    def ip(self, *words):
        return run("ip", "-n", self.netns, *words)

    def link_down(self):
        """Cuts the host off, as a pulled cable does."""
        self.ip("link", "set", "eth0", "down")

    def link_up(self):
        self.ip("link", "set", "eth0", "up")
        if self.address:
            self.ip("route", "replace", "default", "via", self.lab.gateway_of(self))


class Lab:
    """Hosts, links and programs. Use as a context manager, or call close()."""

    def __init__(self, build="build", lab_id=None, keep=False):
        sweep()
        self.id = lab_id or f"gh{secrets.token_hex(3)}"
        self.keep = keep  # left running when this process ends
        self.build = os.path.abspath(build)
        self.directory = os.path.join(STATE_ROOT, self.id)
        self.hosts = {}
        self.clients = set()
        self.closed = False
        self.lock = threading.Lock()
        if os.path.exists(self.directory):
            raise LabError(f"a lab named {self.id} is already up")
        os.makedirs(self.directory, mode=0o755)
        _labs.append(self)
        try:
            self._write_state()
            os.makedirs(os.path.join(self.directory, "bpf"))
            self.procs = ProcGroup(os.path.join(self.directory, "logs"))
            self.switch = self._add_switch()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write_state(self):
        state = {
            "id": self.id,
            "owner": None if self.keep else [os.getpid(), _start_time(os.getpid())],
            "hosts": sorted(self.hosts),
        }
        with open(os.path.join(self.directory, "state.json"), "w", encoding="ascii") as file:
            json.dump(state, file)

    def _add_namespace(self, name, address):
        host = Host(self, name, address)
        self.hosts[name] = host
        self._write_state()
        run("ip", "netns", "add", host.netns)
        os.makedirs(host.bpffs)
        run("mount", "-t", "bpf", "bpf", host.bpffs)
        host.ip("link", "set", "lo", "up")
        # Nobody has two of one address here; until that is found out, neighbours are not.
        if os.path.exists("/proc/sys/net/ipv6"):
            host.sysctl("net.ipv6.conf.default.accept_dad", 0)
        return host

    def _add_switch(self):
        switch = self._add_namespace("switch", None)
        # An address of its own: otherwise it takes the lowest of its ports', and changes it under
        # everybody's feet when a host is added.
        switch.ip(
            *("link", "add", "br0", "address", "02:00:00:00:00:01", "mtu", UNDERLAY_MTU),
            *("type", "bridge", "stp_state", "0", "mcast_snooping", "0"),
        )
        switch.ip("address", "add", f"{SWITCH_UNDERLAY}/24", "dev", "br0")
        switch.ip("link", "set", "br0", "up")
        self._offloads_off(switch, "br0")
        switch.sysctl("net.ipv4.ip_forward", 1)
        for scope in ("all", "default", "br0"):
            switch.sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)
            switch.sysctl(f"net.ipv4.conf.{scope}.send_redirects", 0)
        return switch

    @staticmethod
    def _offloads_off(host, device):
        # A partial checksum would be forwarded by XDP as it is and die at the receiver; XDP
        # forwards single packets only, so nothing may merge or split them on the way.
        words = "tx off rx off tso off gso off gro off".split()
        run("nsenter", f"--net=/run/netns/{host.netns}", "ethtool", "-K", device, *words)

    def add_host(self, name, address, vips=(), transmits_from_xdp=False):
        """A host on the underlay. vips are put on lo; see Host for what can be done with it."""
        host = self._add_namespace(name, address)
        self._plug(host, UNDERLAY_MTU)
        self.switch.ip("link", "set", host.port, "master", "br0")
        host.ip("address", "add", f"{address}/24", "dev", "eth0")
        for vip in vips:
            host.ip("address", "add", f"{vip}/32", "dev", "lo")
        for scope in ("all", "eth0"):
            # Decapsulated packets arrive from addresses that are routed elsewhere; and of the
            # hosts that carry one VIP none may answer for it on the segment.
            host.sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)
            host.sysctl(f"net.ipv4.conf.{scope}.arp_ignore", 1)
            host.sysctl(f"net.ipv4.conf.{scope}.arp_announce", 2)
        host.ip("link", "set", "eth0", "up")
        self.switch.ip("link", "set", host.port, "up")
        host.ip("route", "add", "default", "via", SWITCH_UNDERLAY)
        if transmits_from_xdp:
            self._attach_pass(host.port)
        return host

    def add_container(self, name, host, vips=()):
        """A network namespace behind a host, which forwards to it and reaches vips there."""
        inner = self._add_namespace(name, "10.9.0.2")
        host.ip(*"link add c0 type veth peer name eth0 netns".split(), inner.netns)
        for end, device, address in ((host, "c0", "10.9.0.1"), (inner, "eth0", inner.address)):
            self._offloads_off(end, device)
            end.ip("address", "add", f"{address}/30", "dev", device)
            end.ip("link", "set", device, "up")
        inner.ip("route", "add", "default", "via", "10.9.0.1")
        for vip in vips:
            inner.ip("address", "add", f"{vip}/32", "dev", "lo")
            host.ip("route", "add", f"{vip}/32", "via", inner.address)
        host.sysctl("net.ipv4.ip_forward", 1)
        return inner

    def add_client(self, name, addresses):
        """A host outside, behind the router; several addresses make it several clients."""
        host = self._add_namespace(name, addresses[0])
        self._plug(host, CLIENT_MTU)
        for address in addresses:
            host.ip("address", "add", f"{address}/24", "dev", "eth0")
        if not self.clients:
            self.switch.ip("address", "add", f"{SWITCH_CLIENTS}/24", "dev", host.port)
        self.clients.add(name)
        host.ip("link", "set", "eth0", "up")
        self.switch.ip("link", "set", host.port, "up")
        host.ip("route", "add", "default", "via", SWITCH_CLIENTS)
        self._bind_to_one_cpu(host.port)
        return host

    def _bind_to_one_cpu(self, device):
        """What comes in there is handled by one CPU, as a network card's queues ensure for a flow.

        Without it the packets of one connection would wander between CPUs with their sender, and
        a table kept for each CPU would see parts of them.
        """
        # `ip netns exec` because it mounts the /sys of that namespace.
        steer = f"echo 1 >/sys/class/net/{device}/queues/rx-0/rps_cpus"
        run("ip", "netns", "exec", self.switch.netns, "sh", "-c", steer)

    def gateway_of(self, host):
        return SWITCH_CLIENTS if host.name in self.clients else SWITCH_UNDERLAY

    def _plug(self, host, mtu):
        self.switch.ip(
            *("link", "add", host.port, "mtu", mtu, "type", "veth"),
            *("peer", "name", "eth0", "mtu", mtu, "netns", host.netns),
        )
        self._offloads_off(host, "eth0")
        self._offloads_off(self.switch, host.port)

    def _attach_pass(self, device):
        """A veth takes what its peer sends from XDP only while it runs a program itself."""
        pinned = os.path.join(self.switch.bpffs, "pass")
        if not os.path.exists(pinned):
            run("bpftool", "prog", "load", f"{self.build}/tests/bpf/pass.bpf.o", pinned)
        self.switch.run(
            *("bpftool", "net", "attach", "xdpdrv", "pinned", "/sys/fs/bpf/pass", "dev", device)
        )

    def route_vip(self, vip, *next_hops):
        """Routes a VIP on the switch to its NLBs (several: equal cost)."""
        hops = [word for hop in next_hops for word in ("nexthop", "via", hop)]
        self.switch.ip("route", "replace", f"{vip}/32", *hops)

    def path(self, *parts):
        """A path below the lab's own directory, whose folder exists."""
        path = os.path.join(self.directory, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write_json(self, document, *parts):
        path = self.path(*parts)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
        return path

    def leave_running(self):
        """Gives the lab its own life: it stays until take_down(id)."""
        self.keep = True
        self._write_state()
        self.procs.procs = []
        self.closed = True

    def close(self):
        """Stops every program, removes every namespace; returns what went wrong, by program."""
        with self.lock:
            if self.closed:
                return {}
            self.closed = True
        problems = {}
        if hasattr(self, "procs"):
            problems = self.procs.stop_all()
        take_down(self.id, self.hosts)
        if self in _labs:
            _labs.remove(self)
        return problems


def _start_time(pid):
    """Tells a process from a later one with the same number; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def take_down(lab_id, hosts=None):
    """Removes all that is left of a lab, whoever made it."""
    directory = os.path.join(STATE_ROOT, lab_id)
    names = set(hosts or [])
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open(os.path.join(directory, "state.json"), encoding="ascii") as file:
            names |= set(json.load(file)["hosts"])
    for name in names:
        _kill_inside(f"{lab_id}-{name}")
    for name in names:
        run("ip", "netns", "del", f"{lab_id}-{name}", check=False)
        # Pinned programs and links live exactly as long as this mount.
        run("umount", "--lazy", os.path.join(directory, "bpf", name), check=False)
    shutil.rmtree(directory, ignore_errors=True)


def _kill_inside(netns):
    """Ends what runs in a namespace that is ours: politely, then not."""
    for signal_name, patience_s in (("TERM", 3.0), ("KILL", 3.0)):
        pids = run("ip", "netns", "pids", netns, check=False).split()
        if not pids:
            return
        subprocess.run(["kill", f"-{signal_name}", *pids], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not any(_is_alive(pid) for pid in pids):
                break
            time.sleep(0.02)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sweep():
    """Takes down labs whose owner is gone (killed outright), and no other."""
    try:
        ids = os.listdir(STATE_ROOT)
    except OSError:
        return
    for lab_id in ids:
        try:
            with open(os.path.join(STATE_ROOT, lab_id, "state.json"), encoding="ascii") as file:
                owner = json.load(file)["owner"]
        except (OSError, ValueError, KeyError):
            continue
        if owner is not None and _start_time(owner[0]) != owner[1]:
            take_down(lab_id)


@atexit.register
def close_all():
    """Takes down every lab of this process that was not told to stay."""
    for lab in list(_labs):
        if not lab.keep:
            lab.close()
