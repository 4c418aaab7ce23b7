"""Both sides of picking on workers, without the processes: order, bounds, attempts, refusals."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cryoemmae_plugin.errors import ClusterError, Interrupted, ModelError
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.workers.attempts import Attempts
from cryoemmae_plugin.run.workers.dispatcher import BATCHES_PER_WORKER, Dispatcher
from cryoemmae_plugin.run.workers.monitor import cluster_patience
from cryoemmae_plugin.run.workers.run_spec import PROBE_FILE, Batch, RunSpec, build_picker, host_name
from cryoemmae_plugin.run.workers.task import pick_batch
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import package_version

dask = pytest.importorskip("dask", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="dask is not installed")
sys.path.insert(0, str(Path(__file__).with_name("helpers")))

from worker_pickers import make_worker_picker  # noqa: E402

MakeMicrograph = Callable[..., Path]
WORKERS = 3


@pytest.fixture(scope="module")
def connected() -> Iterator[Any]:
    """A Dask client whose workers are threads of this process."""
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),  # it can lock a process of Python 3.11
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


class Watched:
    """A Dask client that counts batches; a test may put another task in the place of the real one."""

    def __init__(self, client: Any, task: Callable[..., Any] | None = None) -> None:
        self._client, self._task = client, task
        self.sent = self.open = self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, function: Any, *arguments: Any, **options: Any) -> Any:
        future = self._client.submit(self._task or function, *arguments, **options)
        self.open, self.sent = self.open + 1, self.sent + 1
        self.most = max(self.most, self.open)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Any) -> None:
        self.open -= 1


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> Iterator[ResultStore]:
    with ResultStore.create(tmp_path / "out", record) as store:
        (store.folder / PROBE_FILE).write_text("token")
        yield store


@pytest.fixture
def spec(store: ResultStore) -> RunSpec:
    return RunSpec(
        version=package_version(),
        host=host_name(),
        record=store.record,
        model="fake",
        folder=store.folder,
        base=Path.cwd(),
        sample="",
        token="token",
        device="cpu",
        threads=torch.get_num_threads(),
    )


@pytest.fixture
def dispatch(store: ResultStore, spec: RunSpec) -> Callable[..., Iterator[MicrographResult]]:
    def dispatch(
        micrographs: list[Micrograph], client: Watched, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[MicrographResult]:
        return Dispatcher(client, spec, store, make_worker_picker, should_stop, cluster_patience(1)).pick(micrographs)  # type: ignore[arg-type]

    return dispatch


def many(folder: Path, make_micrograph: MakeMicrograph, count: int) -> list[Micrograph]:
    first = make_micrograph(folder / "mic_000.mrc", 3).read_bytes()
    for index in range(count):
        (folder / f"mic_{index:03d}.mrc").write_bytes(first)
    return find_micrographs([folder])


def test_results_come_in_order_and_few_are_under_way(
    dispatch: Any, connected: Any, tmp_path: Path, make_micrograph: MakeMicrograph
) -> None:
    micrographs, client = many(tmp_path / "mics", make_micrograph, 150), Watched(connected)
    outcomes = list(dispatch(micrographs, client))
    assert [outcome.micrograph for outcome in outcomes] == micrographs
    assert all(outcome.result is not None and len(outcome.result.picks) == 3 for outcome in outcomes)
    assert {"read", "fake", "write"} <= set(outcomes[-1].seconds)
    assert WORKERS <= client.most <= WORKERS * BATCHES_PER_WORKER
    assert client.sent < 75, "many are handed out together once it is known how fast they are"


def test_what_workers_find_odd_about_files_is_said_with_the_runs_paths(
    dispatch: Any, connected: Any, folder_of_six: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(os.path.relpath(folder_of_six / "mic_4.mrc"))
    with path.open("ab") as odd:
        odd.write(bytes(7))
    list(dispatch([Micrograph(path, None, "mic_4")], Watched(connected)))
    repeated = [record.getMessage() for record in caplog.records if record.funcName == "repeat_warning"]
    assert repeated == [f"{path}: 7 surplus bytes behind the image are ignored"]


def test_a_stop_is_heeded_while_workers_are_busy_or_missing(dispatch: Any, connected: Any, folder_of_six: Path) -> None:
    class Empty(Watched):
        def nthreads(self) -> dict[str, int]:
            return {}

    micrographs = find_micrographs([folder_of_six])
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        list(dispatch(micrographs, Empty(connected), lambda: next(asked)))


def test_workers_that_only_die_end_the_run(dispatch: Any, connected: Any, folder_of_six: Path) -> None:
    from distributed import KilledWorker

    def die(*arguments: Any) -> None:
        raise KilledWorker("task", SimpleNamespace(address="tcp://host:1"), 4)  # type: ignore[arg-type]

    with pytest.raises(ClusterError, match="die before they pick anything"):
        list(dispatch(find_micrographs([folder_of_six]), Watched(connected, die)))


def test_what_is_wrong_with_the_package_on_a_worker_is_said(dispatch: Any, connected: Any, folder_of_six: Path) -> None:
    def broken(*arguments: Any) -> None:
        raise ImportError("libGL.so.1")

    with pytest.raises(ClusterError, match=r"unexpected ImportError: libGL\.so\.1"):
        list(dispatch(find_micrographs([folder_of_six]), Watched(connected, broken)))


def test_a_scheduler_that_falls_silent_ends_the_run(
    dispatch: Any, connected: Any, folder_of_six: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Watched):
        def nthreads(self) -> dict[str, int]:
            raise OSError("connection closed")

    monkeypatch.setattr("cryoemmae_plugin.run.workers.monitor.GONE_S", 0.1)
    monkeypatch.setattr("cryoemmae_plugin.run.workers.monitor.LOOK_S", 0.05)
    with pytest.raises(ClusterError, match="does not answer any more"):
        list(dispatch(find_micrographs([folder_of_six]), Gone(connected)))


def test_a_scheduler_that_closes_the_connection_ends_the_run(
    dispatch: Any, connected: Any, folder_of_six: Path
) -> None:
    class Closed(Watched):
        def submit(self, function: Any, *arguments: Any, **options: Any) -> Any:
            self.status = "closed"
            raise RuntimeError("Client is closed")

        def cancel(self, futures: list[Any], force: bool) -> None:
            raise RuntimeError("Client is closed")

    with pytest.raises(ClusterError, match="does not answer any more"):
        list(dispatch(find_micrographs([folder_of_six]), Closed(connected)))


def test_a_result_that_shows_late_is_waited_for(
    dispatch: Any, connected: Any, store: ResultStore, folder_of_six: Path
) -> None:
    import threading

    path = store.path_of("mic_2")

    def late(spec: str, first: int, rows: Any, make: Any) -> Any:
        answer = pick_batch(spec, first, rows, make)
        if first == 2:
            path.rename(path.with_suffix(".hidden"))
            threading.Timer(0.5, lambda: path.with_suffix(".hidden").rename(path)).start()
        return answer

    outcomes = list(dispatch(find_micrographs([folder_of_six]), Watched(connected, late)))
    assert len(outcomes[2].result.picks) == 20


def answer_of(spec: RunSpec, micrographs: list[Micrograph], first: int = 0, make: Any = make_worker_picker) -> Any:
    return pick_batch(spec.model_dump_json(), first, Batch(first, micrographs).rows(), make)


def test_a_worker_elsewhere_writes_what_a_run_here_would(
    store: ResultStore, spec: RunSpec, folder_of_six: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    relative = Micrograph(Path("mics/mic_2.mrc"), None, "mic_2")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = answer_of(spec.model_copy(update={"base": tmp_path}), [relative])
    assert [(uid, reason) for uid, reason, _ in answer["outcomes"]] == [("mic_2", None)]
    assert store.load("mic_2").micrograph == "mics/mic_2.mrc"
    assert store.load("mic_2").source.path == folder_of_six / "mic_2.mrc"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"version": "9.9.9"}, "ClusterError", "the run has 9.9.9"),
        ({"token": "other"}, "ClusterError", "does not see the result folder"),
        ({"folder": Path("/nowhere")}, "ClusterError", "does not see the result folder /nowhere"),
        ({"sample": "/nowhere/mic.mrc"}, "ClusterError", "does not see /nowhere/mic.mrc"),
        ({"device": "cuda:99"}, "DeviceError", "cuda:99"),
    ],
)
def test_a_worker_that_cannot_do_its_part_says_why(
    spec: RunSpec, folder_of_six: Path, change: dict[str, Any], kind: str, message: str
) -> None:
    answer = answer_of(spec.model_copy(update=change), find_micrographs([folder_of_six]))
    assert answer["error"] == kind
    assert message in answer["text"]
    assert answer["host"] == host_name()


def test_a_model_that_is_another_one_or_absent_on_the_worker_is_refused(spec: RunSpec, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="another model here"):
        build_picker(spec.model_copy(update={"model": str(tiny_model)}))
    with pytest.raises(ModelError, match="where all workers see it"):
        build_picker(spec.model_copy(update={"model": "/nowhere/model"}))


def test_what_a_process_has_died_over_is_picked_alone_and_given_up_after_three_tries(
    store: ResultStore, spec: RunSpec, folder_of_six: Path
) -> None:
    micrographs, notes = find_micrographs([folder_of_six]), store.folder / ".attempts"
    notes.mkdir()
    (notes / "0-6").write_text("node1 77\n")  # a process died over the batch
    (notes / "2").write_text("node1 78\nnode2 79\nnode1 80\n")
    (notes / "4").write_text("node2 81\nnode2 82\n")
    reasons = [reason for _, reason, _ in answer_of(spec, micrographs)["outcomes"]]
    assert [reason is None for reason in reasons] == [True, True, False, True, True, True]
    assert "mic_2.mrc: given up after 3 attempts" in reasons[2]
    assert "node1, node2" in reasons[2]
    assert not (notes / "4").exists(), "what ends well leaves no note"


def test_notes_of_tries_end_with_the_try(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    with attempts.noted("1"):
        assert attempts.deaths("1") == [host_name()]
    assert attempts.deaths("1") == []
