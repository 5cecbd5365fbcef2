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
import procs as procs_module

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
