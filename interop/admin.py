"""HTTP for operators on real processes: Prometheus' own parser, the page in a real browser, what scrapes cost."""

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from . import servers, wire
from .ensemble import Ensemble, eventually, free_ports
from .suite import Suite

PROMETHEUS = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
# Families that dashboards use and a member that serves has to show.
WANTED = """
    avg_latency max_latency min_latency packets_received packets_sent num_alive_connections outstanding_requests uptime znode_count
    watch_count ephemerals_count approximate_data_size global_sessions open_file_descriptor_count max_file_descriptor_count
    quorum_size readlatency updatelatency fsynctime election_time unavailable_time looking_count connection_request_count
    bytes_received_count response_bytes dbinittime startup_txns_loaded process_cpu_seconds_total process_resident_memory_bytes
""".split()


def with_http(ensemble, prometheus=False, more=()):
    """Gives each member its ports for HTTP, in addition to what its configuration says."""
    for member in ensemble.members:
        member.admin_port, member.metrics_port = free_ports(2)
        lines = ["admin.enableServer=true", "admin.serverAddress=127.0.0.1", f"admin.serverPort={member.admin_port}"]
        lines += more
        if prometheus:
            lines += [f"metricsProvider.className={PROMETHEUS}", "metricsProvider.httpHost=127.0.0.1",
                      f"metricsProvider.httpPort={member.metrics_port}"]
        with open(os.path.join(member.directory, "zoo.cfg")) as file:
            text = file.read().replace("admin.enableServer=false\n", "")
        with open(os.path.join(member.directory, "zoo.cfg"), "w") as file:
            file.write(text + "\n".join(lines) + "\n")
    return ensemble


def get(port, path="/metrics"):
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def parsers():
    """Prometheus' parser reads /metrics of every role, under load, and the figures are what was done."""
    from prometheus_client.parser import text_string_to_metric_families

    with with_http(Ensemble(["zabd"] * 3, ["zabd"]), prometheus=True) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        client = wire.Client(leader.address, 30000)
        for number in range(200):
            client.create(f"/n{number}", b"x" * 100)
        families = {}
        for member in ensemble.members:
            status, text = get(member.metrics_port)
            assert status == 200, f"{member}: {status}"
            found = {family.name: family for family in text_string_to_metric_families(text)}
            families[member] = found
            # The parser takes `_total` away from a counter's name, and adds it to its samples.
            missing = [name for name in WANTED if name not in found and name.removesuffix("_total") not in found]
            assert not missing, f"{member}: no {missing}"
            for family in found.values():
                assert family.samples or family.type == "summary", f"{member}: {family.name} is empty"
                assert all(sample.value == sample.value or "quantile" in sample.labels for sample in family.samples), family
        writes = {sample.name: sample.value for sample in families[leader]["updatelatency"].samples if not sample.labels}
        assert writes["updatelatency_count"] >= 200, writes
        assert get(leader.metrics_port, "/commands")[0] == 404
        names = text_string_to_metric_families(get(leader.metrics_port, "/metrics?name[]=znode_count")[1])
        assert [family.name for family in names] == ["znode_count"]
        client.close()
        return f"{len(families[leader])} families on the leader"


def https():
    """Python's OpenSSL speaks HTTPS with the AdminServer: with a trusted certificate, without one, and in plain HTTP."""
    data = os.path.join(servers.ROOT, "zab-tls", "tests", "data")
    path = lambda name: os.path.join(data, name)  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="https-") as directory:
        store = os.path.join(directory, "server.pem")
        with open(store, "w") as out:
            for name in ("leaf.key", "chain.pem"):
                with open(path(name)) as part:
                    out.write(part.read())
        more = ["admin.forceHttps=true", "admin.needClientAuth=true", f"ssl.quorum.keyStore.location={store}",
                f"ssl.quorum.trustStore.location={path('ca.pem')}"]
        with with_http(Ensemble(["zabd"]), more=more) as ensemble:
            ensemble.start()
            port = ensemble.members[0].admin_port
            known, stranger = (ssl.create_default_context(cafile=path("ca.pem")) for _ in range(2))
            known.load_cert_chain(path("chain.pem"), path("leaf.key"))

            def ask(context, url):
                with urllib.request.urlopen(f"{url}:{port}/commands/ruok", timeout=20, context=context) as answer:
                    return answer.status, answer.headers.get("Strict-Transport-Security")

            status, policy = ask(known, "https://127.0.0.1")
            assert status == 200 and policy == "max-age=86400; includeSubDomains", (status, policy)
            for context, url in ((stranger, "https://127.0.0.1"), (None, "http://127.0.0.1")):
                try:
                    raise AssertionError(f"{url} is answered: {ask(context, url)}")
                except (OSError, http.client.HTTPException) as error:
                    last = type(error).__name__
            return f"refused otherwise, at last by {last}"


def agree():
    """`monitor` and `mntr` have the same lines."""
    with with_http(Ensemble(["zabd"] * 3)) as ensemble:
        ensemble.start()
        ensemble.settled()
        for member in ensemble.members:
            # What is not known yet is not shown, and may come to be known between two questions.
            eventually(f"{member} knows whether it can be stopped", lambda: "zk_zab_safe_to_stop" in member.words("mntr"), 20)
            lines = [line.split("\t") for line in member.words("mntr").splitlines()]
            answer = json.loads(get(member.admin_port, "/commands/monitor")[1])
            ours = {name for name in answer if name not in ("command", "error")}
            theirs = {name.removeprefix("zk_") for name, _ in lines}
            assert ours == theirs, ours ^ theirs
        return f"{len(ours)} lines"


def probes():
    """Probes follow what happens: a member that loses its majority is alive, and not ready."""
    with with_http(Ensemble(["zabd"] * 3)) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        eventually("it may be stopped", lambda: get(leader.admin_port, "/safe-to-stop")[0] == 200)
        others = [member for member in ensemble.members if member is not leader]
        others[0].kill()
        eventually("it is needed", lambda: get(leader.admin_port, "/safe-to-stop")[1].startswith("no: "))
        others[1].kill()
        eventually("it does not serve", lambda: get(leader.admin_port, "/ready")[0] == 503)
        status, text = get(leader.admin_port, "/ready")
        assert "waits for" in text, text
        assert get(leader.admin_port, "/alive") == (200, "alive\n")
        assert get(leader.admin_port, "/safe-to-stop")[0] == 503
        others[0].start()
        eventually("it serves again", lambda: get(leader.admin_port, "/ready")[0] == 200)
        text = get(leader.admin_port, "/metrics")[1]
        assert 'zab_failovers{key="' in text, text
        return text.split('zab_failovers{key="')[1].split('"')[0]


def browser(profile):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1500",
                     f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def page(screenshot=None):
    """The page in Chromium: it loads, follows the kill of the leader by itself, and the console has no error."""
    with with_http(Ensemble(["zabd"] * 3, ["zabd"], tick_ms=1000)) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        watched = next(member for member in ensemble.voters if member is not leader)
        profile = tempfile.mkdtemp(prefix="interop-chromium-")
        driver = browser(profile)
        stop = threading.Event()
        for member in ensemble.voters:
            threading.Thread(target=write, args=(member.address, stop), daemon=True).start()
        try:
            def text(element):
                return driver.execute_script("return document.getElementById(arguments[0]).innerText", element)
            driver.get(f"http://127.0.0.1:{watched.admin_port}/")
            eventually("the page is live", lambda: text("link") == "live" and "follower" in text("role"), 20)
            assert f"Server {watched.sid}" in text("name")
            assert len(text("members").splitlines()) >= 5, text("members")
            first = text("where")
            eventually("it goes on by itself", lambda: text("where") != first, 20)
            time.sleep(5)
            losses = len(text("failovers").splitlines())
            leader.kill()
            killed = time.monotonic()
            eventually("the page shows the loss", lambda: len(text("failovers").splitlines()) > losses, 30)
            shown = time.monotonic() - killed
            eventually("and the next leader", lambda: f"leader {leader.sid}" not in text("failovers").splitlines()[1], 10)
            changes = text("changes")
            assert "looking" in changes and "broadcast" in changes, changes
            # The leader's page knows the lag of all.
            head = ensemble.settled()
            driver.get(f"http://127.0.0.1:{head.admin_port}/")
            eventually("the leader's page", lambda: "leader" in text("role") and "synchronised" in text("members"), 20)
            leader.start()
            ensemble.serving()
            time.sleep(40 if screenshot else 3)
            if screenshot:
                driver.save_screenshot(screenshot)
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
            colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert colour == "rgb(17, 21, 28)", colour
            if screenshot:
                driver.save_screenshot(screenshot.replace(".png", "-dark.png"))
            # The server is down while the page is open: it says so, and comes back by itself.
            head.terminate()
            eventually("the page notices", lambda: text("link") == "connecting again", 20)
            head.start()
            ensemble.serving()
            eventually("and connects again", lambda: text("link") == "live", 30)
            # Of a server that is down the browser says so, once for each attempt.
            errors = [entry["message"] for entry in driver.get_log("browser")
                      if entry["level"] == "SEVERE" and "ERR_CONNECTION_REFUSED" not in entry["message"]
                      and "ERR_INCOMPLETE_CHUNKED_ENCODING" not in entry["message"] and "ERR_CONNECTION_RESET" not in entry["message"]]
            assert not errors, errors
        finally:
            stop.set()
            driver.quit()
            shutil.rmtree(profile, ignore_errors=True)
        return f"shown {shown * 1000:.0f} ms after the kill"


def write(address, stop):
    """A little load on one member, whenever it is there."""
    number = 0
    while not stop.is_set():
        try:
            client = wire.Client(address, 10000)
            while not stop.is_set():
                number += 1
                path = f"/page{number % 500}"
                client.ensure(path)
                client.set(path, b"x" * (number % 200))
                for _ in range(number % 7):
                    client.get(path)
                time.sleep(0.005)
        except (OSError, wire.Closed, wire.ZkError):
            time.sleep(0.1)


def main(options):
    suite = Suite("interop admin")
    wanted = options.only.split(",") if options.only else None

    def case(name, function, *args):
        if wanted is None or any(word in name for word in wanted):
            suite.case(name, function, *args, limit=240)

    servers.check(["zabd"])
    case("Prometheus' parser", parsers)
    case("HTTPS", https)
    case("monitor and mntr", agree)
    case("probes", probes)
    case("the page in Chromium", page, options.screenshot)
    case("what scrapes cost", cost, options.scrapes)
    if options.only and "throughput" in options.only:
        # Needs `cargo build --release -p benches --bin load`, and a quiet machine.
        case("throughput with scrapes and pages", throughput, options.rounds)
    return suite.close()


def thread_seconds(member):
    """Processor time of each thread so far, by its name."""
    seconds = {}
    directory = f"/proc/{member.process.pid}/task"
    for thread in os.listdir(directory):
        with open(f"{directory}/{thread}/comm") as name, open(f"{directory}/{thread}/schedstat") as times:
            key = name.read().strip()
            seconds[key] = seconds.get(key, 0) + int(times.read().split()[0]) / 1e9
    return seconds


def cost(count):
    """What a scrape and an open page take of the loop's thread and of the other one, on a leader with a thousand nodes."""
    with with_http(Ensemble(["zabd"] * 3), prometheus=True) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        client = wire.Client(leader.address, 30000)
        for number in range(1000):
            client.ensure(f"/cost{number}")

        def measured(work):
            before = thread_seconds(leader)
            work()
            after = thread_seconds(leader)
            admin = after["admin"] - before["admin"]
            # The loop has the process' first thread or one of its own; all others but the disk's wait.
            others = {name: after[name] - before.get(name, 0) for name in after if name != "admin"}
            return max(others.values()), admin

        def nothing():
            time.sleep(10)

        def scrape():
            for _ in range(count):
                get(leader.metrics_port)

        def watch():
            with urllib.request.urlopen(f"http://127.0.0.1:{leader.admin_port}/live", timeout=20) as events:
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    events.readline()

        idle, _ = measured(nothing)
        begin = time.monotonic()
        loop, admin = measured(scrape)
        loop -= idle * (time.monotonic() - begin) / 10
        page_loop, page_admin = measured(watch)
        client.close()
        each = lambda seconds: f"{seconds / count * 1e6:.0f} us"  # noqa: E731
        assert loop / count < 0.002, f"a scrape takes {each(loop)} of the loop"
        return (f"a scrape takes {each(loop)} of the loop's thread and {each(admin)} of the other; an open page "
                f"{(page_loop - idle) / 10 * 1e6:.0f} us and {page_admin / 10 * 1e6:.0f} us in a second; an idle leader's loop {idle / 10 * 1e6:.0f} us")


def load(ensemble, mix, in_flight, requests):
    """What `benches/src/bin/load.rs` says of nine connections: requests per second, and latencies with one request in flight each."""
    addresses = [f"{host}:{port}" for host, port in (member.address for member in ensemble.members)]
    command = [os.path.join(servers.ROOT, "target/release/load"), mix, "9", str(in_flight), str(requests), *addresses]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    rate = int(re.search(r"^(\d+)/s", text).group(1))
    latencies = re.search(r"median (\d+), 99 % (\d+)", text)
    return (rate, *map(int, latencies.groups())) if latencies else (rate,)


def throughput(rounds):
    """Writes and reads with nobody looking, with all members scraped every second, and with a page open on each: by turns in one run,
    so that what else the machine does meets all of them."""
    ways = ("nobody looks", "scraped every second", "a page open on each")
    loads = {"writes": ("writes", 32, 100_000), "single writes": ("writes", 1, 5000), "reads": ("reads", 32, 1_000_000)}
    with with_http(Ensemble(["zabd"] * 3), prometheus=True) as ensemble:
        ensemble.start()
        ensemble.settled()
        load(ensemble, "creates", 32, 2000)

        def look(way, stop):
            def scrape():
                while not stop.wait(1):
                    for member in ensemble.members:
                        get(member.metrics_port)

            def watch(member):
                with urllib.request.urlopen(f"http://127.0.0.1:{member.admin_port}/live", timeout=20) as events:
                    while not stop.is_set():
                        events.readline()

            if way == ways[1]:
                return [threading.Thread(target=scrape)]
            return [threading.Thread(target=watch, args=[m]) for m in ensemble.members] if way == ways[2] else []

        found = {}
        for turn in range(rounds):
            for way in ways[turn % 3:] + ways[:turn % 3]:
                stop = threading.Event()
                threads = look(way, stop)
                for thread in threads:
                    thread.start()
                for name, one in loads.items():
                    found.setdefault((way, name), []).append(load(ensemble, *one))
                stop.set()
                for thread in threads:
                    thread.join()
        # Of several runs the median one, by its rate.
        middle = lambda way, name: sorted(found[way, name])[rounds // 2]  # noqa: E731
        print("| | writes/s | reads/s | one write: median, 99 % |\n|---|---:|---:|---:|")
        for way in ways:
            _, median, tail = middle(way, "single writes")
            rates = " | ".join(f"{middle(way, name)[0]:,}" for name in ("writes", "reads"))
            print(f"| {way} | {rates} | {median / 1000:.2f} ms, {tail / 1000:.2f} ms |", flush=True)
        return f"writes while scraped: {middle(ways[1], 'writes')[0] / middle(ways[0], 'writes')[0]:.3f} of those without"
