#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the packet tests under Debian's stock kernel, in a virtual machine. `make check-vm` calls it.

The kernel comes from Debian's package, unpacked below the build folder and not installed; qemu
emulates the processor (no KVM needed), so this takes minutes. The machine has no disk and no network
but a virtio-net device that leads nowhere. The last line is `N passed, N failed, N skipped`.

usage: run.py [KERNEL-PACKAGE]   (default: what linux-image-amd64 depends on)
"""

import glob
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import run as runner  # noqa: E402 (the path has to be set first)

BUILD = os.path.abspath(os.environ.get("GATEHOUSE_BUILD", "build"))
WORK = os.path.join(BUILD, "vm")
BOOT_TIMEOUT_S = 1500
TEST_TIMEOUT_S = 900  # of one program, inside
MEMORY_MIB = 1536
NLB_JSON = """{ "interface": "eth0", "flows_per_cpu": 65536, "hash_seed": "of the test",
  "vips": [ { "name": "web", "address": "203.0.113.10", "port": 443,
              "gateways": [ { "address": "10.0.0.11" }, { "address": "10.0.0.12" } ] } ] }
"""


def skip(reason):
    print(f"skip  vm: {reason}")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)


def output_of(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def kernel_package():
    """Name of the package with today's stock kernel."""
    depends = output_of("apt-cache", "depends", "linux-image-amd64")
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        skip("apt knows no stock kernel (linux-image-amd64); apt-get update?")
    return found[1]


def fetch_kernel(package):
    """Downloads and unpacks it unless that was done before; returns the folder."""
    folder = os.path.join(WORK, package)
    if not os.path.exists(folder):
        os.makedirs(WORK, exist_ok=True)
        print(f"vm: downloading {package} …", flush=True)
        done = subprocess.run(
            ["apt-get", "download", package], cwd=WORK, capture_output=True, text=True
        )
        if done.returncode != 0:
            skip(f"{package} could not be downloaded: {done.stderr.strip()[-200:]}")
        archive = glob.glob(os.path.join(WORK, f"{package}_*.deb"))[0]
        subprocess.run(["dpkg-deb", "-x", archive, folder + ".part"], check=True)
        os.unlink(archive)
        os.rename(folder + ".part", folder)
    return folder


def libraries_of(program):
    """Absolute paths of the shared libraries that it is linked with, and of the loader."""
    return re.findall(r"(/\S+\.so[.\d]*)", output_of("ldd", program))


def copy_to(root, source, target, mode=None):
    full = os.path.join(root, target.lstrip("/"))
    os.makedirs(os.path.dirname(full), exist_ok=True)
    shutil.copyfile(source, full)
    os.chmod(full, mode or 0o755)


def copy_modules(kernel, version, root, names):
    """Some modules with all they need, and the list that modprobe looks them up in."""
    subprocess.run(["depmod", "-b", kernel, version], check=True)
    folder = f"lib/modules/{version}"
    with open(os.path.join(kernel, folder, "modules.dep"), encoding="ascii") as file:
        needs = dict(line.rstrip("\n").split(":", 1) for line in file)
    by_name = {os.path.basename(path).split(".")[0]: path for path in needs}
    for name in names:
        path = by_name[name]
        for one in (path, *needs[path].split()):
            copy_to(root, os.path.join(kernel, folder, one), f"{folder}/{one}", 0o644)
    copy_to(
        root, os.path.join(kernel, folder, "modules.dep"), f"{folder}/modules.dep", 0o644
    )


def make_initramfs(kernel, version):
    root = os.path.join(WORK, "root")
    shutil.rmtree(root, ignore_errors=True)
    copy_to(root, shutil.which("busybox"), "/bin/busybox")
    copy_to(root, os.path.join(HERE, "init.sh"), "/init")
    with open(os.path.join(root, "nlb.json"), "w", encoding="ascii") as file:
        file.write(NLB_JSON)
    tests = sorted(
        path
        for path in glob.glob(os.path.join(BUILD, "tests/bpf/test_*"))
        if "." not in os.path.basename(path)
    )
    if not tests:
        sys.exit("vm: the packet tests are not built: make tests")
    programs = {f"/tests/{os.path.basename(path)}": path for path in tests}
    programs["/usr/sbin/nlbd"] = os.path.join(BUILD, "nlbd")
    programs["/usr/sbin/ip"] = os.path.realpath(shutil.which("ip"))
    programs["/usr/bin/dash"] = shutil.which("dash")
    programs["/usr/bin/nlbctl"] = os.path.join(BUILD, "nlbctl")
    for target, source in programs.items():
        copy_to(root, source, target)
        for library in libraries_of(source):
            copy_to(root, library, library)
    copy_modules(kernel, version, root, ["virtio_net", "virtio_pci", "veth"])
    archive = os.path.join(WORK, "initramfs")
    with open(archive, "wb") as out:
        names = subprocess.run(["find", "."], cwd=root, check=True, stdout=subprocess.PIPE)
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            cwd=root, input=names.stdout, stdout=out, check=True,
        )
    return archive


def boot(image, initramfs):
    """Everything that the machine said on its console."""
    argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2"]
    # Without cx16: some stock kernels fail to boot under emulation with it.
    argv += ["-cpu", "max,-cx16", "-m", str(MEMORY_MIB), "-nographic", "-no-reboot"]
    argv += ["-kernel", image, "-initrd", initramfs]
    argv += ["-append", f"console=ttyS0 quiet panic=-1 TEST_TIMEOUT_S={TEST_TIMEOUT_S}"]
    argv += ["-nic", "user,model=virtio-net-pci,restrict=on"]
    code, said, seconds = runner.run_program(argv, BOOT_TIMEOUT_S)
    with open(os.path.join(WORK, "console.log"), "w", encoding="utf-8") as log:
        log.write(said)
    print(f"vm: {seconds:.0f} s")
    return said.replace("\r", ""), code


def read_console(said, totals):
    for section in re.split(r"^== begin ", said, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("\n")
        output, end, code = rest.partition("\n== end ")
        tally = runner.read_tap(f"vm/{name}", output, totals)
        code = code.split("\n", 1)[0].strip()
        if not end or (code != "0" and not tally[1]):
            totals.add_failed(f"vm/{name}: ended with {code or 'nothing'}", output)
        elif not sum(tally):
            totals.add_failed(f"vm/{name}: reported no test at all", output)
        else:
            print(f"{'ok   ' if not tally[1] else '     '} vm/{name}: {tally[0]}")


def main():
    if platform.machine() != "x86_64":
        skip("the virtual machine is an x86-64 one")
    for tool in ("qemu-system-x86_64", "busybox", "cpio", "depmod", "apt-get"):
        if shutil.which(tool) is None:
            skip(f"{tool} is not installed")
    kernel = fetch_kernel(sys.argv[1] if len(sys.argv) > 1 else kernel_package())
    image = glob.glob(os.path.join(kernel, "boot/vmlinuz-*"))[0]
    version = image.rpartition("vmlinuz-")[2]
    print(f"vm: booting {version} …", flush=True)
    said, code = boot(image, make_initramfs(kernel, version))
    totals = runner.Totals()
    read_console(said, totals)
    if f"== kernel {version}" not in said:
        totals.add_failed(f"vm: {version} did not boot ({code})", said)
    elif "== done" not in said:
        totals.add_failed("vm: did not come to its end", said)
    for name in totals.failed:
        print(f"FAILED {name}")
    print(f"{totals.passed} passed, {len(totals.failed)} failed, {len(totals.skipped)} skipped")
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
