"""What goes to a broker, with a real one (mosquitto) on the loopback interface."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edge.outputs import mqtt
from edge.outputs.mqtt import PASSWORD_VARIABLE, MqttOutput, discovery_of, parse_url, state_of
from firmware_bridge.errors import InputError
from tests.conftest import REPO
from tests.edge.moments import LABELS, event, moment

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_broker = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")

PATIENCE_S = 30
"""Until something that does not come is given up; nothing is measured by it."""

SOURCE, TOPIC = "ble:Polar Sense 0A1B", "aura-edge/polar_sense_0a1b"
DISCOVERY = "homeassistant/device/aura_edge_polar_sense_0a1b/config"


def wait_for(is_true: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Broker:
    """A mosquitto on a port of its own. It keeps nothing on disk."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\npersistence false\n{settings}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stderr=subprocess.DEVNULL
        )
        wait_for(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Listener:
    """Someone who hears all that a broker hands out."""

    def __init__(self, broker: Broker, user: str | None = None) -> None:
        self.heard: list[tuple[str, str, bool]] = []
        subscribed: list[bool] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(user, "secret" if user else None)
        self._client.on_connect = lambda *_: self._client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.append(True)
        self._client.on_message = lambda _client, _data, m: self.heard.append(
            (m.topic, m.payload.decode(), m.retain)
        )
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        wait_for(lambda: subscribed)

    def of(self, topic: str) -> list[Any]:
        """Payloads of a topic so far."""
        payloads = [payload for where, payload, _ in self.heard if where == topic]
        is_json = not topic.endswith("availability")
        return [json.loads(p) for p in payloads] if is_json else payloads

    def retained(self) -> set[str]:
        return {topic for topic, _, is_retained in self.heard if is_retained}

    def wait_for(self, topic: str, n: int = 1) -> list[Any]:
        wait_for(lambda: len(self.of(topic)) >= n)
        return self.of(topic)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def broker(tmp_path: Path, at_end: ExitStack) -> Broker:
    broker = Broker(tmp_path)
    at_end.callback(broker.stop)
    broker.start()
    return broker


@pytest.fixture
def said() -> list[str]:
    return []


def make_output(url: str, said: list[str]) -> MqttOutput:
    return MqttOutput(url, SOURCE, LABELS, 1.0, "1.2.3", said.append)


def listen(at_end: ExitStack, broker: Broker, user: str | None = None) -> Listener:
    listener = Listener(broker, user)
    at_end.callback(listener.close)
    return listener


@needs_broker
def test_a_run_is_heard_and_what_holds_on_is_retained(
    broker: Broker, said: list[str], at_end: ExitStack
) -> None:
    listener = listen(at_end, broker)
    output = make_output(broker.url, said)
    wait_for(lambda: said)
    output.show(moment(5.0, "walking", (event(1, "walking", 2.0, 5.0, False),)), None)
    output.show(moment(6.0, "walking", (event(1, "walking", 2.0, 6.0, False),)), None)
    output.show(
        moment(
            7.0,
            "sitting",
            (event(1, "walking", 2.0, 6.5, True), event(2, "sitting", 6.5, 7.0, False)),
        ),
        None,
    )
    output.finish((event(2, "sitting", 6.5, 8.0, True),))
    output.close()

    assert listener.wait_for(f"{TOPIC}/availability", 2) == ["online", "offline"]
    states = listener.of(f"{TOPIC}/state")
    assert [s["activity"] for s in states] == ["walking", "sitting", "sitting"], "once, and at last"
    assert states[0] == {
        "activity": "walking",
        "confidence": 0.812,
        "worn": True,
        "unknown": False,
        "end_s": 5.0,
        "rate_hz": 50.02,
        "missing": 0.0,
        "top": [
            {"label": "walking", "probability": 0.5},
            {"label": "sitting", "probability": 0.3},
            {"label": "lying", "probability": 0.2},
        ],
    }
    events = listener.wait_for(f"{TOPIC}/event", 4)
    assert [(e["event_type"], e["label"], e["end_s"]) for e in events] == [
        ("began", "walking", 5.0),
        ("ended", "walking", 6.5),
        ("began", "sitting", 7.0),
        ("ended", "sitting", 8.0),
    ]
    times = [datetime.fromisoformat(e["told_utc"]) for e in events]
    assert times == sorted(times) and times[0].tzinfo
    assert listener.retained() == set(), "who listens meanwhile hears it as news"
    late = listen(at_end, broker)
    late.wait_for(DISCOVERY)
    assert late.wait_for(f"{TOPIC}/state")[0]["activity"] == "sitting"
    assert late.wait_for(f"{TOPIC}/availability") == ["offline"]
    assert late.retained() == {DISCOVERY, f"{TOPIC}/state", f"{TOPIC}/availability"}
    assert late.of(f"{TOPIC}/event") == [], "an event of the past is no news"
    assert said == [
        f"mqtt: sending to {broker.url}",
        f"mqtt: sent 3 states and 4 events to {broker.url}",
    ]


@needs_broker
def test_the_same_state_is_sent_anew_after_a_while(
    broker: Broker, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = listen(at_end, broker)
    output = make_output(broker.url, said)
    at_end.callback(output.close)
    wait_for(lambda: said)
    for end_s in range(5, 15):
        output.show(moment(end_s), None)
    monkeypatch.setattr(mqtt, "STATE_EVERY_S", 0.0)
    output.show(moment(15.0), None)
    assert [s["end_s"] for s in listener.wait_for(f"{TOPIC}/state", 2)] == [5.0, 15.0]


@needs_broker
def test_a_killed_run_is_offline(broker: Broker, at_end: ExitStack) -> None:
    listener = listen(at_end, broker)
    script = (
        "import sys, time\n"
        "from edge.outputs.mqtt import MqttOutput\n"
        "MqttOutput(sys.argv[1], sys.argv[2], ['walking'], 1.0, '1', print)\n"
        "time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, broker.url, SOURCE], cwd=REPO, stdout=subprocess.DEVNULL
    )
    try:
        listener.wait_for(f"{TOPIC}/availability")
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert listener.wait_for(f"{TOPIC}/availability", 2) == ["online", "offline"]
    late = listen(at_end, broker)
    assert late.wait_for(f"{TOPIC}/availability") == ["offline"]


@needs_broker
def test_a_broker_that_comes_later_gets_the_newest_state_and_the_events(
    tmp_path: Path, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_RETRY_S", (1, 1))
    broker = Broker(tmp_path)
    output = make_output(broker.url, said)
    at_end.callback(output.close)
    wait_for(lambda: said)
    assert said == [
        f"mqtt: cannot reach {broker.url} (Connection refused); trying again, labels go on"
    ]
    output.show(moment(5.0, "walking", (event(1, "walking", 2.0, 5.0, False),)), None)
    output.show(moment(6.0, "sitting", (event(1, "walking", 2.0, 6.0, True),)), None)
    at_end.callback(broker.stop)
    broker.start()
    listener = listen(at_end, broker)
    assert listener.wait_for(f"{TOPIC}/availability") == ["online"]
    assert [s["activity"] for s in listener.wait_for(f"{TOPIC}/state")] == ["sitting"]
    wait_for(lambda: output.events == 2 and not output._waiting)
    assert said[1:] == [f"mqtt: sending to {broker.url}"], "told once, however often it was tried"


@needs_broker
def test_a_broker_that_restarts_is_told_everything_anew(
    broker: Broker, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_RETRY_S", (1, 1))
    output = make_output(broker.url, said)
    at_end.callback(output.close)
    wait_for(lambda: len(said) == 1)
    output.show(moment(5.0), None)
    broker.stop()
    wait_for(lambda: len(said) >= 2)
    output.show(moment(6.0, "lying"), None)
    broker.start()
    wait_for(lambda: said[-1] == f"mqtt: sending to {broker.url}" and len(said) > 2)
    assert said[1].startswith(f"mqtt: lost {broker.url} (")
    listener = listen(at_end, broker)
    listener.wait_for(DISCOVERY)
    assert listener.wait_for(f"{TOPIC}/state")[-1]["activity"] == "lying"
    output.show(moment(7.0, "sitting"), None)
    wait_for(lambda: listener.of(f"{TOPIC}/state")[-1]["activity"] == "sitting")


@needs_broker
def test_what_waits_is_bounded_and_leaves_room_for_the_state(
    tmp_path: Path, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_RETRY_S", (1, 1))
    monkeypatch.setattr(mqtt, "MAX_WAITING", 5)
    monkeypatch.setattr(mqtt, "_ROOM", 3)
    broker = Broker(tmp_path)
    output = make_output(broker.url, said)
    for number in range(1, 11):
        output.show(moment(number, "lying", (event(number, "lying", 0, number, True),)), None)
    assert (output.events, output.dropped) == (5, 15)
    at_end.callback(broker.stop)
    broker.start()
    listener = listen(at_end, broker)
    listener.wait_for(DISCOVERY)
    assert listener.wait_for(f"{TOPIC}/state")[-1]["end_s"] == 10.0
    wait_for(lambda: not output._waiting)
    output.close()
    assert said[-1].endswith("; messages that did not arrive: 15")


def test_a_run_without_a_broker_ends_and_says_so(said: list[str]) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    output = make_output(url, said)
    output.show(moment(5.0, "walking", (event(1, "walking", 2.0, 5.0, False),)), None)
    output.finish((event(1, "walking", 2.0, 5.0, True),))
    output.close()
    assert said[-1] == f"mqtt: nothing was sent: {url} was never reached"


def test_a_broker_that_says_nothing_holds_nobody_up(said: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never answers
        output = make_output(f"mqtt://127.0.0.1:{mute.getsockname()[1]}", said)
        accepted, _ = mute.accept()
        output.show(moment(5.0, "walking", (event(1, "walking", 2.0, 5.0, True),)), None)
        output.close()
        accepted.close()
    assert said[-1].endswith(" was never reached")


@needs_broker
def test_a_password_from_the_environment_is_used_and_never_told(
    tmp_path: Path, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_password = shutil.which("mosquitto_passwd")
    if not make_password:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    subprocess.run([make_password, "-b", "-c", passwords, "ann", "secret"], check=True)
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {passwords}")
    at_end.callback(broker.stop)
    broker.start()
    url = broker.url.replace("//", "//ann@")
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong-one")
    refused = make_output(url, said)
    wait_for(lambda: said)
    refused.close()
    assert said == [
        f"mqtt: {broker.url} refuses: not authorized; trying again",
        f"mqtt: nothing was sent: {broker.url} was never reached",
    ]
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    output = make_output(url, said)
    at_end.callback(output.close)
    output.show(moment(5.0), None)
    assert listen(at_end, broker, "ann").wait_for(f"{TOPIC}/state")
    assert "secret" not in "".join(said)


@needs_broker
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # paho leaves a refused socket open
def test_tls_is_checked(
    tmp_path: Path, said: list[str], at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out"]
    subprocess.run([*make, certificate], check=True, stderr=subprocess.DEVNULL)
    tls = f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}"
    broker = Broker(tmp_path, tls)
    at_end.callback(broker.stop)
    broker.start()
    url = broker.url.replace("mqtt", "mqtts")
    stranger = make_output(url, said)
    wait_for(lambda: said)
    stranger.close()
    del stranger
    gc.collect()  # while that warning is ignored
    assert said[0].startswith(f"mqtt: cannot reach {url} (") and "self-signed" in said[0]
    said.clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    output = make_output(url, said)
    at_end.callback(output.close)
    wait_for(lambda: said)
    assert said == [f"mqtt: sending to {url}"]


def test_home_assistant_is_told_what_its_schema_demands() -> None:
    discovery = discovery_of("Polar Sense", "aura-edge/polar_sense", LABELS, 1.0, "1.2.3")
    assert discovery["device"]["identifiers"] == ["aura_edge_polar_sense"]
    assert discovery["origin"]["name"] == "aura-edge"
    components = discovery["components"]
    assert {key: c["platform"] for key, c in components.items()} == {
        "activity": "sensor",
        "confidence": "sensor",
        "not_worn": "binary_sensor",
        "unknown": "binary_sensor",
        "rate": "sensor",
        "event": "event",
    }
    assert len({c["unique_id"] for c in components.values()}) == len(components)
    activity = components["activity"]
    assert activity["options"] == [*LABELS, "unknown", "not worn"]
    assert activity["expire_after"] > 3 * mqtt.STATE_EVERY_S
    slow = discovery_of("a", "b", LABELS, 3600.0, "1")["components"]["activity"]
    assert slow["expire_after"] > 2 * 3600


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("walking", ("walking", "81.0", "OFF", "OFF")),
        ("unknown", ("unknown", "81.0", "OFF", "ON")),
        ("not worn", ("not worn", "81.0", "ON", "OFF")),
        (None, ("None", "None", "None", "None")),
    ],
)
def test_home_assistants_templates_read_the_state(
    label: str | None, expected: tuple[str, ...]
) -> None:
    """Home Assistant takes "None" as: not known."""
    jinja2 = pytest.importorskip("jinja2")
    components = discovery_of("a", "b", LABELS, 1.0, "1")["components"]
    state = json.loads(json.dumps(state_of(moment(5.0, label))))

    def rendered(template: str) -> str:
        return str(jinja2.Environment().from_string(template).render(value_json=state))

    keys = ("activity", "confidence", "not_worn", "unknown")
    assert tuple(rendered(components[key]["value_template"]) for key in keys) == expected
    assert rendered(components["rate"]["value_template"]) == "50.02"
    attributes = json.loads(rendered(components["activity"]["json_attributes_template"]))
    assert attributes == {"confidence": state["confidence"], "top": state["top"]}


def test_all_recordings_are_one_device(said: list[str]) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}/my/home/"
    output = MqttOutput(url, "replay:/tmp/a.csv", LABELS, 1.0, "1", said.append)
    output.close()
    assert output._state == "my/home/replay/state"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://host", ("host", 1883, False, "aura-edge", None, None)),
        ("mqtts://host/home/ann", ("host", 8883, True, "home/ann", None, None)),
        ("mqtt://ann:a%40b@[::1]:99", ("::1", 99, False, "aura-edge", "ann", "a@b")),
    ],
)
def test_urls(url: str, expected: tuple[object, ...]) -> None:
    broker = parse_url(url)
    found = (broker.host, broker.port, broker.has_tls, broker.prefix, broker.user, broker.password)
    assert found == expected
    assert "a@b" not in str(broker)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("host:1883", "expected mqtt"),
        ("http://host", "expected mqtt"),
        ("mqtt://", "expected mqtt"),
        ("mqtt://host:99999", "Port out of range"),
        ("mqtt://" + 70 * "a", "label"),
        ("mqtt://host/a/+/b", "is no topic"),
        ("mqtt://host/a//b", "is no topic"),
        ("mqtt://:secret@host", "no user"),
    ],
)
def test_bad_urls_are_refused_without_their_password(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_in_the_open"),
    [
        ("mqtt://localhost", False),
        ("mqtt://127.0.0.1", False),
        ("mqtt://192.168.1.10", True),
        ("mqtt://broker.local", True),
        ("mqtts://broker.local", False),
    ],
)
def test_what_others_could_read_is_known(url: str, is_in_the_open: bool) -> None:
    assert parse_url(url).is_in_the_open is is_in_the_open


def test_without_paho_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(InputError, match=r"aura-edge\[mqtt\]"):
        MqttOutput("mqtt://127.0.0.1", SOURCE, LABELS, 1.0, "1", print)
