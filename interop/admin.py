"""HTTP for operators on real processes: Prometheus' own parser, the page in a real browser, what scrapes cost."""

import json
import os
import shutil
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
    bytes_received_count response_bytes process_cpu_seconds_total process_resident_memory_bytes
""".split()


def with_http(ensemble, prometheus=False):
    """Gives each member its ports for HTTP, in addition to what its configuration says."""
    for member in ensemble.members:
        member.admin_port, member.metrics_port = free_ports(2)
        lines = ["admin.enableServer=true", "admin.serverAddress=127.0.0.1", f"admin.serverPort={member.admin_port}"]
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


def agree():
    """`monitor` and `mntr` have the same lines."""
    with with_http(Ensemble(["zabd"] * 3)) as ensemble:
        ensemble.start()
        for member in ensemble.members:
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
    case("monitor and mntr", agree)
    case("probes", probes)
    case("the page in Chromium", page, options.screenshot)
    case("what scrapes cost", cost, options.scrapes)
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
