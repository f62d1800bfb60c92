"""`edge-log`: look into the event log, ask it in free text, take out of it, erase it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.log.place import REFERENCES, place_of
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from edge.log.read import LoggedQuery, LogReader, Session
    from edge.log.store import Where

_MOST_SHOWN = 60
"""Windows that `show` lists; of a longer bout the first."""

_MOST_COLUMNS = 5
"""Labels that have a column of their own in the table of days."""


class Args(argparse.Namespace):
    """The parsed command line."""

    run: Callable[[Args], int]
    log: Path | None
    since: str | None
    until: str | None
    label: str | None
    session: int | None
    device: str | None
    day: str | None
    what: str
    text: str
    top: int
    bundle: Path | None
    out: Path
    reference: str | None
    yes: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-log",
        description="Look into the log that edge-run writes. It stays on this machine.",
        epilog='example: edge-log query "climbing stairs" --since yesterday',
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[Args], int], text: str, filters: bool = True
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(run=run)
        one.add_argument(
            "--log",
            type=Path,
            metavar="PATH",
            help="the event log (default: log.db in the user's data folder)",
        )
        if filters:
            _add_filters(one)
        return one

    a_list = command("list", _list, "list sessions, events or earlier queries")
    a_list.add_argument(
        "what",
        nargs="?",
        choices=("sessions", "events", "queries"),
        default="sessions",
        help="default: sessions",
    )
    show = command("show", _show, "show a window, an event or a hit with its neighbours", False)
    show.add_argument("reference", metavar="WHICH", help=REFERENCES)
    timeline = command("timeline", _timeline, "draw a day's activities as bars")
    _add_day(timeline, "the last day that the log holds")
    query = command("query", _query, "find what resembles a text in your own words")
    query.add_argument("text", metavar="TEXT", help='what is sought: "strolling", "riding a bike"')
    query.add_argument(
        "--top", type=_count, default=10, metavar="N", help="how many at most (default: 10)"
    )
    query.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="the bundle whose windows are asked (default: the bundle that came along)",
    )
    stats = command("stats", _stats, "time per activity and day, confidence, gaps, device health")
    _add_day(stats, "all days")
    export = command("export", _export, "write windows, events or raw samples to a file")
    export.add_argument(
        "what",
        choices=("windows", "events", "raw"),
        help="raw: samples that edge-run --keep-raw kept, as CSV that edge-run --replay reads",
    )
    export.add_argument(
        "reference",
        nargs="?",
        metavar="WHICH",
        help=f"what raw samples are of, with 5 s before and after: {REFERENCES}",
    )
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".csv, .jsonl or .parquet"
    )
    report = command("report", _report, "write one page of HTML, or a picture, about a day")
    _add_day(report, "the last day that the log holds")
    report.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".html or .png (matplotlib)"
    )
    command("path", _path, "say where the log is", filters=False)
    purge = command("purge", _purge, "erase for good: all, or what the filters say")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    filters = parser.add_argument_group(
        "filters",
        'times: "2h" or "3d" ago, today, yesterday, 14:30, 2026-11-21, "2026-11-21 14:30"',
    )
    filters.add_argument("--since", metavar="TIME")
    filters.add_argument("--until", metavar="TIME", help="of a day: its end")
    filters.add_argument("--label", metavar="LABEL", help="what was said")
    filters.add_argument("--session", type=_count, metavar="N", help="as edge-log list counts them")
    filters.add_argument("--device", metavar="TEXT", help="part of the name of device or file")


def _add_day(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--day",
        metavar="DAY",
        help="today, yesterday or 2026-11-21, instead of --since and --until (default without any: "
        f"{default})",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-log`. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    args = _parser().parse_args(argv, namespace=Args())
    try:
        return args.run(args)
    except AuraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _log_path(args: Args) -> Path:
    from edge.log.eventlog import default_log_path

    return args.log or default_log_path()


def _open(args: Args) -> LogReader:
    from edge.log.read import LogReader

    return LogReader(_log_path(args))


def _where(args: Args) -> Where:
    """The filters of the command line.

    Raises:
        InputError: a text that is no time, or times the wrong way round.
    """
    from edge.log.store import Where
    from edge.log.when import moment_of

    now = time.time()
    since = moment_of(args.since, now) if args.since else None
    until = moment_of(args.until, now, at_end=True) if args.until else None
    if since is not None and until is not None and since >= until:
        raise InputError(f"--since {args.since!r} is not before --until {args.until!r}")
    return Where(since, until, args.label, args.session, args.device)


def _where_of_day(args: Args, log: LogReader) -> Where:
    """The filters, the times of one day where no other are given.

    Raises:
        InputError: a day and times, or the log holds nothing of the kind.
    """
    from dataclasses import replace

    from edge.log.when import day_of, day_span, local
    from edge.spec import SIGNAL

    where = _where(args)
    if args.since or args.until:
        if args.day:
            raise InputError("--day and --since or --until are two ways to say it: give one")
        return where
    if args.day:
        day = day_of(args.day, time.time())
    else:
        begins = [
            s.zero_utc_s + s.end_s - SIGNAL.window_s  # of the last window, before midnight perhaps
            for s in log.sessions(where)
            if s.end_s is not None
        ]
        if not begins:
            raise InputError(f"{log.path}: {_NOTHING}")
        day = local(max(begins)).date()
    since, until = day_span(day)
    return replace(where, since_utc_s=since, until_utc_s=until)


_NOTHING = "nothing was logged there; edge-log list shows what the log holds"


def _list(args: Args) -> int:
    from edge.log import tables as logtables

    where = _where(args)
    with _open(args) as log:
        if args.what == "events":
            logtables.say(logtables.events(log.events(where)))
        elif args.what == "queries":
            logtables.say(logtables.queries(q for q in log.queries() if _asked_in(where, q)))
        else:
            logtables.say(logtables.sessions(log.sessions(where)))
    return 0


def _asked_in(where: Where, query: LoggedQuery) -> bool:
    at = query.asked_utc_s
    return (where.since_utc_s is None or at >= where.since_utc_s) and (
        where.until_utc_s is None or at < where.until_utc_s
    )


def _show(args: Args) -> int:
    from edge.log import tables as logtables
    from edge.log.when import duration_text, local_text

    with _open(args) as log:
        place = place_of(log, args.reference or "", time.time())
        where = place.around()
        print(
            f"{place.what}: {local_text(place.zero_utc_s + place.start_s)}, "
            f"{duration_text(place.end_s - place.start_s)}, session {place.session}"
        )
        table = logtables.windows(log.windows(where), place.start_s, place.end_s, _MOST_SHOWN)
        logtables.say(table)
        if table.row_count == _MOST_SHOWN:
            print(f"(the first {_MOST_SHOWN} windows)")
        events = log.events(where)
        if events:
            print()
            logtables.say(logtables.events(events))
    return 0


def _timeline(args: Args) -> int:
    from edge.log import tables as logtables
    from edge.log.stats import bouts, by_day

    with _open(args) as log:
        days = by_day(bouts(log, _where_of_day(args, log)))
        if not days:
            raise InputError(f"{log.path}: {_NOTHING}")
        for day, of_day in days.items():
            print(f"{day:%A} {day.day} {day:%B %Y}")
            logtables.say(logtables.day_bars(of_day, *logtables.span_of(of_day)))
    return 0


def _query(args: Args) -> int:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.log import query as logquery
    from edge.log import tables as logtables
    from edge.log.when import duration_text, local_text
    from edge.personal.store import Personal, PersonalStore, personal_folder
    from edge.posture import UNKNOWN

    where = _where(args)
    with _open(args) as log:
        bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
        personal = Personal(PersonalStore(personal_folder()), UNKNOWN, say)  # worn anywhere
        vector = logquery.vector_of(args.text, bundle, personal)
        began = time.perf_counter()
        hits = logquery.search(log, vector, where, args.top, bundle.id)
        took_ms = (time.perf_counter() - began) * 1e3
        if hits:
            logtables.say(logtables.hits(hits))
        else:
            say("nothing found")
        events = logquery.called(args.text, log.events(where), bundle)
        if events:
            together_s = sum(e.duration_s for e in events)
            print(
                f"{events[-1].label!r} was said in {_counted(len(events), 'event')}, "
                f"{duration_text(together_s)} together, "
                f"last {local_text(events[-1].utc_s)} (edge-log list events --label "
                f"{shlex.quote(events[-1].label)})"
            )
        say(
            f"searched in {took_ms:.0f} ms"
            + ("; edge-log show hit:1 shows the first" if hits else "")
        )
        _say_of_other_bundles(log.sessions(where), bundle.id)
        try:
            log.record_query(args.text, where, hits, took_ms)
        except AuraError as error:
            say(f"note: the query was not logged ({error})")
    return 0


def _say_of_other_bundles(sessions: Sequence[Session], bundle_id: str) -> None:
    others = [s for s in sessions if s.bundle_id != bundle_id and s.windows]
    if others:
        say(
            f"note: {sum(s.windows for s in others):,} windows were embedded by other bundles "
            f"({', '.join(sorted({s.bundle_id for s in others}))}) and do not compare with a text "
            f"of {bundle_id}; --bundle chooses one"
        )


def _stats(args: Args) -> int:
    from edge.log import tables as logtables
    from edge.log.stats import bouts, by_day, health, totals

    with _open(args) as log:
        where = _where_of_day(args, log) if args.day else _where(args)
        found = bouts(log, where)
        sums = totals(found)
        if not sums:
            raise InputError(f"{log.path}: {_NOTHING}")
        logtables.say(logtables.time_per_label(sums))
        days = by_day(found)
        if len(days) > 1:
            print()
            logtables.say(logtables.time_per_day(days, [t.label for t in sums[:_MOST_COLUMNS]]))
        print()
        logtables.say(logtables.device_health(health(log, where)))
    return 0


def _export(args: Args) -> int:
    from edge.log import export as logexport

    where = _where(args)
    with _open(args) as log:
        if args.what == "raw":
            n = _export_raw(log, args, where)
        elif args.reference:
            raise InputError(f"{args.reference!r}: only raw samples are exported of one thing")
        elif args.what == "events":
            n = logexport.export_events(log, where, args.out)
        else:
            n = logexport.export_windows(log, where, args.out)
    say(f"wrote {n:,} {'samples' if args.what == 'raw' else args.what} to {args.out}")
    return 0


def _export_raw(log: LogReader, args: Args, where: Where) -> int:
    from edge.log import export as logexport

    session = where.session
    if args.reference:
        around = place_of(log, args.reference, time.time()).around()
        since, until, session = around.since_utc_s, around.until_utc_s, around.session
    else:
        since, until = where.since_utc_s, where.until_utc_s
    if since is None or until is None:
        raise InputError(f"say of what: --since and --until, or {REFERENCES}")
    pieces = log.raw(since, until, session)
    if not pieces:
        raise InputError(
            "no raw samples of that time are kept; edge-run --keep-raw SECONDS keeps the newest"
        )
    return logexport.export_raw(pieces, args.out)


def _report(args: Args) -> int:
    from edge.log.export import check_suffix, write_file
    from edge.log.report import gather

    check_suffix(args.out, (".html", ".png"))
    picture = args.out.suffix.lower() == ".png"
    if picture:
        from edge.log.picture import check_matplotlib, png_of

        check_matplotlib()
    with _open(args) as log:
        report = gather(log, _where_of_day(args, log))
    if picture:
        write_file(args.out, png_of(report))
    else:
        from edge.log.page import html_of

        write_file(args.out, html_of(report).encode())
    say(f"wrote {args.out}")
    return 0


def _path(args: Args) -> int:
    print(_log_path(args))
    return 0


def _purge(args: Args) -> int:
    from edge.log.store import purge
    from edge.log.when import duration_text

    where = _where(args)
    with _open(args) as log:
        n = sum(log.label_counts(where).values())
        path = log.path
    if not args.yes:
        everything = not any((args.since, args.until, args.label, args.session, args.device))
        which = f"all of {path}" if everything else f"what the filters say from {path}"
        if not _agreed(f"erase {which} for good ({n:,} windows with a label)? [y/N] "):
            say("nothing was erased")
            return 1
    erased = purge(path, where)
    raw = f", {duration_text(erased.raw_s)} of raw samples" if erased.raw_s else ""
    queries = _counted(erased.queries, "query", "queries")
    say(
        f"erased {_counted(erased.windows, 'window')}, {_counted(erased.events, 'event')}, "
        f"{queries}{raw}"
    )
    return 0


def _agreed(question: str) -> bool:
    """Whether a person says yes.

    Raises:
        InputError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise InputError("nobody can be asked here; --yes erases without asking")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _counted(n: int, what: str, several: str = "") -> str:
    """A number of things: "1 event", "1,200 events"."""
    return f"{n:,} {what if n == 1 else several or what + 's'}"


def say(message: str) -> None:
    """Tell the user something that is no result."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
