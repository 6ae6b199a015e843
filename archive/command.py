"""`python -m archive`: restore, sensitivity, status, report, verify."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import stamina
import typer
from rich.console import Console
from rich.progress import track

from archive.client import Client
from archive.errors import ArchiveError, CollectionError, RunStopped
from archive.journal import Collection, Journal
from archive.outputs import explain
from archive.progress import Count, shown_progress
from archive.report import write_report
from archive.run import Bounds, Goal, Places, Run, Tally, photos_of
from archive.sensitivity import (
    LEAST,
    SENSITIVITIES,
    Reaction,
    ask_about,
    choose_sensitivity,
    count_altered,
)
from archive.trees import Selection, Tree, expect_apart, open_tree
from archive.verify import verify
from archive.ways import Options, OverHttp, Way
from restoration.printing import printable

EXIT_SOME_FAILED = 1
EXIT_WRONG = 2
EXIT_STOPPED = 3

JOURNAL_NAME = ".restoration-journal.sqlite3"
STORE = Path(__file__).parent.parent / "model_store"
MOST_FAILURES_LISTED = 20
DEFAULTS = Selection()

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Restore whole collections of photographs; a run that was stopped, however it was, goes on where it ended.",
)
console = Console(stderr=True)

Destination = Annotated[str, typer.Argument(help="Folder or address (s3://...) that the restored photos are in.")]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", help="The journal's file; by default in DESTINATION, for a bucket in this folder."),
]
Server = Annotated[list[str] | None, typer.Option(help="Address of a service; give it once for each.")]
Local = Annotated[bool, typer.Option("--local", help="Use this machine's device, without a service.")]
Include = Annotated[list[str] | None, typer.Option(help="Names or paths to take; by default those of photos.")]
Exclude = Annotated[list[str] | None, typer.Option(help="Names or paths to leave out.")]
AtOnce = Annotated[
    int | None, typer.Option(help="Photos in the works; by default 8, with --local and --ray 2 a core.", min=1)
]
MaxBytes = Annotated[int, typer.Option(help="Bytes of one file; more is a failure.", min=1)]
Patience = Annotated[float, typer.Option(help="How long to wait for a service that is away.", min=0)]
ModelStore = Annotated[str, typer.Option(help="With --local and --ray: folder or address (s3://...) of the releases.")]
Device = Annotated[str, typer.Option(help="With --local and --ray: auto, cpu, cuda or cuda:N.")]


@app.command("restore")
def restore_command(
    source: Annotated[str, typer.Argument(help="Folder or address (s3://...) of the photos; subfolders too.")],
    destination: Annotated[str, typer.Argument(help="Where the restored photos go, with the same names.")],
    server: Server = None,
    local: Local = False,
    ray: Annotated[str | None, typer.Option("--ray", help="Address of a Ray cluster; auto for this node's.")] = None,
    journal: JournalFile = None,
    mode: Annotated[Literal["auto", "tile", "resize"], typer.Option(help="As of the service.")] = "auto",
    sensitivity: Annotated[float, typer.Option(help="How readily something counts as damage.", min=0, max=1)] = 0.5,
    denoise: Annotated[
        float, typer.Option(help="How much of noise, grain and compression artifacts goes.", min=0, max=1)
    ] = 0.0,
    release: Annotated[
        str | None, typer.Option(help="Such as 0004; by default the journal's, else the active one.")
    ] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Restore anew what was restored by another release or with other options.")
    ] = False,
    include: Include = None,
    exclude: Exclude = None,
    limit: Annotated[int | None, typer.Option(help="Restore at most so many in this run.", min=1)] = None,
    only_damaged: Annotated[bool, typer.Option("--only-damaged", help="Write photos with damage only.")] = False,
    damage_maps: Annotated[str | None, typer.Option(help="Folder or address for maps of what was found.")] = None,
    at_once: AtOnce = None,
    max_bytes: MaxBytes = Bounds.max_bytes,
    patience_seconds: Patience = 600,
    model_store: ModelStore = str(STORE),
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be restored, and stop.")] = False,
) -> None:
    """Restore every photo of SOURCE into DESTINATION, by a service (--server), on this machine (--local) or on a Ray
    cluster (--ray).

    Exit code 0 when all that this run took is done (with --limit others may be left), 1 when photos failed, which are
    listed, 2 for what must be mended before a start, 3 when the run was stopped before its end: start it again, and it
    goes on.
    """
    if sum((bool(server), local, ray is not None)) != 1:
        raise CollectionError("say one of --server ADDRESS, --local and --ray ADDRESS")
    options = Options(mode, sensitivity, denoise, damage_maps=damage_maps is not None)
    places = Places(open_tree(source), open_tree(destination), open_tree(damage_maps) if damage_maps else None)
    expect_places_apart(places)
    bounds = Bounds(select(include, exclude), limit, max_bytes)
    journal_path = journal or default_journal(places.destination)
    expect_folder(places.source)
    if dry_run:
        with opened_if_there(journal_path) as found:
            known = found.collection() if found else None
            # which release would do it anew only a service knows: with --redo and no release, that is all of them
            goal = Goal(places, choose_release(release, known, redo=redo) or "", options, only_damaged)
            list_what_is_left(goal, bounds, found)
        return
    with Journal.open(journal_path) as opened:
        known = opened.collection()
        if known and known.damage_maps and not damage_maps:
            places = replace(places, damage_maps=open_tree(known.damage_maps))
        way = open_way(
            server or (),
            ray,
            options,
            choose_release(release, known, redo=redo),
            model_store=model_store,
            device=device,
            at_once=at_once,
            patience_seconds=patience_seconds,
        )
        with closing(way):
            opened.set_collection(agree(known, places, way.release, options, redo=redo))
            goal = Goal(places, way.release, options, only_damaged)
            tally = go(Run(goal, bounds, opened, way), places, bounds)
        tell(tally, opened)
    if tally.num_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def open_way(
    servers: Sequence[str],
    cluster: str | None,
    options: Options,
    release: str | None,
    *,
    model_store: str,
    device: str,
    at_once: int | None,
    patience_seconds: float,
) -> Way:
    """By the services, or on the cluster, that have these addresses; without any, on this machine's device."""
    if servers:
        return over_http(servers, options, release, num_at_once=at_once or 8, patience_seconds=patience_seconds)
    if cluster is None:
        from archive.local import OnThisDevice  # brings torch along, which nothing else here needs

        num_at_once = at_once or 2 * (os.cpu_count() or 1)
        return OnThisDevice(model_store, options, release=release, device=device, num_at_once=num_at_once)
    try:
        from archive.cluster import OnCluster  # brings Ray along, an extra of its own
    except ModuleNotFoundError as error:
        raise CollectionError(f"{error}; --ray needs the extra `ray`: pip install 'photo-restoration[ray]'") from error
    return OnCluster(
        cluster,
        model_store,
        options,
        release=release,
        device=device,
        num_at_once=at_once,
        patience_seconds=patience_seconds,
    )


def over_http(
    servers: Sequence[str], options: Options, release: str | None, *, num_at_once: int, patience_seconds: float
) -> Way:
    with ExitStack() as closing_on_error:
        client = Client(*servers, patience_seconds=patience_seconds, max_connections=num_at_once + 1)
        closing_on_error.callback(client.close)
        if not client.is_any_ready():
            say(f"no service is ready at {', '.join(client.servers.addresses)}; waiting {patience_seconds:g} s")
        way = OverHttp(client, options, release=release, num_at_once=num_at_once)
        closing_on_error.pop_all()
    return way


@app.command("sensitivity")
def sensitivity_command(
    source: Annotated[str, typer.Argument(help="Folder or address (s3://...) of photos without any damage.")],
    server: Server = None,
    local: Local = False,
    release: Annotated[str | None, typer.Option(help="Such as 0004; by default the active one.")] = None,
    unchanged: Annotated[
        float, typer.Option(help="The share of the photos that must stay as they are.", min=0, max=1)
    ] = 0.95,
    include: Include = None,
    exclude: Exclude = None,
    limit: Annotated[int | None, typer.Option(help="Ask about at most so many.", min=1)] = None,
    at_once: AtOnce = None,
    max_bytes: MaxBytes = Bounds.max_bytes,
    patience_seconds: Patience = 600,
    model_store: ModelStore = str(STORE),
    device: Device = "auto",
) -> None:
    """Find the sensitivity that suits a collection, by photos of it that you know to be undamaged: how many of them
    each one would alter. Nothing is written.

    Exit code 0 with the sensitivity in the last line, 1 when photos failed, which are listed, or when each sensitivity
    alters too many, 2 for what must be mended before a start, 3 when no photo could be restored any more.
    """
    if bool(server) == local:
        raise CollectionError("say one of --server ADDRESS and --local")
    tree = open_tree(source)
    expect_folder(tree)
    entries = list(islice(photos_of(tree, select(include, exclude), say_unlisted), limit))
    if not entries:
        raise CollectionError(f"{tree.address} holds no photos; name a folder of undamaged ones")
    way = open_way(
        server or (),
        None,
        LEAST,
        release,
        model_store=model_store,
        device=device,
        at_once=at_once,
        patience_seconds=patience_seconds,
    )
    with closing(way):
        asked = ask_about(way, tree, entries, max_bytes)
        reactions = list(track(asked, "asking", len(entries), console=console, transient=True))
    if not tell_sensitivities(reactions, unchanged):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command("status")
def status_command(destination: Destination, journal: JournalFile = None) -> None:
    """Count what is done, and what failed for which reason; while a run goes on, too."""
    with Journal.open_to_read(journal or default_journal(open_tree(destination))) as opened:
        counts, totals = opened.count(), opened.totals()
        print(f"{counts['done']:,} done: {totals['damaged']:,.0f} with damage, {totals['clean']:,.0f} without")
        if totals["suspected"]:
            print(f"{totals['suspected']:,.0f} of those without look as if they had some: see the report")
        print(f"{totals['pixels'] / 1e6:,.0f} megapixels, {totals['output_bytes'] / 1e9:,.1f} GB written")
        if counts["begun"]:
            print(f"{counts['begun']:,} begun")
        print(f"{counts['failed']:,} failed")
        for reason, number in opened.count_failures().items():
            print(f"  {number:,} {reason}")


@app.command("report")
def report_command(
    destination: Destination,
    folder: Annotated[Path | None, typer.Argument(help="Where the report goes; by default DESTINATION-report.")] = None,
    journal: JournalFile = None,
    most: Annotated[
        int,
        typer.Option(help="Show so many, the most damaged first, and as many unchanged ones that look damaged.", min=0),
    ] = 200,
) -> None:
    """Write a page with photos before and after, a table of all of them, and a BagIt manifest of checksums."""
    tree = open_tree(destination)
    folder = folder or Path(f"{tree.root.rpartition('/')[2] if not tree.is_local else tree.root}-report")
    with Journal.open_to_read(journal or default_journal(tree)) as opened:
        left_out = write_report(opened, collection_of(opened), folder, most)
    if left_out:
        say(
            "not in the manifest, as a bag cannot hold names that are not UTF-8, end in a space, or hold what "
            "some take for a line's end (move them out of the bag's data, or it is not valid):"
        )
        for path in left_out[:MOST_FAILURES_LISTED]:
            say(f"  {printable(path)}")
        if len(left_out) > MOST_FAILURES_LISTED:
            say(f"  and {len(left_out) - MOST_FAILURES_LISTED:,} more")
    print(f"wrote {printable(str(folder / 'index.html'))}")


@app.command("verify")
def verify_command(destination: Destination, journal: JournalFile = None) -> None:
    """Read every output again and compare it with the journal. Exit code 1 if one is missing or changed."""
    tree = open_tree(destination)
    with Journal.open_to_read(journal or default_journal(tree)) as opened:
        maps = collection_of(opened).damage_maps
        num_checked = num_different = 0
        for difference in verify(opened, tree, open_tree(maps) if maps else None):
            num_checked += 1
            if difference is not None:
                num_different += 1
                print(f"{printable(difference.path)} {difference.found}")
    print(f"{num_checked:,} checked, {num_different:,} not as they were written")
    if num_different:
        raise typer.Exit(EXIT_SOME_FAILED)


def default_journal(destination: Tree) -> Path:
    return (Path(destination.root) if destination.is_local else Path()) / JOURNAL_NAME


def expect_places_apart(places: Places) -> None:
    """Raises CollectionError if one lies in another."""
    from_sources = "what a run writes goes to a folder apart from the sources, so that none of these can be lost"
    expect_apart(places.source, places.destination, from_sources)
    if places.damage_maps is not None:
        expect_apart(places.source, places.damage_maps, from_sources)
        expect_apart(
            places.destination,
            places.damage_maps,
            "damage maps go to a folder apart from the restored photographs, so that none takes one's name",
        )


def select(include: Sequence[str] | None, exclude: Sequence[str] | None) -> Selection:
    return Selection(tuple(include or DEFAULTS.include), tuple(exclude or ()))


def expect_folder(source: Tree) -> None:
    """Raises CollectionError for a folder that is not there, before one for the results is made."""
    if source.is_local and not Path(source.root).is_dir():
        raise CollectionError(f"the folder {source.root} does not exist")


def choose_release(asked_for: str | None, known: Collection | None, *, redo: bool) -> str | None:
    """A run that goes on stays with the release that it began with."""
    return asked_for or (known.release if known and not redo else None)


def agree(known: Collection | None, places: Places, release: str, options: Options, *, redo: bool) -> Collection:
    """What the journal is of from now on. Raises CollectionError if that is not what it was of before."""
    maps = places.damage_maps.address if places.damage_maps else None
    wanted = Collection(places.source.address, places.destination.address, maps, release, options.key())
    if known is None:
        return wanted
    for name in ("source", "destination"):
        before, now = getattr(known, name), getattr(wanted, name)
        if before != now:
            raise CollectionError(f"the journal is of the {name} {before}, not {now}; name another with --journal")
    if (known.release, known.options) != (wanted.release, wanted.options) and not redo:
        raise CollectionError(
            f"the journal's photos were restored by release {known.release} with {known.options}, not by "
            f"{release} with {wanted.options}; ask for the same again, or add --redo to restore them anew"
        )
    return wanted


def go(run: Run, places: Places, bounds: Bounds) -> Tally:
    """Raises RunStopped, after a signal too."""
    count = Count(places.source, bounds.selection, bounds.limit)
    with stopping_at_signals(run), shown_progress(run, count, console):
        return run.go()


@contextmanager
def stopping_at_signals(run: Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets the photos in the works finish; a second one ends the process."""

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        run.stop(RunStopped("stopped by a signal; run it again, and it goes on"))

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(tally: Tally, journal: Journal) -> None:
    """What this run did, and which photos of the journal have failed."""
    say(
        f"{tally.num_restored:,} restored, {tally.num_damaged:,} of them with damage; {tally.num_skipped:,} done "
        f"before; {tally.num_failed:,} failed"
    )
    num_failed = journal.count()["failed"]
    for record in islice(journal.records("failed"), MOST_FAILURES_LISTED):
        say(f"  {printable(record.path)}: {record.reason}: {record.detail}")
    if num_failed > MOST_FAILURES_LISTED:
        say(f"  and {num_failed - MOST_FAILURES_LISTED:,} more: python -m archive report has them all")


def tell_sensitivities(reactions: Sequence[Reaction], unchanged_share: float) -> bool:
    """What was found; whether all of it was, and a sensitivity that will do."""
    failed = [each for each in reactions if each.failure]
    altered_from = [each.altered_from for each in reactions if not each.failure]
    for each in failed:
        say(f"  {printable(each.path)}: {each.failure}")
    if not altered_from:
        return False
    print(f"sensitivity  altered, of {len(altered_from):,}")
    for sensitivity in SENSITIVITIES:
        num_altered = count_altered(altered_from, sensitivity)
        print(f"{sensitivity:11.1f}  {num_altered:7,}  {num_altered / len(altered_from):6.1%}")
    chosen = choose_sensitivity(altered_from, unchanged_share)
    if chosen is None:
        say(f"each sensitivity alters more than {1 - unchanged_share:.0%} of them; are all of them undamaged?")
    else:
        print(f"--sensitivity {chosen:g} leaves at least {unchanged_share:.0%} of them as they are")
    return chosen is not None and not failed


def list_what_is_left(goal: Goal, bounds: Bounds, journal: Journal | None) -> None:
    """By size and time of change alone: nothing is read, no service is asked, nothing is written."""
    num_files = num_bytes = 0
    for entry in photos_of(goal.places.source, bounds.selection, say_unlisted):
        if num_files == bounds.limit:
            break
        if not goal.is_reached(entry, journal.find(entry.path) if journal else None):
            print(printable(entry.path))
            num_files += 1
            num_bytes += entry.num_bytes
    say(f"{num_files:,} photos to restore, {num_bytes / 1e6:,.1f} MB")


def say_unlisted(path: str, error: OSError) -> None:
    say(f"{printable(path)}: {explain(error)}")


@contextmanager
def opened_if_there(journal_path: Path) -> Iterator[Journal | None]:
    if not journal_path.exists():
        yield None
        return
    with Journal.open_to_read(journal_path) as journal:
        yield journal


def collection_of(journal: Journal) -> Collection:
    collection = journal.collection()
    if collection is None:
        raise CollectionError("the journal is empty: no run has begun")
    return collection


def say(text: str, style: str | None = None) -> None:
    # no markup: a path may hold brackets
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line, with errors as one line. Exits."""
    stamina.instrumentation.set_on_retry_hooks([])  # the progress shows enough, and their lines would tear it
    try:
        app(arguments)
    except RunStopped as error:
        say(f"stopped: {error}", style="red")
        sys.exit(EXIT_STOPPED)
    except (ArchiveError, OSError) as error:
        say(f"error: {error}", style="red")
        sys.exit(EXIT_WRONG)
