# SPDX-License-Identifier: Apache-2.0
"""What `make install` puts where, the units, and that manual pages and documentation are true."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import identity
from rig import free_port

ROOT = Path(__file__).resolve().parents[2]
DAEMONS = ["gatewayd", "nlbd", "registryd"]
TOOLS = ["gatewayctl", "nlbctl", "registryctl"]
REFERENCES = {
    "gatewayd": "gatehouse-gateway.json",
    "nlbd": "gatehouse-nlb.json",
    "registryd": "gatehouse-registry.json",
}
UNITS = sorted((ROOT / "config/systemd").glob("*.service"))
MANUALS = sorted((ROOT / "docs/man").glob("*.[158]"))
EXPOSURE_MAX = {"gatehouse-decap@.service": 3.0, "gatehouse-nlb.service": 3.0}  # others: 2.0


def run(*argv, **options):
    # Variables of a make that runs the tests would override those given here.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    env.update(LC_ALL="C.UTF-8", SYSTEMD_LOG_LEVEL="warning")
    return subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=60, env=env, **options
    )


def needs(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def make(build, *words):
    done = run("make", "-s", "-C", ROOT, f"OUT={os.path.relpath(build, ROOT)}", *words)
    assert done.returncode == 0, done.stderr
    return done


def files_below(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    """Everything installed as on a host, below a folder of its own."""
    folder = tmp_path_factory.mktemp("root")
    make(build, "install", f"DESTDIR={folder}")
    return folder


# --- make install ---------------------------------------------------------------------------


def test_everything_has_its_place(installed):
    found = files_below(installed)
    expected = {f"usr/sbin/{name}" for name in DAEMONS} | {f"usr/bin/{name}" for name in TOOLS}
    expected |= {f"lib/systemd/system/{unit.name}" for unit in UNITS}
    expected |= {"usr/lib/sysusers.d/gatehouse.conf", "usr/lib/tmpfiles.d/gatehouse.conf"}
    expected |= {f"usr/share/man/man{page.suffix[1:]}/{page.name}" for page in MANUALS}
    documents = "usr/share/doc/gatehouse"
    expected |= {f"{documents}/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    expected |= {f"{documents}/schema/{name}.json" for name in DAEMONS}
    for example in ("nlb", "registry", "domains/rider", "domains/driver", "domains/partner"):
        expected.add(f"{documents}/examples/{example}.json")
    for daemon in ("bird", "frr", "keepalived"):
        expected.add(f"{documents}/examples/{daemon}/{daemon}.conf")
    expected.add(f"{documents}/LICENSE")
    assert found == expected


def test_installed_programs_run(installed):
    for name in [*(f"sbin/{name}" for name in DAEMONS), *(f"bin/{name}" for name in TOOLS)]:
        done = run(installed / "usr" / name, "--version")
        assert done.returncode == 0 and re.search(r"\d+\.\d+\.\d+", done.stdout), (name, done)


def test_installed_examples_are_good(installed, host_files):
    examples = installed / "usr/share/doc/gatehouse/examples"
    for program, name in (("nlbd", "nlb.json"), ("registryd", "registry.json")):
        path = host_files / name
        path.write_text((examples / name).read_text().replace("/etc/gatehouse", str(host_files)))
        done = run(installed / "usr/sbin" / program, "-c", path, "--check")
        assert done.returncode == 0, done.stderr


def test_example_of_much_is_good(host_files, program):
    text = (ROOT / "config/domains/partner.json").read_text()
    path = host_files / "partner.json"
    path.write_text(re.sub("/(etc|var/lib|var/log|run)/gatehouse", str(host_files), text))
    done = run(program("gatewayd"), "-c", path, "--check")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_runtime_packages_are_all_named(program):
    needs("readelf")
    needs("dpkg")
    named = re.search(r"apt\s+install\s+([^`]*)`", (ROOT / "docs/install.md").read_text())[1].split()
    libraries = set()
    for name in DAEMONS + TOOLS:
        libraries.update(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", program(name)).stdout))
    libraries = {x for x in libraries if not re.match(r"lib(c|m|asan|ubsan|tsan)\.so", x)}
    assert "libssl.so.3" in libraries
    for library in libraries:
        packages = re.findall(r"^(\S+?)(?::\w+)?:", run("dpkg", "-S", f"*/{library}").stdout, re.M)
        assert set(packages) & set(named), f"docs/install.md lacks the package of {library}: {packages}"


def test_uninstall_takes_all_of_it_away(build, tmp_path):
    make(build, "install", f"DESTDIR={tmp_path}", "PREFIX=/opt/gatehouse")
    assert (tmp_path / "opt/gatehouse/sbin/nlbd").exists()
    kept = tmp_path / "etc/gatehouse/nlb.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    for page in [*tmp_path.rglob("*.[158]"), *tmp_path.rglob("*.md")]:
        named = re.findall(r"[\w/]*/share/doc/gatehouse", page.read_text())
        assert set(named) <= {"/opt/gatehouse/share/doc/gatehouse"}, page
    make(build, "uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/gatehouse")
    assert files_below(tmp_path) == {"etc/gatehouse/nlb.json"}


def test_units_follow_the_prefix(build, tmp_path):
    make(build, "install", f"DESTDIR={tmp_path}", "PREFIX=/opt/gatehouse")
    for unit in UNITS:
        text = (tmp_path / "lib/systemd/system" / unit.name).read_text()
        commands = re.findall(r"^Exec\w+=(\S+)", text, re.M)
        ours = [command for command in commands if command != "/bin/kill"]
        assert ours and all(command.startswith("/opt/gatehouse/") for command in ours), unit.name
        for command in ours:
            assert (tmp_path / command[1:]).exists(), f"{unit.name}: {command} is not installed"


def test_nothing_is_written_outside_destdir(build, tmp_path):
    """With everything else read-only, installing still works."""
    script = """
        mount --make-rprivate / && mount --bind "$1" "$1" || exit 77
        for folder in / /usr /etc /lib /var /home /opt "$2"; do
            [ -d "$folder" ] || continue
            mount --bind "$folder" "$folder" && mount -o remount,ro,bind "$folder" || exit 77
        done
        mount --bind "$1" "$1" && mount -o remount,rw,bind "$1" || exit 77
        ! touch /usr/probe 2>/dev/null || exit 77
        cd "$2" && exec make -s OUT="$3" install DESTDIR="$1"
    """
    target = tmp_path / "root"
    target.mkdir()
    words = ["unshare", "--mount", "sh", "-c", script, "sh", target, ROOT]
    done = run(*words, os.path.relpath(build, ROOT))
    if done.returncode in (1, 77) and not files_below(target):
        pytest.skip(f"no mount namespace to make read-only: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "usr/sbin/nlbd" in files_below(target)


# --- units ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def units(installed, tmp_path_factory):
    """The installed units with their commands where they are here, for systemd-analyze to find."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        text = (installed / "lib/systemd/system" / unit.name).read_text()
        text = re.sub(r"(?m)^(Exec\w+=)/usr/", rf"\1{installed}/usr/", text)
        # The pages are checked below; here they are not where man looks.
        text = re.sub(r"(?m)^Documentation=.*\n", "", text)
        (folder / unit.name).write_text(text)
    return folder


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_systemd_understands_the_unit(units, name):
    needs("systemd-analyze")
    done = run("systemd-analyze", "verify", "--recursive-errors=no", units / name)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_unit_is_hardened(units, name):
    needs("systemd-analyze")
    threshold = EXPOSURE_MAX.get(name, 2.0)
    done = run(
        *("systemd-analyze", "security", "--offline=yes", f"--threshold={threshold * 10:.0f}"),
        units / name,
    )
    if "Unknown" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge files")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_stop_waits_longer_than_draining():
    unit = (ROOT / "config/systemd/gatehouse-gateway@.service").read_text()
    waits_s = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])
    schema = json.loads((ROOT / "config/schema/gatewayd.json").read_text())["properties"]
    drain_ms = schema["drain_delay_ms"]["default"] + schema["drain_timeout_ms"]["default"]
    assert waits_s > drain_ms / 1000 + 2, "2 s more are for leaving the registry"


def test_units_use_user_and_folder_that_are_made():
    sysusers = (ROOT / "config/systemd/sysusers.conf").read_text()
    tmpfiles = (ROOT / "config/systemd/tmpfiles.conf").read_text()
    assert re.search(r"^u gatehouse ", sysusers, re.M)
    assert re.search(r"^d /run/gatehouse 2770 root gatehouse ", tmpfiles, re.M)
    for unit in UNITS:
        text = unit.read_text()
        users = re.findall(r"^(?:User|Group)=(\S+)$", text, re.M)
        assert set(users) <= {"root", "gatehouse"}, unit.name
        assert "/run/gatehouse" in text or not re.search(r"nlbd|gatewayd", text), unit.name


def test_systemd_makes_them(tmp_path):
    needs("systemd-sysusers")
    if os.geteuid() != 0:
        pytest.skip("making users, even below another root, needs root")
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", f"--root={tmp_path}", ROOT / "config/systemd/sysusers.conf")
    assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "etc/passwd").read_text()
    assert re.search(r"^gatehouse:", passwd, re.M)
    options = ["--create", f"--root={tmp_path}", ROOT / "config/systemd/tmpfiles.conf"]
    done = run("systemd-tmpfiles", *options)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "run/gatehouse").stat()
    assert made.st_mode & 0o7777 == 0o2770


SMALLEST = {
    "registryd": lambda: {"bind": f"127.0.0.1:{free_port()}"},
    "gatewayd": lambda: {
        "domain": "x",
        "listeners": [{"bind": f"127.0.0.1:{free_port()}"}],
        "admin": {"bind": f"127.0.0.1:{free_port()}"},
        "routes": [{"name": "x", "match": {"path": "/"}, "respond": {}}],
    },
}


@pytest.mark.parametrize("name", SMALLEST)
def test_daemon_speaks_to_systemd(name, tmp_path, procs, program):
    """Readiness and watchdog, as Type=notify and WatchdogSec in the units want them."""
    config = SMALLEST[name]()
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        proc = procs.start(name, [program(name), "-c", path], env=env)
        said = [notify.recv(100).decode() for _ in range(4)]
        assert "READY=1" in said and said.count("WATCHDOG=1") >= 2, said
        proc.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "RELOADING=1" not in said and time.monotonic() < deadline:
            said.append(notify.recv(100).decode())
        assert "RELOADING=1" in said
    assert proc.stop() == 0


# --- manual pages ---------------------------------------------------------------------------


def plain(text):
    """A page without its escapes, so that options can be found as they are typed."""
    return text.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")


@pytest.mark.parametrize("page", MANUALS, ids=lambda page: page.name)
def test_page_is_well_formed(page):
    if shutil.which("mandoc"):
        done = run("mandoc", "-Tlint", "-Wwarning", page)
    else:
        needs("man")
        done = run("man", "--warnings", "-E", "UTF-8", "-l", page)
        done.stdout = done.stderr
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout


def test_references_are_current():
    done = run(ROOT / "scripts/schema-to-man.py", "--check")
    assert done.returncode == 0, done.stderr


def member_paths(schema, path=""):
    for name, member in schema.get("properties", {}).items():
        if name == "$schema":
            continue
        here = f"{path}.{name}" if path else name
        yield here
        yield from member_paths(member, here)
        if isinstance(member.get("items"), dict):
            yield from member_paths(member["items"], here + "[]")
        if isinstance(member.get("additionalProperties"), dict):
            yield from member_paths(member["additionalProperties"], here + ".NAME")


@pytest.mark.parametrize("name", DAEMONS)
def test_reference_has_every_member(name, program):
    """Against what the program prints, whatever the files in between say."""
    schema = json.loads(run(program(name), "--schema").stdout)
    page = plain((ROOT / f"docs/man/{REFERENCES[name]}.5").read_text())
    missing = [path for path in member_paths(schema) if f'Va "{path}"' not in page]
    assert not missing, "run make schema"


@pytest.mark.parametrize("name", [*DAEMONS, *TOOLS])
def test_page_has_every_option_and_command(name, program):
    said = run(program(name), "--help").stdout
    section = 8 if name in DAEMONS else 1
    page = plain((ROOT / f"docs/man/{name}.{section}").read_text())
    # Daemons' examples name options of other programs.
    place = r"(?m)^ +(?:-\w, )?" if name in DAEMONS else r"(?<![\w-])"
    options = set(re.findall(place + r"--([a-z][a-z-]+)", said))
    missing = [option for option in options if f"Fl -{option}" not in page]
    assert options and not missing, missing
    if name in TOOLS:
        commands = set(re.findall(r"^  ([a-z]+)(?= |$)", said, re.M)) - {name, "ip"}
        unknown = [command for command in commands if not re.search(rf"\bCm {command}\b", page)]
        assert commands and not unknown, unknown


def test_every_program_has_a_page():
    names = {page.name for page in MANUALS}
    assert {f"{name}.8" for name in DAEMONS} <= names
    assert {f"{name}.1" for name in TOOLS} <= names
    assert {f"{name}.5" for name in REFERENCES.values()} <= names


# --- docs/*.md ------------------------------------------------------------------------------

PAGES = sorted((ROOT / "docs").glob("*.md"))
CHECKED_BY = {"gateway.md": "gatewayd", "nlb.md": "nlbd", "registry.md": "registryd"}
# Their examples are members for the first configuration of gateway.md.
OF_THE_GATEWAY = [
    *("identity.md", "rate-limits.md", "routing.md", "versions.md"),
    *("services.md", "grpc.md", "tls.md", "observability.md"),
]


def json_blocks(name):
    return re.findall(r"^```json\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def host_files(tmp_path_factory):
    """What the examples name below /etc/gatehouse."""
    folder = tmp_path_factory.mktemp("etc")
    (folder / "tls").mkdir()
    authority = identity.Authority(str(folder / "ca"))
    authority.issue("rider", ["api.rider.example.com"], directory=str(folder))
    signer = identity.Signer(str(folder / "jwks"), "rider", "ES256", "i", "a")
    os.rename(signer.jwks, folder / "rider.jwks.json")
    (folder / "hash-seed").write_text("0123456789abcdef\n")
    authority.issue("partner", ["*.partner.example.com"], directory=str(folder / "tls"))
    (folder / "tls/ticket.keys").write_bytes(os.urandom(80))
    (folder / "tls/ticket.keys").chmod(0o600)
    authority.issue("registry", ["registry.example.com"], directory=str(folder / "tls"))
    authority.issue("internal-ca", ["ca.internal"], directory=str(folder))
    (folder / "internal-ca.crt").rename(folder / "internal-ca.pem")
    shutil.copy(folder / "internal-ca.pem", folder / "tls/partner-ca.pem")
    (folder / "partner-keys.json").write_text('{"keys": []}')
    (folder / "registry").mkdir()
    for name in ("deploy", "users"):
        (folder / "registry" / f"{name}.token").write_text(f"{name}-token-of-a-good-length\n")
    return folder


def add_example(config, block):
    """A single route, or members: those of `auth` and `services` and routes are added, others replaced."""
    block = {"routes": [block]} if "match" in block else dict(block)
    if "routes" in block and "routes" in config:
        block["routes"] = [*config["routes"], *block["routes"]]
    for name in ("auth", "services"):
        if name in block:
            block[name] = {**config.get(name, {}), **block[name]}
    config.update(block)


@pytest.mark.parametrize("name", [*CHECKED_BY, *OF_THE_GATEWAY])
def test_examples_in_pages_are_good(name, program, host_files, tmp_path):
    whole = [json.loads(block) for block in json_blocks(name)]
    assert whole
    if name in OF_THE_GATEWAY:
        whole.insert(0, json.loads(json_blocks("gateway.md")[0]))
    complete = whole[0]
    for block in whole[1:]:
        add_example(complete, block)
    names = [route["name"] for route in complete.get("routes", [])]
    assert len(names) == len(set(names))
    path = tmp_path / "config.json"
    path.write_text(re.sub("/(etc|var/log)/gatehouse/", f"{host_files}/", json.dumps(complete)))
    done = run(program(CHECKED_BY.get(name, "gatewayd")), "-c", path, "--check", cwd=host_files)
    assert done.returncode == 0, done.stderr


def test_first_configuration_works_as_written(build, tmp_path):
    """The commands of docs/gateway.md, one after the other, in a network of their own."""
    text = (ROOT / "docs/gateway.md").read_text()
    section = re.search(r"^## A first configuration\n(.*?)^## ", text, re.M | re.S)[1]
    socket_path = f"{tmp_path}/s"
    section = section.replace("/tmp/rider.sock", socket_path)
    blocks = re.findall(r"^```(json|sh)\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "rider.json").write_text(next(body for kind, body in blocks if kind == "json"))
    commands = "".join(body for kind, body in blocks if kind == "sh")
    script = f"ip link set lo up || exit 77\nset -e\n{commands}kill $(jobs -p)\nwait\n"
    env = {**os.environ, "PATH": f"{build}:{os.environ['PATH']}"}
    # Nothing outlives the process namespace, however the commands end.
    words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50)
    if done.returncode in (1, 77) and "unshare" in done.stderr:
        pytest.skip(f"no network namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('{"name": "Alice"}') == 2 and "domain       rider" in done.stdout
    records = [json.loads(line) for line in (tmp_path / "rider-access.log").read_text().splitlines()]
    assert [(r["status"], r["userId"]) for r in records] == [(200, "u1")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" in target or target == "benchmarks.md":  # written by make bench
            continue
        assert (page.parent / target).exists(), target
        assert ".." not in target, "docs/ is installed without the rest"


def families(text):
    return set(re.findall(r"^# TYPE (\S+)", text, re.M))


def test_every_metric_is_listed(rig, registry, program):
    page = (ROOT / "docs/operations.md").read_text()
    rig_metrics = run(program("gatewayctl"), "--url", f"http://127.0.0.1:{rig.ports['admin']}", "metrics")
    found = families(rig_metrics.stdout)
    answer = run("curl", "-s", f"{registry.url}/metrics")
    found |= families(answer.stdout)
    # Some of them only with the store in Redis.
    sources = (ROOT / "registry/admin.c").read_text()
    found |= set(re.findall(r'"(gatehouse_registry_\w+[a-z])"', sources)) - {"gatehouse_registry_http"}
    found |= set(re.findall(r'"(gatehouse_\w+)"', (ROOT / "gateway/metrics.c").read_text()))
    sources = (ROOT / "nlb/ctl.c").read_text()
    found |= set(re.findall(r'"(gatehouse_nlb_\w+[a-z])"', sources)) - {"gatehouse_nlb_admin"}
    found |= {f"gatehouse_nlb_gateway_{field}_total" for field in re.findall(r"FAMILY\((\w+), \"", sources)}
    assert len(found) > 60
    missing = []
    for name in sorted(found):
        prefix = re.match(r"gatehouse_(registry_http|nlb_admin)_(.*)", name)
        if f"`{prefix[2]}`" not in page if prefix else f"`{name}`" not in page:
            missing.append(name)
    assert not missing
    # And none that is there no more.
    listed = set(re.findall(r"`(gatehouse_\w+[a-z])`", page))
    assert listed <= found | {"gatehouse_build_info"}, listed - found


def test_every_reason_and_drop_is_explained():
    page = (ROOT / "docs/gateway.md").read_text()
    source = (ROOT / "gateway/request.c").read_text()
    reasons = re.findall(r"\[REASON_\w+\] = \"(\w+)\"", source)
    assert len(reasons) > 15
    assert [r for r in reasons if r != "ok" and f"`{r}`" not in page] == []
    abi = (ROOT / "bpf/nlb_abi.h").read_text()
    block = abi[abi.index("#define NLB_REASONS") : abi.index("NLB_REASON_ENUM")]
    drops = re.findall(r"X\(\w+, \"(\w+)\"", block)
    page = (ROOT / "docs/nlb.md").read_text()
    assert len(drops) > 10
    assert [d for d in drops if f"`{d}`" not in page] == []
