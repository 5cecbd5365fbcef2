# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all end-to-end tests share.

One test by hand:  GATEHOUSE_BUILD=build pytest tests/e2e/test_gateway_http.py -k keep_alive
"""

import os
import signal
import sys

import pytest

import client
import identity
import lab as lab_module
import nlb_rig
import procs as procs_module
import rig as rig_module

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVICE = os.path.join(ROOT, "tests", "service", "service.py")
TEST_LIMIT_S = 60

_shown = []  # process groups whose logs a failing test shows


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): the test's own time limit")

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)


def pytest_unconfigure(config):
    lab_module.close_all()


def _limited(item):
    marker = item.get_closest_marker("limit")
    limit_s = marker.args[0] if marker else TEST_LIMIT_S
    if is_sanitized():
        limit_s *= 3

    def too_long(_number, _frame):
        raise TimeoutError(f"the test took longer than {limit_s} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, limit_s)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    _limited(item)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    _limited(item)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for group in _shown:
            if os.path.isdir(group.directory):
                report.sections.append((f"programs in {group.directory}", group.tails()))


def build_directory():
    return os.path.abspath(os.path.join(ROOT, os.environ.get("GATEHOUSE_BUILD", "build")))


def is_sanitized():
    return os.path.basename(build_directory()) in ("asan", "tsan")


@pytest.fixture(scope="session")
def shown_groups():
    """Process groups whose logs a failing test shows."""
    return _shown


@pytest.fixture(scope="session")
def build():
    return build_directory()


@pytest.fixture(scope="session")
def program(build):
    """The path of a built program by its name."""

    def path(name):
        full = os.path.join(build, name)
        assert os.access(full, os.X_OK), f"{full} is not built: run make"
        return full

    return path


@pytest.fixture(scope="session")
def lab_possible():
    """Skips where namespaces or BPF cannot be used."""
    reason = lab_module.why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def make_chain(build):
    """Makes a lab with a client, an NLB and gateways; see nlb_rig.Chain for the options."""
    with lab_module.Lab(build) as lab:
        yield lambda **options: nlb_rig.Chain(lab, **options)


@pytest.fixture
def make_another(build):
    """A second lab of that kind beside the first."""
    with lab_module.Lab(build) as lab:
        yield lambda **options: nlb_rig.Chain(lab, **options)


def _group(directory):
    group = procs_module.ProcGroup(str(directory))
    _shown.append(group)
    return group


def _finish(group):
    problems = group.stop_all()
    _shown.remove(group)
    assert not problems, f"{problems}\n{group.tails()}"


@pytest.fixture
def procs(tmp_path):
    """Programs of one test; it fails if one of them crashed or a sanitizer complained."""
    group = _group(tmp_path / "logs")
    yield group
    _finish(group)


@pytest.fixture(scope="module")
def module_procs(tmp_path_factory):
    """The same for a whole test file."""
    group = _group(tmp_path_factory.mktemp("logs"))
    yield group
    _finish(group)


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return identity.Authority(str(tmp_path_factory.mktemp("ca")))


class ServiceHandle:
    """A running test service: where it listens, and what it has seen."""

    def __init__(self, proc, address, port, control_port, connect=None):
        self.proc = proc
        self.address = address
        self.port = port
        self.control_port = control_port
        self.connect = connect

    def _control(self, method, target="/_seen"):
        return client.http(
            self.address, self.control_port, method, target, connect=self.connect
        ).json()

    def seen(self):
        return self._control("GET")

    def requests(self):
        return self.seen()["requests"]

    def forget(self):
        self._control("DELETE")

    def set_health(self, up):
        self._control("PUT", f"/_health?up={int(up)}")


@pytest.fixture(scope="session")
def start_service():
    """Starts a service on loopback in the given process group; returns its ServiceHandle."""

    def start(group, app, instance, *options):
        argv = [sys.executable, "-B", SERVICE, "--app", app, "--id", instance]
        argv += ["--bind", "127.0.0.1:0", "--control", "127.0.0.1:0", *options]
        proc = group.start(f"service-{instance}", argv)
        match = proc.wait_log(r'"port": (\d+), "control_port": (\d+)')
        return ServiceHandle(proc, "127.0.0.1", int(match[1]), int(match[2]))

    return start


@pytest.fixture(scope="module")
def services(module_procs, start_service):
    """Two instances of one service, echo-a and echo-b, on loopback."""
    return [start_service(module_procs, "echo", f"echo-{letter}") for letter in "ab"]


@pytest.fixture(scope="session")
def signers(tmp_path_factory):
    return rig_module.make_signers(str(tmp_path_factory.mktemp("signers")))


@pytest.fixture(scope="module")
def make_rig(module_procs, program, authority, signers, services):
    def make(directory, group=None):
        endpoints = [f"{service.address}:{service.port}" for service in services]
        return rig_module.Rig(
            directory, group or module_procs, program("gatewayd"), authority, signers, endpoints
        )

    return make


@pytest.fixture(scope="module")
def rig(tmp_path_factory, make_rig):
    """One gateway for a whole test file, before the two instances of `services`."""
    return make_rig(tmp_path_factory.mktemp("rig")).start()


@pytest.fixture
def registry(tmp_path, procs, program):
    """A real registryd on loopback."""
    return rig_module.Registry(tmp_path, procs, program("registryd")).start()


@pytest.fixture
def make_registry(tmp_path, procs, program):
    """The same with more in its configuration, and not started yet."""

    def make(**config):
        made = rig_module.Registry(tmp_path, procs, program("registryd"))
        made.write(**config)
        return made

    return make


# --- what several test files say about answers ------------------------------------------------


def seen(services):
    """All requests that the services received since forget()."""
    return [request for service in services for request in service.requests()]


def headers_of(answer):
    """The headers that the answering service received: {lower-case name: [values]}."""
    found = {}
    for name, value in answer.json()["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def assert_problem(answer, status, has_id=True):
    """The answer is the gateway's own error document; returns it.

    What could not be read as a request has no id either.
    """
    assert answer.status == status, answer
    assert answer.first("Content-Type") == "application/problem+json", answer
    document = answer.json()
    assert document["status"] == status
    assert document["title"] and document["detail"]
    assert not has_id or document["request_id"]
    return document
