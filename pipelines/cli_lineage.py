"""`mtrec lineage`: the chain from the data to the champion, checked."""

from __future__ import annotations

from pipelines.cli_options import DebugOption, TrackingOption, console
from pipelines.cli_review import DvcRootOption, ModelArgument, dvc_repository, need_store


def lineage(
    model: ModelArgument,
    dvc_root: DvcRootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Print and verify a model's chain: data version, validation, run, model, gate, promotion.

    Every file is read again and compared with the sha256 that was kept when it was
    registered, the data with its hash in DVC's remote. Exit code 1 when a link is
    broken. Where users were forgotten ('mtrec data forget'), a line says whether the
    model still contains any.
    """
    from rich.table import Table
    from rich.text import Text

    from mtrec.errors import RunError
    from mtrec.tracking import verify

    need_store(model, tracking_uri)
    label, links = verify(model, tracking_uri=tracking_uri, dvc_root=dvc_repository(dvc_root))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for link in links:
        state = Text("broken", style="red") if not link.ok else Text("ok", style="green")
        table.add_row(Text("note", style="yellow") if link.ok and link.note else state, link.name, link.what)
    output = console()
    output.print(label, highlight=False)
    output.print(table)
    broken = [link.name for link in links if not link.ok]
    if broken:
        raise RunError(f"{label}: broken: {', '.join(broken)}; what it should be is in its tags and its MLflow run")
