"""`python -m edge.many.fleet DIR --out DIR2 --scheduler tcp://HOST:8786`: what
`edge-run --replay DIR` does (`edge/many/label.py`), on the machines of a Dask cluster.

    dask scheduler                                             # on one machine
    dask worker tcp://HOST:8786 --nthreads 1 --nworkers -1     # on each: a worker a processor

Workers run the same function on one recording after the other, and this process writes the results:
they are those of a single machine, row by row. Workers read the recordings, and a bundle other than
the one that came along, under the same paths as this process does (a shared file system). They need
the same version of aura-edge and no text encoder. What a worker held when it was lost is done again
by another one. Without --scheduler a cluster of this machine's processors is made for the run.

Needs Dask (extra `fleet`) and pyarrow (extra `eval`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

# Only what parsing needs is imported here: `--help` has to answer at once.
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from distributed import Client

    from edge.many.find import Task
    from edge.many.label import Job, Outcomes, Say

_CONNECT_S = 20
"""How long a scheduler may take to answer."""

EXIT_INTERRUPTED = 130


class Args(argparse.Namespace):
    """The parsed command line."""

    source: Path
    out: Path
    scheduler: str | None
    workers: int | None
    bundle: Path | None
    labels: str | None
    hop: float
    placement: str | None
    smooth: bool
    acc_unit: str | None
    gyro_unit: str | None
    time_unit: str | None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge.many.fleet",
        description="Label a folder of recordings on a Dask cluster.",
        epilog="The other options are those of edge-run.",
    )
    parser.add_argument("source", type=Path, metavar="DIR", help="the folder of recordings")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR2", help="the folder of results"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of the cluster, such as tcp://HOST:8786 (default: a cluster on this machine)",
    )
    where.add_argument(
        "--workers", type=int, metavar="N", help="of a cluster on this machine (default: all CPUs)"
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR")
    parser.add_argument("--labels", metavar="LIST|FILE")
    parser.add_argument("--hop", type=float, default=1.0, metavar="S")
    parser.add_argument("--placement", metavar="WHERE")
    parser.add_argument("--smooth", action="store_true")
    parser.add_argument("--acc-unit", choices=("m/s^2", "g", "mg"))
    parser.add_argument("--gyro-unit", choices=("rad/s", "deg/s", "mdeg/s"))
    parser.add_argument("--time-unit", choices=("s", "ms", "us", "ns"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit codes: those of `edge.many.label.run`, and 130 interrupted."""
    args = _parser().parse_args(argv, namespace=Args())
    try:
        job = _job(args)
        with _cluster(args.scheduler, args.workers, _say) as client:
            return run(args.source, args.out, job, client, _say)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except AuraError as error:
        _say(f"error: {error}")
        return error.exit_code


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _job(args: Args) -> Job:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.labels import parse_labels, resolve_labels
    from edge.many.label import Job
    from edge.recording import UnitOptions

    folder = args.bundle and args.bundle.resolve()
    bundle = load_bundle(folder or DEFAULT_BUNDLE)
    names = parse_labels(args.labels) if args.labels else list(bundle.manifest["default_labels"])
    units = UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit)
    labels = resolve_labels(names, bundle)
    return Job(bundle.id, labels, folder, args.hop, args.placement, units, args.smooth)


def run(source: Path, out: Path, job: Job, client: Client, say: Say) -> int:
    """Label a folder of recordings on a cluster: `edge.many.label.run`, elsewhere.

    Args:
        source: the folder of recordings, under a path that all workers have.
        out: the folder of results; only this process writes there.
        job: what to label them by.
        client: of the cluster.
        say: tells the user what goes on.

    Returns:
        The exit code.

    Raises:
        InputError: there is no recording, or `out` cannot be used.
        AuraError: the results cannot be written; the cluster was lost.
    """
    from edge.many.label import label_folder

    def each(tasks: Sequence[Task], job: Job) -> Outcomes:
        return _on_cluster(tasks, job, client)

    return label_folder(source, out, job, each, say)


def _on_cluster(tasks: Sequence[Task], job: Job, client: Client) -> Outcomes:
    from distributed import as_completed

    from edge.many.label import Failure, label_or_say_why

    try:
        # Sent once, and from worker to worker; made again where a worker that held it is lost.
        sent = client.submit(_same, job, pure=False)
        futures = {
            client.submit(label_or_say_why, t.path, sent, t.name, pure=False): t for t in tasks
        }
        for future in as_completed(list(futures)):
            task = futures.pop(future)
            if future.status == "finished":
                yield task, future.result()
            elif future.status == "error":  # the function itself raises nothing
                error = future.exception()
                yield task, Failure(f"{task.path}: {type(error).__name__}: {error}", 1)
            else:
                raise AuraError(_LOST)
            future.release()
    except OSError as error:  # Dask's errors of communication are of this kind
        raise AuraError(f"{_LOST} ({error})") from None


_LOST = (
    "the cluster was lost; what was labelled before is kept, and the same command goes on from "
    "there"
)


def _same(job: Job) -> Job:
    return job


@contextmanager
def _cluster(address: str | None, workers: int | None, say: Say) -> Iterator[Client]:
    """Connected to the cluster at an address, or to one of this machine, which ends with it.

    Raises:
        InputError: Dask is not installed; what is no address.
        AuraError: nothing answers there.
    """
    try:
        import_module("distributed")
    except ImportError:
        raise InputError(
            'a fleet needs Dask; install it with: pip install "aura-edge[eval,fleet]"'
        ) from None
    from distributed import Client, LocalCluster

    from edge.many.label import default_workers

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: at least one worker is needed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said by us
    if address is None:
        with (
            LocalCluster(
                n_workers=workers or default_workers(),
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # it has a page, for this machine alone
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=_CONNECT_S)
    except ValueError as error:
        raise InputError(f"--scheduler {address!r} is no address ({error})") from None
    except OSError as error:
        raise AuraError(
            f"no Dask scheduler answers at {address} within {_CONNECT_S} s ({error}); is `dask "
            "scheduler` running there?"
        ) from None
    with client:
        say(
            f"connected to {address}: {len(client.scheduler_info(n_workers=-1)['workers'])} workers"
        )
        yield client


if __name__ == "__main__":
    sys.exit(main())
