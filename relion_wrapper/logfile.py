"""``logfile.pdf``: numbers of picks, figures of merit and overlays, as RELION's own autopicking shows them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from cryoemmae_plugin.errors import CryoemmaeError
from cryoemmae_plugin.files import atomic_write_bytes
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.overlays import draw_result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from relion_wrapper.publish import SCORE_BINS, Published, current_result

OVERLAYS = 4
"""Micrographs on the page of overlays, evenly over the job."""

A4_LANDSCAPE_in = (11.7, 8.3)
_STAMP = "cryoemmae "


def write_logfile(path: Path, published: Published, store: ResultStore, selection: Selection) -> None:
    """Write the PDF, unless the existing one shows the same; the same picks give the same bytes.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    stamp = _STAMP + _digest(published, store, selection)
    if path.exists() and stamp.encode() in path.read_bytes():
        return
    pages = [
        _page_of_counts(published),
        _page_of_scores(published, selection.threshold),
        _page_of_overlays(published, store, selection),
    ]
    buffer = io.BytesIO()
    metadata = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "cryoemmae", "Keywords": stamp}
    with matplotlib.rc_context({"pdf.compression": 6}), PdfPages(buffer, metadata=metadata) as pdf:
        for page in pages:
            if page is not None:
                pdf.savefig(page)
    atomic_write_bytes(path, buffer.getvalue())


def _digest(published: Published, store: ResultStore, selection: Selection) -> str:
    """Hash of everything that the pages depend on."""
    rows = zip([m.name for m in published.micrographs], published.picks, published.mean_score, strict=True)
    text = f"{store.record.fingerprint} {selection.settings()} {list(rows)} {published.score_histogram.tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _page_of_counts(published: Published) -> Figure:
    """Picks of each micrograph, and their histogram."""
    counts = np.array(published.picks)
    figure = Figure(figsize=A4_LANDSCAPE_in, layout="constrained")
    above, below = figure.subplots(2, 1)
    above.plot(np.arange(1, len(counts) + 1), counts, ".-", linewidth=0.6, color="tab:blue")
    above.set(title="Nr of picked particles for all micrographs", xlabel="Micrograph", ylabel="Picks")
    below.hist(counts, bins=min(40, max(int(counts.max(initial=0)) - int(counts.min(initial=0)), 1)), color="tab:blue")
    below.set(title="Histogram of nr of picked particles per micrograph", xlabel="Picks", ylabel="Micrographs")
    figure.suptitle(
        f"{counts.sum()} picks in {len(counts)} micrographs, {counts.mean() if len(counts) else 0:.1f} each"
    )
    return figure


def _page_of_scores(published: Published, threshold: float) -> Figure:
    """Mean figure of merit of each micrograph, and the histogram of all."""
    figure = Figure(figsize=A4_LANDSCAPE_in, layout="constrained")
    above, below = figure.subplots(2, 1)
    numbers = np.arange(1, len(published.mean_score) + 1)
    above.plot(numbers, published.mean_score, ".-", linewidth=0.6, color="tab:green")
    above.set(title="Average autopick FOM for all micrographs", xlabel="Micrograph", ylabel="FOM", ylim=(0, 1))
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    below.stairs(published.score_histogram, edges, fill=True, color="tab:green")
    below.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"threshold {threshold:g}")
    below.set(title="Histogram of autopick FOM, all picks", xlabel="FOM", ylabel="Picks")
    below.legend()
    return figure


def _page_of_overlays(published: Published, store: ResultStore, selection: Selection) -> Figure | None:
    """Some micrographs with their picks drawn in; None where none can be read."""
    pictures = []
    for micrograph in evenly_spread(published.micrographs, OVERLAYS):
        result = current_result(store, micrograph)
        try:
            image = read_image(Path(micrograph.name))
        except CryoemmaeError:
            continue
        if result is not None:
            pictures.append(draw_result(result, selection, image, Path(micrograph.name).name))
    if not pictures:
        return None
    figure = Figure(figsize=A4_LANDSCAPE_in, layout="constrained")
    for axes in figure.subplots(2, 2).flat:
        axes.set_axis_off()
        if pictures:
            axes.imshow(np.asarray(pictures.pop(0)), interpolation="none")
    return figure
