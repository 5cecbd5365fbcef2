# SPDX-License-Identifier: Apache-2.0
"""TLS from clients: certificates by name, client certificates, resumption, changes on disk."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time

import pytest

import client
import identity
import rig as rig_module
from conftest import assert_problem, headers_of
from procs import wait_until

HOST = rig_module.HOST
PUBLIC, OTHER, STAFF, MODERN = (f"{n}.tls.example.net" for n in ("public", "other", "staff", "new"))
VERSIONS = ["TLSv1_2", "TLSv1_3"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """An authority that signs clients' certificates."""
    return identity.Authority(str(tmp_path_factory.mktemp("people")))


@pytest.fixture(scope="module")
def alice(people):
    return people.issue("alice", ["alice"], usage="clientAuth", names=["URI:spiffe://x/alice"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    other = identity.Authority(str(tmp_path_factory.mktemp("strangers")))
    return other.issue("alice", ["alice"], usage="clientAuth")


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    return make_rig(tmp_path, procs)


@pytest.fixture
def hosts_rig(own_rig, authority, people):
    """Several hosts under one certificate, with policies of their own."""
    names = [PUBLIC, OTHER, STAFF, MODERN]
    certificate, key = authority.issue_once("policies", names)
    tls(own_rig)["certificates"].append({"certificate": certificate, "key": key})
    tls(own_rig)["hosts"] = {
        STAFF: {"client_auth": "require", "client_ca": people.certificate},
        MODERN: {"min_version": "1.3"},
    }
    return own_rig


def tls(rig):
    return rig.config["listeners"][1]["tls"]


def context(rig, version=None, certificate=None, alpn=("http/1.1",)):
    made = client.tls_context(rig.authority.certificate, alpn)
    if version:
        made.minimum_version = made.maximum_version = ssl.TLSVersion[version]
    if certificate:
        made.load_cert_chain(*certificate)
    return made


def ask(rig, server_name, made=None, host=None, path="/echo/x", headers=()):
    made = made or context(rig)
    with rig.connect("tls", server_name, tls=made) as connection:
        return connection.request("GET", path, [("Host", host or server_name), *headers])


def refused(rig, server_name, made=None):
    """Whether the gateway ends the handshake; TLS 1.3 clients hear of it with the first read."""
    try:
        ask(rig, server_name, made)
    except (ssl.SSLError, ConnectionError, client.BadResponse):
        return True
    return False


def metric(rig, name, **labels):
    text = rig.admin("GET", "/metrics").body.decode()
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{re.escape('{' + inner + '}') if inner else ''} (\d+)$", text, re.M)
    return int(found[1]) if found else None


def failures(rig, reason):
    return metric(rig, "gatehouse_gateway_tls_handshakes_failed_total", reason=reason)


def s_client(rig, server_name, *options, data=b""):
    name = ["-servername", server_name] if server_name else ["-noservername"]
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{rig.ports['tls']}", *name, *options]
    done = subprocess.run(argv, input=data, capture_output=True, timeout=20)
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def shown_serial(rig, server_name):
    made = context(rig)
    with rig.connect("tls", server_name, tls=made) as connection:
        return int(connection.sock.getpeercert()["serialNumber"], 16)


def serial_of(certificate):
    text = identity.openssl("x509", "-in", certificate, "-noout", "-serial").decode()
    return int(text.strip().partition("=")[2], 16)


# --- which certificate ------------------------------------------------------------------------


def test_client_chooses_between_rsa_and_ecdsa(own_rig, authority, tmp_path):
    for kind in ("rsa", "ec"):
        certificate, key = authority.issue(f"two-{kind}", [PUBLIC], kind, str(tmp_path))
        tls(own_rig)["certificates"].append({"certificate": certificate, "key": key})
    own_rig.start()
    for options, kind in (
        (["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "RSA-PSS"),
        (["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "ECDSA"),
        (["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ECDSA"),
        (["-tls1_2", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], "RSA"),
    ):
        said = s_client(own_rig, PUBLIC, *options)
        assert re.search(rf"Peer signature type: {kind}", said), (options, said)
    # The default has only the one that it has.
    wait_until(lambda: failures(own_rig, "nothing_shared") == 0, "the failure counted")
    s_client(own_rig, HOST, "-tls1_3", "-sigalgs", "RSA-PSS+SHA256")
    wait_until(lambda: failures(own_rig, "nothing_shared") == 1, "the failure counted")


def test_exact_name_before_wildcard(own_rig, authority, tmp_path):
    serials = {}
    for name, dns in (("wild", "*.tls.example.net"), ("exact", PUBLIC)):
        certificate, key = authority.issue(name, [dns], directory=str(tmp_path))
        tls(own_rig)["certificates"].append({"certificate": certificate, "key": key})
        serials[name] = serial_of(certificate)
    own_rig.start()
    assert shown_serial(own_rig, PUBLIC) == serials["exact"]
    assert shown_serial(own_rig, PUBLIC.upper()) == serials["exact"]
    assert shown_serial(own_rig, OTHER) == serials["wild"]
    for name in ("tls.example.net", "a.b.tls.example.net", "unknown.example"):
        with pytest.raises(ssl.SSLCertVerificationError, match="ismatch"):
            ask(own_rig, name)  # the default's


def test_strict_names(own_rig):
    tls(own_rig)["sni_strict"] = True
    own_rig.start()
    assert ask(own_rig, HOST).status == 200
    assert ask(own_rig, "a.wild.example.com").status == 200
    for name in ("unknown.example", "a.b.wild.example.com", None):
        assert "alert number 112" in s_client(own_rig, name), name
    wait_until(lambda: failures(own_rig, "unknown_name") == 3, "the failure counted")


def test_default_certificate_without_a_name(own_rig):
    own_rig.start()
    assert f"CN = {HOST}" in s_client(own_rig, None)
    assert f"CN = {HOST}" in s_client(own_rig, "unknown.example")


def test_protocol_by_alpn(own_rig):
    own_rig.start()
    for offered, chosen in (("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")):
        assert f"ALPN protocol: {chosen}" in s_client(own_rig, HOST, "-alpn", offered)
    assert "No ALPN negotiated" in s_client(own_rig, HOST)
    assert "alert number 120" in s_client(own_rig, HOST, "-alpn", "spdy/3")
    wait_until(lambda: failures(own_rig, "alpn") == 1, "the failure counted")


# --- client certificates ----------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_required_certificate(own_rig, people, alice, stranger, version):
    tls(own_rig).update(client_auth="require", client_ca=people.certificate)
    own_rig.start()
    good = ask(own_rig, HOST, context(own_rig, version, alice))
    assert good.status == 200
    [told] = headers_of(good)["x-forwarded-client-cert"]
    der = ssl.PEM_cert_to_DER_cert(open(alice[0], encoding="ascii").read())
    digest = identity.openssl("dgst", "-sha256", data=der).split()[-1].decode()
    assert told == f'Hash={digest};Subject="CN=alice";DNS=alice;URI=spiffe://x/alice'
    assert refused(own_rig, HOST, context(own_rig, version))
    wait_until(lambda: failures(own_rig, "no_client_certificate") == 1, "the failure counted")
    assert refused(own_rig, HOST, context(own_rig, version, stranger))
    wait_until(lambda: failures(own_rig, "bad_client_certificate") == 1, "the failure counted")


def test_certificate_for_servers_is_none_for_clients(own_rig, people, tmp_path):
    tls(own_rig).update(client_auth="require", client_ca=people.certificate)
    own_rig.start()
    wrong = people.issue("server", ["server"], directory=str(tmp_path))
    assert refused(own_rig, HOST, context(own_rig, None, wrong))
    wait_until(lambda: failures(own_rig, "bad_client_certificate") == 1, "the failure counted")


@pytest.mark.parametrize("version", VERSIONS)
def test_requested_certificate(own_rig, people, alice, stranger, version):
    tls(own_rig).update(client_auth="request", client_ca=people.certificate)
    own_rig.start()
    anonymous = ask(own_rig, HOST, context(own_rig, version))
    assert anonymous.status == 200
    assert "x-forwarded-client-cert" not in headers_of(anonymous)
    known = ask(own_rig, HOST, context(own_rig, version, alice))
    assert "CN=alice" in headers_of(known)["x-forwarded-client-cert"][0]
    assert refused(own_rig, HOST, context(own_rig, version, stranger))


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_identity_cannot_be_forged(own_rig, people, listener):
    tls(own_rig).update(client_auth="request", client_ca=people.certificate)
    own_rig.config["defaults"]["underscores_in_headers"] = True
    own_rig.start()
    names = ("X-Forwarded-Client-Cert", "x-forwarded-client-cert", "X_Forwarded_Client_Cert")
    for name in names:
        for more in ([], [("Connection", name)]):
            headers = [(name, 'Hash=1;Subject="CN=root"'), *more]
            got = headers_of(own_rig.ask("GET", "/echo/x", headers, listener=listener))
            assert not [n for n in got if n.replace("_", "-") == "x-forwarded-client-cert"]


def test_connection_field_does_not_take_it_away(own_rig, people, alice):
    tls(own_rig).update(client_auth="require", client_ca=people.certificate)
    own_rig.start()
    made = context(own_rig, None, alice)
    named = [("Connection", "close, X-Forwarded-Client-Cert")]
    assert "x-forwarded-client-cert" in headers_of(ask(own_rig, HOST, made, headers=named))


@pytest.mark.parametrize("version", VERSIONS)
def test_policy_of_a_host(hosts_rig, alice, version):
    hosts_rig.start()
    assert ask(hosts_rig, PUBLIC, context(hosts_rig, version)).status == 200
    assert refused(hosts_rig, STAFF, context(hosts_rig, version))
    assert ask(hosts_rig, STAFF, context(hosts_rig, version, alice)).status == 200
    assert refused(hosts_rig, MODERN, context(hosts_rig, version)) == (version == "TLSv1_2")


def test_client_auth_needs_authorities(own_rig):
    for change in ({"client_auth": "require"}, {"hosts": {"a.b": {"client_auth": "request"}}}):
        before = dict(tls(own_rig))
        tls(own_rig).update(change)
        own_rig.write()
        done = subprocess.run(
            [own_rig.program, "-c", own_rig.config_path, "--check"], capture_output=True, text=True
        )
        assert done.returncode != 0 and 'needs a "client_ca"' in done.stderr
        own_rig.config["listeners"][1]["tls"] = before


# --- a Host of another policy -----------------------------------------------------------------


def test_host_of_another_policy_is_421(hosts_rig, services, alice):
    hosts_rig.start()
    for service in services:
        service.forget()
    with hosts_rig.connect("tls", PUBLIC, tls=context(hosts_rig)) as connection:
        for host in (STAFF, STAFF.upper(), STAFF + ".", f"{STAFF}:8443", MODERN):
            assert_problem(connection.request("GET", "/echo/x", [("Host", host)]), 421)
        assert not any(service.requests() for service in services)
        for host in (PUBLIC, OTHER, HOST, "unknown.example"):
            assert connection.request("GET", "/echo/x", [("Host", host)]).status == 200
    with hosts_rig.connect("tls", STAFF, tls=context(hosts_rig, None, alice)) as connection:
        assert connection.request("GET", "/echo/x", [("Host", STAFF)]).status == 200
        assert_problem(connection.request("GET", "/echo/x", [("Host", PUBLIC)]), 421)
    assert hosts_rig.ask("GET", "/echo/x", [("Host", STAFF)]).status == 200, "plain has no policy"
    assert hosts_rig.wait_record(status=421)["reason"] == "misdirected"


def test_host_of_another_policy_is_421_in_http2(hosts_rig):
    hosts_rig.start()
    for host, status in ((STAFF, 421), (OTHER, 200)):
        done = subprocess.run(
            [
                *("curl", "--disable", "--silent", "--http2", "--noproxy", "*", "--max-time", "10"),
                *("--cacert", hosts_rig.authority.certificate, "--header", f"Host: {host}"),
                *("--resolve", f"{PUBLIC}:{hosts_rig.ports['tls']}:127.0.0.1", "--output", "-"),
                *("--write-out", "\n%{http_code} %{http_version}"),
                f"https://{PUBLIC}:{hosts_rig.ports['tls']}/echo/x",
            ],
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines()[-1] == f"{status} 2", done


def test_reload_that_tightens_the_policy_ends_older_connections_rights(hosts_rig, people):
    hosts_rig.start()
    with hosts_rig.connect("tls", PUBLIC, tls=context(hosts_rig)) as connection:
        assert connection.request("GET", "/echo/x").status == 200
        tls(hosts_rig).update(client_auth="require", client_ca=people.certificate)
        hosts_rig.reload()
        assert_problem(connection.request("GET", "/echo/x"), 421)


# --- resumption -------------------------------------------------------------------------------


def resumed(rig, server_name, made, session, path="/ping"):
    """(whether the session was resumed, the next session, the answer)."""
    sock = socket.create_connection(("127.0.0.1", rig.ports["tls"]), 10)
    sock.settimeout(10)
    wrapped = made.wrap_socket(sock, server_hostname=server_name, session=session)
    with client.Connection(wrapped) as connection:
        connection.host = server_name
        answer = connection.request("GET", path)
        return wrapped.session_reused, wrapped.session, answer


@pytest.mark.parametrize("version", VERSIONS)
def test_resumption_stays_with_its_host(hosts_rig, alice, version):
    hosts_rig.start()
    made = context(hosts_rig, version)
    was_resumed, session, _ = resumed(hosts_rig, PUBLIC, made, None)
    assert not was_resumed
    was_resumed, session, _ = resumed(hosts_rig, PUBLIC, made, session)
    assert was_resumed
    assert metric(hosts_rig, "gatehouse_gateway_tls_handshakes_resumed_total") == 1
    assert not resumed(hosts_rig, HOST, made, session)[0]
    if version == "TLSv1_3":
        assert not resumed(hosts_rig, MODERN, made, session)[0]
    with pytest.raises((ssl.SSLError, ConnectionError, client.BadResponse)):
        resumed(hosts_rig, STAFF, made, session)
    wait_until(lambda: failures(hosts_rig, "no_client_certificate") == 1, "the failure counted")


@pytest.mark.parametrize("version", VERSIONS)
def test_resumption_keeps_the_identity(hosts_rig, alice, version):
    hosts_rig.start()
    made = context(hosts_rig, version, alice)
    _, session, first = resumed(hosts_rig, STAFF, made, None, "/echo/x")
    was_resumed, _, second = resumed(hosts_rig, STAFF, made, session, "/echo/x")
    assert was_resumed
    told = [headers_of(answer)["x-forwarded-client-cert"] for answer in (first, second)]
    assert told[0] == told[1] and "CN=alice" in told[0][0]


def test_other_authorities_end_sessions(hosts_rig, alice, people, tmp_path):
    hosts_rig.start()
    made = context(hosts_rig, None, alice)
    _, session, _ = resumed(hosts_rig, STAFF, made, None)
    others = identity.Authority(str(tmp_path / "others"))
    tls(hosts_rig)["hosts"][STAFF]["client_ca"] = others.certificate
    hosts_rig.reload()
    with pytest.raises((ssl.SSLError, ConnectionError, client.BadResponse)):
        resumed(hosts_rig, STAFF, made, session)
    wait_until(lambda: failures(hosts_rig, "bad_client_certificate") == 1, "the failure counted")


def write_over(path, data):
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


def tls_reloads(rig):
    return metric(rig, "gatehouse_gateway_tls_file_reloads_total")


def tls_mistakes(rig):
    return metric(rig, "gatehouse_gateway_tls_file_reloads_failed_total")


def settled(rig):
    """Workers take the news right after the metric tells it."""
    time.sleep(0.1)


def wait_reload(rig, before):
    wait_until(lambda: tls_reloads(rig) > before, "a file loaded again", 10)
    settled(rig)


@pytest.mark.parametrize("version", VERSIONS)
def test_tickets_of_another_gateway_and_rotation(tmp_path, make_rig, procs, version):
    keys = [os.urandom(80) for _ in range(2)]
    path = str(tmp_path / "tickets.key")
    write_over(path, keys[0])
    rigs = []
    for name in ("first", "second"):
        os.mkdir(tmp_path / name)
        rigs.append(make_rig(tmp_path / name, procs))
        tls(rigs[-1])["ticket_keys"] = path
        rigs[-1].start()
    made = context(rigs[0], version)
    _, old, _ = resumed(rigs[0], HOST, made, None)
    assert resumed(rigs[1], HOST, made, old)[0], "another gateway of the same key"
    write_over(path, keys[1] + keys[0])
    for rig in rigs:
        wait_reload(rig, 0)
    was_resumed, new, _ = resumed(rigs[0], HOST, made, old)
    assert was_resumed, "the former key still opens"
    write_over(path, keys[1])
    for rig in rigs:
        wait_reload(rig, 1)
    assert resumed(rigs[1], HOST, made, new)[0], "the new key sealed meanwhile"
    assert not resumed(rigs[0], HOST, made, old)[0], "the former key is gone"


# --- files that change ------------------------------------------------------------------------


def copy_pair(source, directory):
    for path, name in zip(source, ("tls.crt", "tls.key")):
        shutil.copyfile(path, os.path.join(directory, name))


@pytest.fixture
def pairs(authority, tmp_path):
    made = [authority.issue(f"pair-{i}", [HOST], directory=str(tmp_path)) for i in range(2)]
    return made, [serial_of(certificate) for certificate, _ in made]


def use_folder(rig, folder):
    tls(rig)["certificates"] = [{"certificate": f"{folder}/tls.crt", "key": f"{folder}/tls.key"}]


def test_files_replaced_by_rename_or_written_in_place(own_rig, pairs, tmp_path):
    (first, second), serials = pairs
    folder = tmp_path / "live"
    folder.mkdir()
    copy_pair(first, folder)
    use_folder(own_rig, folder)
    own_rig.start()
    assert shown_serial(own_rig, HOST) == serials[0]
    for path, name in zip(second, ("tls.key", "tls.crt")[::-1]):
        write_over(str(folder / name), open(path, "rb").read())
    wait_reload(own_rig, 0)
    assert shown_serial(own_rig, HOST) == serials[1]
    before = tls_reloads(own_rig)
    copy_pair(first, folder)
    wait_reload(own_rig, before)
    assert shown_serial(own_rig, HOST) == serials[0]


def test_folder_swapped_behind_a_link(own_rig, pairs, tmp_path):
    """As Kubernetes mounts secrets: tls.crt -> ..data/tls.crt, ..data -> a folder of a version."""
    (first, second), serials = pairs
    mount = tmp_path / "mount"
    for name, pair in (("..1", first), ("..2", second)):
        os.makedirs(mount / name)
        copy_pair(pair, mount / name)
    os.symlink("..1", mount / "..data")
    for name in ("tls.crt", "tls.key"):
        os.symlink(f"..data/{name}", mount / name)
    use_folder(own_rig, mount)
    own_rig.start()
    assert shown_serial(own_rig, HOST) == serials[0]
    for turn, target in ((1, "..2"), (0, "..1")):
        before = tls_reloads(own_rig)
        os.symlink(target, mount / "..data_tmp")
        os.rename(mount / "..data_tmp", mount / "..data")
        wait_reload(own_rig, before)
        assert shown_serial(own_rig, HOST) == serials[turn]
    assert tls_mistakes(own_rig) == 0


def test_links_swapped_one_after_the_other(own_rig, pairs, tmp_path):
    """As certbot renews: live/tls.key and live/tls.crt point into archive, one at a time."""
    (first, second), serials = pairs
    archive, live = tmp_path / "archive", tmp_path / "live"
    for folder in (archive, live):
        folder.mkdir()
    for number, pair in enumerate((first, second), 1):
        for path, name in zip(pair, ("crt", "key")):
            shutil.copyfile(path, archive / f"tls{number}.{name}")
    for name in ("crt", "key"):
        os.symlink(f"../archive/tls1.{name}", live / f"tls.{name}")
    use_folder(own_rig, live)
    own_rig.start()
    assert shown_serial(own_rig, HOST) == serials[0]
    for name in ("key", "crt"):
        os.unlink(live / f"tls.{name}")
        os.symlink(f"../archive/tls2.{name}", live / f"tls.{name}")
    wait_reload(own_rig, 0)
    assert shown_serial(own_rig, HOST) == serials[1]


@pytest.mark.parametrize("harm", ["foreign-key", "empty", "text", "missing"])
def test_broken_pair_keeps_the_former(own_rig, pairs, authority, tmp_path, harm):
    (first, second), serials = pairs
    folder = tmp_path / "live"
    folder.mkdir()
    copy_pair(first, folder)
    use_folder(own_rig, folder)
    other = authority.issue("beside", [PUBLIC], directory=str(tmp_path))
    tls(own_rig)["certificates"].append({"certificate": other[0], "key": other[1]})
    own_rig.start()
    key = folder / "tls.key"
    if harm == "missing":
        os.unlink(key)
    else:
        data = {"foreign-key": open(second[1], "rb").read(), "empty": b"", "text": b"nothing\n"}
        write_over(str(key), data[harm])
    wait_until(lambda: tls_mistakes(own_rig) == 1, "a mistake counted", 10)
    settled(own_rig)
    assert shown_serial(own_rig, HOST) == serials[0]
    # A renewal beside it is not held up.
    renewed = authority.issue("beside", [PUBLIC], directory=str(tmp_path))
    wait_until(lambda: tls_reloads(own_rig) >= 1, "the other one loaded again", 10)
    settled(own_rig)
    assert shown_serial(own_rig, PUBLIC) == serial_of(renewed[0])
    before = tls_reloads(own_rig)
    copy_pair(second, folder)
    wait_reload(own_rig, before)
    assert shown_serial(own_rig, HOST) == serials[1]
    assert f"{folder}/tls.crt: has changed and cannot be used" in own_rig.proc.log()


def test_authorities_that_change(own_rig, people, alice, tmp_path):
    others = identity.Authority(str(tmp_path / "others"))
    path = str(tmp_path / "ca.pem")
    shutil.copyfile(others.certificate, path)
    tls(own_rig).update(client_auth="require", client_ca=path)
    own_rig.start()
    assert refused(own_rig, HOST, context(own_rig, None, alice))
    both = open(others.certificate, "rb").read() + open(people.certificate, "rb").read()
    write_over(path, both)
    wait_reload(own_rig, 0)
    assert ask(own_rig, HOST, context(own_rig, None, alice)).status == 200


def test_reload_reads_files_again(own_rig, pairs, tmp_path):
    (first, second), serials = pairs
    folder = tmp_path / "live"
    folder.mkdir()
    copy_pair(first, folder)
    use_folder(own_rig, folder)
    own_rig.start()
    copy_pair(second, folder)
    own_rig.reload()
    settled(own_rig)
    assert shown_serial(own_rig, HOST) == serials[1]


def test_expiry_is_shown(own_rig):
    own_rig.start()
    text = identity.openssl("x509", "-in", own_rig.certificate, "-noout", "-enddate").decode()
    expected = ssl.cert_time_to_seconds(text.strip().partition("=")[2])
    name = "gatehouse_gateway_certificate_expiry_timestamp_seconds"
    assert metric(own_rig, name, certificate=own_rig.certificate) == expected


# --- what is off ------------------------------------------------------------------------------


def test_renegotiation_is_refused(own_rig):
    own_rig.start()
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{own_rig.ports['tls']}", "-tls1_2"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        time.sleep(0.5)
        process.stdin.write(b"R\n")
        process.stdin.flush()
        time.sleep(0.5)
        said, _ = process.communicate(timeout=20)
    assert b"RENEGOTIATING" in said and b"no renegotiation" in said


def test_no_early_data(own_rig, tmp_path):
    own_rig.start()
    session = str(tmp_path / "session.pem")
    request = f"GET /ping HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    s_client(own_rig, HOST, "-tls1_3", "-ign_eof", "-sess_out", session, data=request)
    assert "Max Early Data: 0" in identity.openssl("sess_id", "-in", session, "-text").decode()
    again = s_client(own_rig, HOST, "-tls1_3", "-ign_eof", "-sess_in", session, data=request)
    assert "Reused, TLSv1.3" in again and "Early data was not sent" in again


def test_handshakes_have_a_deadline(own_rig):
    own_rig.config["client"] = {"handshake_timeout_ms": 500}
    own_rig.start()
    for data in (b"", b"\x16\x03\x01\x00\xf0\x01"):
        with socket.create_connection(("127.0.0.1", own_rig.ports["tls"])) as sock:
            sock.sendall(data)
            sock.settimeout(5)
            assert sock.recv(1) == b""
    wait_until(lambda: failures(own_rig, "timeout") == 2, "the failure counted")


def test_failures_by_reason(own_rig):
    own_rig.start()
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"):
        with socket.create_connection(("127.0.0.1", own_rig.ports["tls"])) as sock:
            sock.sendall(data)
            while sock.recv(100):
                pass
    wait_until(lambda: failures(own_rig, "protocol") == 2, "the failure counted")
    with pytest.raises(ssl.SSLError):  # the client does not know the authority
        own_rig.connect("tls", tls=ssl.create_default_context())
    # Its alert may be lost to the reset that follows.
    counted = ("peer_alert", "peer_closed")
    wait_until(lambda: sum(failures(own_rig, why) for why in counted) == 1, "one counted", 5)
    assert metric(own_rig, "gatehouse_gateway_tls_handshakes_total") == 0
