"""`python -m export.bench`: what the runtime costs, beside the encoders it descends from.

Absolute times belong to the machine that the first table names; ratios within a run travel better.
Memory and CPU time are read from /proc and from the kernel's accounting: Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge.bundle import DEFAULT_BUNDLE, ENCODER_FILE, MANIFEST, load_bundle
from edge.diary import Diary
from edge.encoder import Encoder
from edge.labels import resolve_labels
from edge.log.eventlog import EventLog
from edge.pipeline import Pipeline
from edge.source import PACKET_SAMPLES, in_real_time
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples

# torch is imported where models are made, so that the processes whose memory is measured never
# hold it.

Cell = str | int | float | None
Row = dict[str, Cell]

MB = 1e6
RATES_HZ = (50.0, 200.0, 208.0)
"""208 Hz, a usual rate of ST's sensors, is the least that needs the resampler's low-pass."""

_BLOCK_S = 10


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    batches: tuple[tuple[int, int], ...]
    """Batch size and rounds over all encoders."""

    stream_s: int
    early_s: int
    """Stream time of the first reading of the memory."""

    live_s: int
    """Length of the streams in real time."""

    recordings_s: tuple[int, ...]
    """Lengths of the replayed recordings, ascending."""

    repeats: int


FULL = Plan(((1, 60), (32, 5)), 3600, 300, 120, (300, 3600), 3)
QUICK = Plan(((1, 3), (2, 1)), 40, 20, 10, (60, 1800), 1)
DAY_S = 86_400


# --- encoders


@dataclass(frozen=True)
class EncoderCase:
    """One exported encoder."""

    name: str
    path: Path
    parameters: int
    window: tuple[int, ...]
    """Shape of one window."""

    meaning: str
    """What that window is."""


def encoder_cases(folder: Path) -> list[EncoderCase]:
    """The shipped encoder, and ours and the baselines written to `folder` with random weights."""
    import torch

    from export.variants import export_float32
    from training.baselines.aura_mfm import AuraMfm
    from training.baselines.imagebind_imu import ImageBindImu
    from training.baselines.imu2clip import Imu2Clip
    from training.baselines.st_gcn import StGcn
    from training.model import EncoderConfig, ImuEncoder

    torch.manual_seed(0)
    manifest = json.loads((DEFAULT_BUNDLE / MANIFEST).read_text(encoding="utf-8"))
    shipped = DEFAULT_BUNDLE / ENCODER_FILE
    six, wide, graph = (6, 1000), (6, 2000), (3, 200, 22)
    five_s = "5 s, 6 axes, 200 Hz"
    parameters = int(manifest["encoder"]["parameters"])
    cases = [EncoderCase("aura-edge as shipped, int8", shipped, parameters, six, five_s)]
    models: list[tuple[str, torch.nn.Module, tuple[int, ...], str]] = [
        ("aura-edge float32", ImuEncoder(EncoderConfig()), six, five_s),
        ("IMU2CLIP", Imu2Clip(mend_axes=False), six, five_s),
        ("AURA-MFM SS", AuraMfm("SS", residual=True), six, five_s),
        ("AURA-MFM S", AuraMfm("S", residual=True), six, five_s),
        ("ImageBind IMU", ImageBindImu(), wide, "10 s, 6 axes, 200 Hz"),
        ("UniMTS-sized ST-GCN", StGcn(), graph, "10 s, 22 x 3 axes, 20 Hz"),
    ]
    for number, (name, model, window, meaning) in enumerate(models):
        path = folder / f"encoder{number}.onnx"
        if isinstance(model, ImuEncoder):
            export_float32(model, path)
        else:
            _export(model, window, path)
        count = sum(p.numel() for p in model.parameters())
        cases.append(EncoderCase(name, path, count, window, meaning))
    return cases


def _export(model: Any, window: tuple[int, ...], path: Path) -> None:
    """Write a torch module as float32 ONNX with a free batch size."""
    import torch

    from export.variants import OPSET

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated internals
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *window),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)


def _session(path: Path) -> Any:
    """As the runtime loads its encoder: one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def time_encoders(
    cases: list[EncoderCase], batch: int, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each call. All encoders take a turn in each round, so that noise hits them
    alike; before each timed call goes one untimed, so that none pays for another's cache."""
    rng = np.random.default_rng(0)
    sessions = [_session(case.path) for case in cases]
    feeds = [
        {s.get_inputs()[0].name: rng.normal(0, 1, (batch, *case.window)).astype(np.float32)}
        for case, s in zip(cases, sessions, strict=True)
    ]
    taken_ms = np.empty((len(cases), rounds))
    for k in range(rounds):
        for i, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            session.run(None, feed)
            began = time.perf_counter()
            session.run(None, feed)
            taken_ms[i, k] = (time.perf_counter() - began) * 1e3
    return {case.name: row for case, row in zip(cases, taken_ms, strict=True)}


def encoders(plan: Plan) -> list[Row]:
    """Size and latency of every encoder, onnxruntime on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        cases = encoder_cases(Path(folder))
        rows: list[Row] = [
            {
                "encoder": case.name,
                "window": case.meaning,
                "parameters": case.parameters,
                "file_mb": case.path.stat().st_size / MB,
            }
            for case in cases
        ]
        for batch, rounds in plan.batches:
            timings = time_encoders(cases, batch, rounds)
            reference = timings[cases[0].name]
            for row, ms in zip(rows, timings.values(), strict=True):
                row[f"batch{batch}_median_ms"] = float(np.median(ms))
                row[f"batch{batch}_p95_ms"] = float(np.quantile(ms, 0.95))
                row[f"batch{batch}_times_ours"] = float(np.median(ms / reference))
    return rows


# --- the stream: CPU share and memory


def synthetic(start_s: float, duration_s: float, rate_hz: float) -> Samples:
    """A walk with sensor noise on a steady clock."""
    n = round(duration_s * rate_hz)
    t = start_s + np.arange(n) / rate_hz
    rng = np.random.default_rng(round(start_s))
    phase = 2 * np.pi * 1.8 * t[:, None]
    acc = np.sin(phase * [0.5, 1.0, 1.0]) * [1.0, 0.5, 2.5] + rng.normal(0, 0.1, (n, 3))
    gyro = np.cos(phase * [0.5, 1.0, 1.0]) * [1.0, 0.3, 0.1] + rng.normal(0, 0.02, (n, 3))
    return Samples(t, acc + np.array([0, 0, STANDARD_GRAVITY_MPS2]), gyro)


class _TimedEncoder(Encoder):
    """The runtime's encoder, with its CPU time added up (`inference_ms` is wall time)."""

    cpu_s = 0.0

    def embed(self, imu: NDArray[np.float32]) -> NDArray[np.float32]:
        began = time.process_time()
        embedding = super().embed(imu)
        self.cpu_s += time.process_time() - began
        return embedding


def stream_cost(rate_hz: float, duration_s: int, early_s: int, real_time: bool) -> Row:
    """Push a stream packet by packet, logging every window as live use does.

    To be run in a process of its own. The samples are made outside the measured time.
    """
    encoder = _TimedEncoder(DEFAULT_BUNDLE / ENCODER_FILE)
    bundle = replace(load_bundle(DEFAULT_BUNDLE), encoder=encoder)
    names = list(bundle.manifest["default_labels"])
    pipeline, diary = Pipeline(bundle, resolve_labels(names, bundle)), Diary(names, 1.0)
    cpu_s = 0.0
    memory_mb: dict[int, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(
            Path(folder) / "log.db",
            "bench",
            bundle.id,
            names,
            1.0,
            "",
            print,
            reference=bundle.reference,
            live=real_time,
        )
        for start_s in range(0, duration_s, _BLOCK_S):
            samples = synthetic(start_s, _BLOCK_S, rate_hz)
            packets = in_real_time(iter([samples])) if real_time else iter(_packets(samples))
            began = time.process_time()
            for packet in packets:
                for prediction in pipeline.push(packet):
                    log.show(diary.push(prediction))
            cpu_s += time.process_time() - began
            memory_mb[start_s + _BLOCK_S] = _memory_mb("self", "VmRSS")
        log.close()
    return {
        "paced": "real time" if real_time else "as fast as it goes",
        "rate_hz": rate_hz,
        "packet_samples": PACKET_SAMPLES,
        "stream_s": duration_s,
        "cpu_share_percent": cpu_s / duration_s * 100,
        "of_it_encoder_percent": encoder.cpu_s / cpu_s * 100,
        "windows": log.written,
        "rss_early_mb": memory_mb[early_s],
        "rss_end_mb": memory_mb[duration_s],
    }


def _packets(samples: Samples) -> list[Samples]:
    starts = range(0, len(samples), PACKET_SAMPLES)
    return [samples[start : start + PACKET_SAMPLES] for start in starts]


def streams(plan: Plan) -> list[Row]:
    """CPU share of one core and memory of streams in small packets.

    First as fast as it goes, the rates taking turns, the least of the repeats; then in real time,
    where a processor woken twenty times a second finds its caches cold and its clock low.
    """
    runs = [
        [_stream_in_child(rate_hz, plan.stream_s, plan.early_s, False) for rate_hz in RATES_HZ]
        for _ in range(plan.repeats)
    ]
    fast = [
        min(of_one_rate, key=lambda row: float(row["cpu_share_percent"] or 0))
        for of_one_rate in zip(*runs, strict=True)
    ]
    with ThreadPoolExecutor() as pool:  # they wait nearly all the time
        live = pool.map(
            lambda rate_hz: _stream_in_child(rate_hz, plan.live_s, _BLOCK_S, True), RATES_HZ
        )
        return [*fast, *live]


def _stream_in_child(rate_hz: float, duration_s: int, early_s: int, real_time: bool) -> Row:
    """`stream_cost` in a fresh process, which never imports torch."""
    arguments = (rate_hz, duration_s, early_s, real_time)
    code = (
        "from edge.threads import one_thread; one_thread()  # as edge-run does\n"
        "import json; from export import bench\n"
        f"print(json.dumps(bench.stream_cost{arguments}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    row: Row = json.loads(done.stdout)
    return row


def _memory_mb(pid: int | str, field: str) -> float | None:
    """Memory of a process: `VmRSS` resident now, `VmHWM` at most; None where /proc has it not."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    kib = [line.split()[1] for line in text.splitlines() if line.startswith(field + ":")]
    return int(kib[0]) * 1024 / MB if kib else None


# --- replays


def write_recording(path: Path, duration_s: int, rate_hz: float = 50.0) -> Path:
    """A recorded file of a synthetic walk."""
    with path.open("w", encoding="ascii", newline="") as file:
        file.write("time_s,ax_mps2,ay_mps2,az_mps2,gx_rads,gy_rads,gz_rads\n")
        for start_s in range(0, duration_s, 60):
            s = synthetic(start_s, min(60, duration_s - start_s), rate_hz)
            assert s.gyro_rads is not None
            rows = np.column_stack([s.t_s, s.acc_mps2, s.gyro_rads])
            np.savetxt(file, rows, fmt=["%.3f"] + ["%.4f"] * 6, delimiter=",")
    return path


def _edge_run(*args: str) -> list[str]:
    return [sys.executable, "-m", "edge.cli", *args]


def replay_cost(recording: Path, duration_s: int, folder: Path) -> Row:
    """One replay with logging in a process of its own."""
    log = folder / "log.db"
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        _edge_run("--replay", str(recording), "--log", str(log)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak_mb = None
    while True:
        # Looked at while it runs: what the kernel reports at the end of a child includes the
        # memory of this process, from before the child's program was loaded.
        peak_mb = _memory_mb(process.pid, "VmHWM") or peak_mb
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.005)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the replay of {recording} failed with {process.returncode}")
    return {
        "recording_s": duration_s,
        "csv_mb": recording.stat().st_size / MB,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "times_real_time": duration_s / wall_s,
        "peak_rss_mb": peak_mb,
        "log_mb": log.stat().st_size / MB,
    }


def replays(plan: Plan, day: bool) -> list[Row]:
    """Replays of recordings at 50 Hz: the quickest of the repeats of each length.

    `times_real_time_after_start` is the slope between two lengths, which start-up does not touch.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for duration_s in plan.recordings_s + (DAY_S,) * day:
            recording = write_recording(folder / "recording.csv", duration_s)
            repeats = 1 if duration_s == DAY_S else plan.repeats
            runs = [replay_cost(recording, duration_s, folder) for _ in range(repeats)]
            row = min(runs, key=lambda r: float(r["wall_s"] or 0))
            row["times_real_time_after_start"] = _slope(rows[0], row) if rows else None
            rows.append(row)
    return rows


def _slope(short: Row, long: Row) -> float:
    stream_s, wall_s = (
        float(long[k] or 0) - float(short[k] or 0) for k in ("recording_s", "wall_s")
    )
    return stream_s / wall_s


# --- starting and installing


def starts(plan: Plan) -> list[Row]:
    """Wall time from launching a process; the bare interpreter is the floor of all."""
    with tempfile.TemporaryDirectory() as name:
        recording = str(write_recording(Path(name) / "recording.csv", 300))
        log = str(Path(name) / "log.db")
        first = _edge_run("--replay", recording, "--log", log, "--format", "jsonl")
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "edge-run --help": _edge_run("--help"),
            "edge-run --replay (5 minutes), to the first window": first,
        }
        taken_ms: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(1 + 5 * plan.repeats):
            for what, command in commands.items():
                taken_ms[what].append(_to_first_line_ms(command))
    return [
        {"what": what, "median_ms": statistics.median(ms[1:]), "worst_ms": max(ms[1:])}
        for what, ms in taken_ms.items()  # the first round only warms the disk cache
    ]


def _to_first_line_ms(command: list[str]) -> float:
    """From the launch to the first line on stdout, or to the end of a command that prints none."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken_ms = (time.perf_counter() - began) * 1e3
        process.stdout.read()  # let it end in peace
    return taken_ms


def install() -> list[Row]:
    """Size of what `pip install .` puts on a device, by distribution, the largest first."""
    rows: list[Row] = []
    for name in sorted(_runtime_distributions("aura-edge")):
        distribution = metadata.distribution(name)
        files = [Path(str(distribution.locate_file(f))) for f in distribution.files or ()]
        size = sum(f.stat().st_size for f in files if f.is_file())
        if name == "aura-edge":  # may be installed as a link to this tree
            size = sum(_tree_bytes(Path(__file__).parents[1] / p) for p in _OWN_PACKAGES)
        rows.append({"distribution": name, "version": distribution.version, "size_mb": size / MB})
    rows.sort(key=lambda row: -float(row["size_mb"] or 0))
    total = sum(float(row["size_mb"] or 0) for row in rows)
    return [*rows, {"distribution": "all", "version": "", "size_mb": total}]


_OWN_PACKAGES = ("edge", "training", "export", "firmware_bridge")


def _tree_bytes(folder: Path) -> int:
    kept = (f for f in folder.rglob("*") if not {"__pycache__", "node_modules"} & set(f.parts))
    return sum(f.stat().st_size for f in kept if f.is_file())


def _runtime_distributions(root: str) -> set[str]:
    """A distribution and all it requires here without extras."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    pending = [root]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name.lower().replace("_", "-"))
    return found


# --- the report


def machine() -> list[Row]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = (line for line in lines if line.startswith("model name"))
        cpu = next(names, cpu).split(":")[-1].strip()
    return [
        {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        }
    ]


TITLES = {
    "machine": "Machine",
    "streams": "Streams in packets of 10 samples, 1 s hop, every window committed to the log; "
    "share of one core",
    "replays": "Replay of a 50 Hz recording, logging on, start-up included",
    "starts": "From launching the process to its first line",
    "install": "Runtime on disk",
    "encoders": "Encoders: onnxruntime, one thread; all but aura-edge with random weights; "
    "times_ours is the median ratio to the shipped encoder",
}


def measure(plan: Plan, day: bool) -> Iterator[tuple[str, list[Row]]]:
    """Each table as soon as it is measured."""
    steps: list[tuple[str, Callable[[], list[Row]]]] = [
        ("machine", machine),
        ("install", install),
        ("starts", lambda: starts(plan)),
        ("streams", lambda: streams(plan)),
        ("replays", lambda: replays(plan, day)),
        ("encoders", lambda: encoders(plan)),
    ]
    for name, step in steps:
        yield name, step()


def render(name: str, rows: list[Row]) -> Table:
    """One table; the columns' suffixes are the units."""
    table = Table(title=TITLES[name], title_justify="left")
    for column in rows[0]:
        right = not isinstance(rows[0][column], str)
        table.add_column(
            column.replace("_", " "), justify="right" if right else "left", no_wrap=not right
        )
    for row in rows:
        table.add_row(*(_text(cell) for cell in row.values()))
    return table


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m export.bench`."""
    parser = argparse.ArgumentParser(prog="python -m export.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute's run: figures are rough")
    parser.add_argument("--day", action="store_true", help="replay 24 hours as well (260 MB CSV)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    report = {}
    for name, rows in measure(QUICK if args.quick else FULL, args.day):
        report[name] = rows
        if not args.json:
            console.print(render(name, rows))
    if args.json:
        print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
