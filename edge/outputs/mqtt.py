"""What a run says, sent to an MQTT broker: `edge-run --mqtt mqtt://HOST`.

    output = MqttOutput("mqtts://me@broker.local", "ble:Polar Sense", labels, hop_s, version, say)

Under PREFIX/DEVICE ("aura-edge" unless the address has a path; the device as it is opened):

| topic | retained | payload |
|---|---|---|
| .../availability | yes | "online"; "offline" once the run ends or is cut off (last will) |
| .../state | yes | JSON: what is said now (`state_of`); at changes, and every `STATE_EVERY_S` |
| .../event | no | JSON: an event of the diary that began or ended (`event_of`) |

Home Assistant finds the device by itself: its description is retained under
homeassistant/device/ID/config ("device discovery", Home Assistant 2024.11 and newer; documented at
home-assistant.io/integrations/mqtt). To remove the device, publish an empty retained message there.

Everything is sent with QoS 1 by a thread of paho's; the stream never waits. While there is no
broker, the newest state is kept, and `MAX_WAITING` events; later ones are dropped and counted.
Needs paho-mqtt (extra `mqtt`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edge.moment import NOT_WORN_LABEL, Event, Moment
from edge.pipeline import UNKNOWN_LABEL
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PASSWORD_VARIABLE = "AURA_MQTT_PASSWORD"
DEFAULT_PREFIX = "aura-edge"
DISCOVERY_PREFIX = "homeassistant"
"""Home Assistant's own default."""

STATE_EVERY_S = 10.0
"""The state is sent when another label is said, and else this often, so that the confidence is no
flood for who stores it."""

MAX_WAITING = 1000
"""Messages: at a change of activity every 20 s, the events of nearly three hours."""

_ROOM = 100
"""For more messages: what a connection begins with always finds room."""

_EXPIRES_S = 60.0
"""Without a new state for so long (the device is silent), values are no longer taken as known."""

_KEEP_ALIVE_S = 30
_CONNECT_S = 5.0
_RETRY_S = 1, 60
"""Between two attempts to connect: at first, and at most."""

_FAREWELL_S = 3.0
"""How long the end of a run waits for what is not sent yet."""

_PORTS = {"mqtt": 1883, "mqtts": 8883}

Json = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Broker:
    """Where to send to."""

    host: str
    port: int
    has_tls: bool
    prefix: str
    user: str | None
    password: str | None

    def __str__(self) -> str:
        """For people, without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.has_tls else 'mqtt'}://{host}:{self.port}"

    @property
    def is_in_the_open(self) -> bool:
        """Whether others in the network can read what is sent."""
        if self.has_tls or self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True


def parse_url(url: str) -> Broker:
    """Broker of mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/PREFIX]; the password may come from the
    environment (`PASSWORD_VARIABLE`) instead. User and password may be percent-encoded.

    Raises:
        InputError: it is none.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        host.encode("idna")
    except ValueError as error:  # UnicodeError too
        raise _bad_url(url, str(error)) from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        raise _bad_url(url, "expected mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/PREFIX]")
    prefix = unquote(parts.path).strip("/") or DEFAULT_PREFIX
    if re.search(r"[+#\0]|//|^\$", prefix):
        raise _bad_url(url, f"the prefix {prefix!r} is no topic (none of + and #, no empty level)")
    user = unquote(parts.username) if parts.username else None
    password = os.environ.get(PASSWORD_VARIABLE) if user else None
    if parts.password is not None:
        password = unquote(parts.password)
        if user is None:  # MQTT 3.1.1 knows no password without one
            raise _bad_url(url, "there is a password but no user: mqtt://USER@HOST")
    has_tls = parts.scheme == "mqtts"
    return Broker(host, port or _PORTS[parts.scheme], has_tls, prefix, user, password)


def _bad_url(url: str, why: str) -> InputError:
    shown = re.sub(r"//[^@/]*@", "//...@", url)  # no password in what is printed
    return InputError(f"--mqtt {shown}: {why}; for example --mqtt mqtt://192.168.1.10")


class MqttOutput:
    """Sends a run to a broker (an `edge.moment.Output`).

    Args:
        url: of the broker, see `parse_url`.
        source: the device's name, as in the event log ("ble:Polar Sense 1234").
        labels: what is decided between.
        hop_s: seconds between windows.
        version: of aura-edge.
        say: tells the user something; called from several threads.

    Raises:
        InputError: the URL cannot be used, or paho-mqtt is missing. A broker that cannot be reached
            is no error: it is told, and tried again.
    """

    def __init__(
        self, url: str, source: str, labels: Sequence[str], hop_s: float, version: str, say: Say
    ) -> None:
        self.broker = parse_url(url)
        self.states = self.events = self.dropped = 0
        """States and events handed over, events for which there was no room."""
        self._say = say
        name = _device_name(source)
        topic = f"{self.broker.prefix}/{_slug(name)}"
        self._availability, self._state = f"{topic}/availability", f"{topic}/state"
        self._event = f"{topic}/event"
        self._discovery_topic = f"{DISCOVERY_PREFIX}/device/aura_edge_{_slug(name)}/config"
        self._discovery = discovery_of(name, topic, labels, hop_s, version)
        self._lock = threading.Lock()  # of what follows: an old state may not follow a new one
        self._newest: Json | None = None
        self._said: tuple[str | None, bool] | None = None
        self._sent_s = 0.0
        self._begun: set[int] = set()
        self._handed = self._acknowledged = 0
        self._is_closing = False
        self._was_told = ""
        self._client = self._make_client()
        self._note_what_is_seen(url)
        self._client.connect_async(self.broker.host, self.broker.port, keepalive=_KEEP_ALIVE_S)
        self._client.loop_start()

    def show(self, moment: Moment, truth: str | None) -> None:
        """Send the state if it is time, and the events that began or ended."""
        self._send_events(moment.events)
        said = (moment.label, moment.prediction.unknown)
        now_s = time.monotonic()
        with self._lock:
            self._newest = state_of(moment)
            if said != self._said or now_s - self._sent_s >= STATE_EVERY_S:
                self._said, self._sent_s = said, now_s
                self._send_state()

    def finish(self, events: tuple[Event, ...]) -> None:
        """The stream has ended: send the events that this ended."""
        self._send_events(events)

    def close(self) -> None:
        """Say goodbye, wait a little for what is not sent yet, and disconnect."""
        client = self._client
        with self._lock:
            self._is_closing = True
            was_connected = client.is_connected()
            if was_connected:
                self._send_state()
                self._publish(self._availability, "offline", retain=True)
        self._wait_until_sent()
        client.disconnect()
        # Stopping waits for the thread, which may be waiting for a name server.
        stopping = threading.Thread(target=client.loop_stop, name="mqtt end", daemon=True)
        stopping.start()
        stopping.join(_FAREWELL_S)
        self._say(self._summary())

    def _make_client(self) -> Client:
        paho = _paho()
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"aura-edge-{secrets.token_hex(6)}"
        )
        client.username_pw_set(self.broker.user, self.broker.password)
        if self.broker.has_tls:
            client.tls_set()
        client.will_set(self._availability, "offline", qos=1, retain=True)
        client.max_queued_messages_set(MAX_WAITING + _ROOM)
        client.reconnect_delay_set(*_RETRY_S)
        client.connect_timeout = _CONNECT_S
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _note_what_is_seen(self, url: str) -> None:
        if urlsplit(url).password is not None:
            self._say(
                "note: others on this machine may see a password on the command line; "
                f"put it into {PASSWORD_VARIABLE}"
            )
        if self.broker.is_in_the_open:
            self._say(f"note: what goes to {self.broker} is not encrypted; mqtts:// is")

    def _send_events(self, events: tuple[Event, ...]) -> None:
        for event in events:
            if event.number not in self._begun:  # else it grew
                self._begun.add(event.number)
                self._send_event(event, "began")
            if event.ended:
                self._begun.remove(event.number)
                self._send_event(event, "ended")

    def _send_event(self, event: Event, kind: str) -> None:
        if self._waiting >= MAX_WAITING:
            self.dropped += 1
            return
        self.events += 1
        with self._lock:
            self._publish(self._event, json.dumps(event_of(event, kind)), retain=False)

    def _send_state(self) -> None:
        """With the lock held. Without a broker the newest state waits for `_on_connect`."""
        if self._newest is not None and self._client.is_connected():
            self._publish(self._state, json.dumps(self._newest), retain=True)
            self.states += 1

    def _publish(self, topic: str, payload: str, retain: bool) -> None:
        """Hand a message over to paho's thread, with the lock held. Does not wait."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        self._handed += info.rc != _paho().MQTT_ERR_QUEUE_SIZE

    def _wait_until_sent(self) -> None:
        until_s = time.monotonic() + _FAREWELL_S
        while self._waiting and self._client.is_connected() and time.monotonic() < until_s:
            time.sleep(0.02)

    @property
    def _waiting(self) -> int:
        """Messages that the broker has not acknowledged."""
        return self._handed - self._acknowledged

    def _summary(self) -> str:
        if not self._acknowledged:
            return f"mqtt: nothing was sent: {self.broker} was never reached"
        text = f"mqtt: sent {self.states} states and {self.events} events to {self.broker}"
        lost = self._waiting + self.dropped
        return f"{text}; messages that did not arrive: {lost}" if lost else text

    # What follows is called in paho's thread.

    def _on_connect(
        self, client: Client, _data: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            self._tell(f"{self.broker} refuses: {str(reason).lower()}; trying again")
            return
        self._tell(f"sending to {self.broker}")
        with self._lock:
            self._publish(self._discovery_topic, json.dumps(self._discovery), retain=True)
            self._publish(self._availability, "online", retain=True)
            self._send_state()

    def _on_connect_fail(self, _client: Client, _data: object) -> None:
        # paho calls this from where it caught the error.
        error = sys.exc_info()[1]
        why = (isinstance(error, OSError) and error.strerror) or error or "no answer"
        self._tell(f"cannot reach {self.broker} ({why}); trying again, labels go on")

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure and not self._was_told.startswith(f"{self.broker} refuses"):
            self._tell(f"lost {self.broker} ({str(reason).lower()}); connecting again")

    def _on_publish(self, *_: object) -> None:
        # No lock: paho holds one of its own here, that `publish` takes too.
        self._acknowledged += 1

    def _tell(self, what: str) -> None:
        """Say what is new about the connection: the same once, however often it is tried."""
        if what != self._was_told and not self._is_closing:
            self._was_told = what
            self._say(f"mqtt: {what}")


def state_of(moment: Moment) -> Json:
    """What is sent of a window; null where nothing is said."""
    prediction = moment.prediction
    label = moment.label
    return {
        "activity": label,
        "confidence": None if moment.confidence is None else round(moment.confidence, 3),
        "worn": None if label is None else label != NOT_WORN_LABEL,
        "unknown": None if label is None else label == UNKNOWN_LABEL,
        "end_s": round(prediction.end_s, 3),
        "rate_hz": round(prediction.rate_hz, 2),
        "missing": round(prediction.missing, 4),
        "top": [
            {"label": score.label, "probability": round(score.probability, 3)}
            for score in prediction.top
        ],
    }


def event_of(event: Event, kind: str) -> Json:
    """What is sent of an event that "began" or "ended"; times in seconds of the source's clock.
    `told_utc` is when the diary told of it: after an outage that was a while ago."""
    return {
        "event_type": kind,
        "told_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "number": event.number,
        "label": event.label,
        "start_s": round(event.start_s, 3),
        "end_s": round(event.end_s, 3),
        "confidence": round(event.confidence, 3),
    }


def discovery_of(name: str, topic: str, labels: Sequence[str], hop_s: float, version: str) -> Json:
    """Home Assistant's description of the device and what it measures.

    Home Assistant calls "unknown" whatever it has no value for, so that an automation asks "No
    label fits" instead of the activity.

    Args:
        name: of the device.
        topic: what its topics begin with.
        labels: what may be said, besides "unknown" and "not worn".
        hop_s: seconds between windows.
        version: of aura-edge.
    """
    device_id = f"aura_edge_{_slug(name)}"
    expires = round(max(_EXPIRES_S, 3 * hop_s))

    def entity(key: str, platform: str, label: str, template: str, **more: object) -> Json:
        return {
            "platform": platform,
            "unique_id": f"{device_id}_{key}",
            "name": label,
            "state_topic": f"{topic}/state",
            "value_template": template,
            "expire_after": expires,
            **more,
        }

    said = dict.fromkeys([*labels, UNKNOWN_LABEL, NOT_WORN_LABEL])
    components = {
        "activity": entity(
            "activity",
            "sensor",
            "Activity",
            "{{ value_json.activity }}",
            device_class="enum",
            options=list(said),
            icon="mdi:run",
            json_attributes_topic=f"{topic}/state",
            json_attributes_template="{{ {'confidence': value_json.confidence, "
            "'top': value_json.top} | tojson }}",
        ),
        "confidence": entity(
            "confidence",
            "sensor",
            "Confidence",
            "{{ none if value_json.confidence is none "
            "else (100 * value_json.confidence) | round(0) }}",
            unit_of_measurement="%",
            state_class="measurement",
        ),
        "not_worn": entity(
            "not_worn",
            "binary_sensor",
            "Not worn",
            "{{ {true: 'OFF', false: 'ON'}.get(value_json.worn) }}",
        ),
        "unknown": entity(
            "unknown",
            "binary_sensor",
            "No label fits",
            "{{ {true: 'ON', false: 'OFF'}.get(value_json.unknown) }}",
        ),
        "rate": entity(
            "rate",
            "sensor",
            "Sample rate",
            "{{ value_json.rate_hz }}",
            device_class="frequency",
            unit_of_measurement="Hz",
            state_class="measurement",
            entity_category="diagnostic",
        ),
        "event": {
            "platform": "event",
            "unique_id": f"{device_id}_event",
            "name": "Activity event",
            "state_topic": f"{topic}/event",
            "event_types": ["began", "ended"],
        },
    }
    return {
        "device": {"identifiers": [device_id], "name": f"aura-edge {name}", "sw_version": version},
        "origin": {"name": "aura-edge", "sw_version": version},
        "availability_topic": f"{topic}/availability",
        "qos": 1,
        "components": components,
    }


def _device_name(source: str) -> str:
    """Of a source: all recordings are one device, as nobody wants one each."""
    kind, _, name = source.partition(":")
    return kind if kind == "replay" or not name else name


def _slug(name: str) -> str:
    """Of a name, what a topic and an id of Home Assistant may hold."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "device"


def _paho() -> Any:
    """Raises:
    InputError: paho-mqtt is not installed.
    """
    try:
        return import_module("paho.mqtt.client")
    except ImportError:
        raise InputError(
            '--mqtt needs paho-mqtt; install it with: pip install "aura-edge[mqtt]"'
        ) from None
