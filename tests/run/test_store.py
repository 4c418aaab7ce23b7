"""The result folder: what is done stays done, and never mixes with what was made otherwise."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cryoemmae_plugin.errors import OutputError, StoreError
from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.run.record import Source
from cryoemmae_plugin.run.store import Existing, ResultStore, RunRecord, alone_in
from cryoemmae_plugin.types import Micrograph, Picks

PICKS = Picks(np.array([[1.23456, 2.0]]), np.array([0.7], np.float32), np.array([1.0], np.float32), (40, 60))


@pytest.fixture
def micrograph(tmp_path: Path) -> Micrograph:
    path = tmp_path / "mic.mrc"
    path.write_bytes(b"x" * 100)
    os.utime(path, (1e9, 1e9))
    return Micrograph(path, None, "mic")


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> ResultStore:
    return ResultStore.create(tmp_path / "out", record)


def test_a_stored_micrograph_is_done_and_others_are_pending(store: ResultStore, micrograph: Micrograph) -> None:
    other = Micrograph(micrograph.path.with_name("other.mrc"), None, "other")
    saved = store.save(micrograph, PICKS, 2.0, 100)
    assert saved.picks.xy.tolist() == [[1.235, 2.0]]
    assert store.load("mic").picks.xy.tolist() == saved.picks.xy.tolist()
    assert store.pending([other, micrograph]) == [other]
    assert [result.uid for result in store] == ["mic"]


def test_a_changed_file_is_picked_again(store: ResultStore, micrograph: Micrograph) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    micrograph.path.write_bytes(b"x" * 101)
    os.utime(micrograph.path, (1e9, 1e9))
    assert not store.holds(micrograph)
    micrograph.path.write_bytes(b"y" * 100)
    os.utime(micrograph.path, (4e9, 4e9))
    assert not store.holds(micrograph)


def test_an_older_file_of_the_same_size_in_its_place_is_picked_again(
    store: ResultStore, micrograph: Micrograph
) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    assert store.holds(micrograph)
    os.utime(micrograph.path, (9e8, 9e8))
    assert not store.holds(micrograph)


def test_a_file_that_is_gone_stays_done(store: ResultStore, micrograph: Micrograph) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    assert store.gone([]) == []
    micrograph.path.unlink()
    assert store.holds(micrograph)
    assert store.gone([]) == [micrograph.path]
    assert store.gone([micrograph]) == []


def test_another_pixel_size_of_the_same_micrograph_is_picked_again(store: ResultStore, micrograph: Micrograph) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    assert store.holds(Micrograph(micrograph.path, 2.0, "mic"))
    assert not store.holds(Micrograph(micrograph.path, 1.0, "mic"))


def test_a_broken_result_is_pending_and_left_out(
    store: ResultStore, micrograph: Micrograph, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    store.path_of("mic").write_text("")  # as after a power failure
    assert not store.holds(micrograph)
    assert list(store) == []
    assert "mic.star" in caplog.text


def test_unsafe_names_do_not_leave_the_folder(store: ResultStore) -> None:
    for uid in ("../evil", "/etc/evil", "a/../../evil", ""):
        with pytest.raises(StoreError, match="not a safe name"):
            store.path_of(uid)


def test_other_settings_are_refused_by_name_and_overwrite_is_the_way_out(
    store: ResultStore, micrograph: Micrograph, record: RunRecord
) -> None:
    with store:
        store.save(micrograph, PICKS, 2.0, 100)
    keep = store.folder / "results" / "mine.star"
    keep.write_text("data_\n\n_mine 1\n")
    other = record.model_copy(
        update={"settings": record.settings.model_copy(update={"diameter_A": 30.0}), "model_sha256": "e" * 64}
    )
    with pytest.raises(StoreError, match=r"diameter_A was 20.0, is 30.0; model .* was ffffffffffff.*overwrite=True"):
        ResultStore.create(store.folder, other)
    with ResultStore.create(store.folder, other, existing=Existing.REPLACE) as fresh:
        assert not fresh.holds(micrograph)
        assert not fresh.path_of("mic").exists()
    assert keep.exists()
    assert ResultStore.open(store.folder).record.fingerprint == other.fingerprint


def test_settings_that_nothing_was_picked_with_are_nobodys(store: ResultStore, record: RunRecord) -> None:
    with store:
        (store.folder / "picks.star").write_text("")  # of a run in which every micrograph failed
    other = record.model_copy(update={"settings": record.settings.model_copy(update={"diameter_A": 30.0})})
    with ResultStore.create(store.folder, other):
        assert ResultStore.open(store.folder).record.fingerprint == other.fingerprint


def test_another_threshold_shares_the_folder(store: ResultStore, record: RunRecord) -> None:
    with store:
        pass
    other = record.model_copy(update={"settings": record.settings.model_copy(update={"threshold": 0.9})})
    with ResultStore.create(store.folder, other):
        assert ResultStore.open(store.folder).record.fingerprint == other.fingerprint


def test_files_of_someone_else_are_not_written_over(tmp_path: Path, record: RunRecord) -> None:
    (tmp_path / "picks.star").write_text("precious")
    with pytest.raises(StoreError, match=r"picks\.star: there already"):
        ResultStore.create(tmp_path, record)
    assert (tmp_path / "picks.star").read_text() == "precious"


def test_two_runs_cannot_share_a_folder(store: ResultStore, record: RunRecord) -> None:
    with store:
        with pytest.raises(StoreError, match="another run"):
            ResultStore.create(store.folder, record)
        with pytest.raises(StoreError, match=r"another run.*wait for it$"), ResultStore.open(store.folder):
            pass
    with ResultStore.create(store.folder, record):
        pass


def test_a_run_is_alone_in_its_folder_from_before_its_store_to_its_end(
    store: ResultStore, record: RunRecord, tmp_path: Path
) -> None:
    with store, pytest.raises(StoreError, match="another run"), alone_in(store.folder):
        pass
    with alone_in(tmp_path / "new") as lock:
        with pytest.raises(StoreError, match="another run"), alone_in(tmp_path / "new", Existing.REPLACE):
            pass
        with ResultStore.create(tmp_path / "new", record, lock=lock):
            pass
        with pytest.raises(StoreError, match="another run"):
            ResultStore.create(tmp_path / "new", record)
    with alone_in(tmp_path / "new"):
        pass


def test_files_of_someone_else_show_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "picks.star").write_text("precious")
    with pytest.raises(StoreError, match=r"picks\.star: there already"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path, Existing.REPLACE):
        assert (tmp_path / "picks.star").read_text() == "precious"


def test_a_broken_settings_file_names_the_way_out(store: ResultStore, record: RunRecord) -> None:
    with store:
        pass
    (store.folder / "settings.json").write_text("{")
    with pytest.raises(StoreError, match=r"settings\.json: cannot be read .*overwrite=True"):
        ResultStore.create(store.folder, record)
    with ResultStore.create(store.folder, record, existing=Existing.REPLACE):
        pass


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path, record: RunRecord) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="with out"):
        ResultStore.create(tmp_path / "out", record)


def test_leftovers_of_a_killed_run_are_cleared_away(store: ResultStore, record: RunRecord) -> None:
    with store:
        left = store.folder / "results" / "deep" / ".mic.star.partial"
        left.parent.mkdir(parents=True)
        left.write_text("half")
    with ResultStore.create(store.folder, record):
        assert not left.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"), atomic_write(path) as file:
        file.write("new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_write(tmp_path / "file") as file:
        file.write({}["no such key"])
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_users_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_write(tmp_path / "file") as file:
        file.write("text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_renewing_keeps_what_still_fits_and_throws_away_the_rest(
    tmp_path: Path, record: RunRecord, micrograph: Micrograph
) -> None:
    with ResultStore.create(tmp_path / "out", record, existing=Existing.RENEW) as store:
        store.save(micrograph, PICKS, 2.0, 100)
    with ResultStore.create(tmp_path / "out", record, existing=Existing.RENEW) as store:
        assert store.holds(micrograph)
    other = record.model_copy(update={"model_sha256": "e" * 64})
    with ResultStore.create(tmp_path / "out", other, existing=Existing.RENEW) as store:
        assert not store.path_of("mic").exists()
        assert ResultStore.open(tmp_path / "out").record.model_sha256 == "e" * 64


def test_a_micrograph_from_the_future_is_done_until_it_changes(store: ResultStore, micrograph: Micrograph) -> None:
    os.utime(micrograph.path, (4e9, 4e9))
    store.save(micrograph, PICKS, 2.0, 100)
    assert store.holds(micrograph)
    os.utime(micrograph.path, (3.9e9, 3.9e9))
    assert not store.holds(micrograph)


def test_a_micrograph_by_another_path_or_link_is_done(store: ResultStore, micrograph: Micrograph) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    (micrograph.path.parent / "folder").symlink_to(micrograph.path.parent)
    (micrograph.path.parent / "link.mrc").symlink_to(micrograph.path)
    for other in ("folder/mic.mrc", "link.mrc"):
        assert store.holds(Micrograph(micrograph.path.parent / other, None, "mic"))


def test_a_name_that_is_not_utf_8_comes_back(store: ResultStore, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"gr\xfcn.mrc")
    path.write_bytes(b"x")
    os.utime(path, (1e9, 1e9))
    store.save(Micrograph(path, None, "mic"), PICKS, 2.0, 1)
    assert store.holds(Micrograph(path, None, "mic"))
    assert store.load("mic").micrograph == str(path)
    assert store.owner("mic") == Source(path, 1, 10**18)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"\xff\xfe", b"# cryoemmae result, format 1\n\ndata_micrograph\n"]
)
def test_a_broken_result_is_made_again(store: ResultStore, micrograph: Micrograph, content: bytes) -> None:
    store.save(micrograph, PICKS, 2.0, 100)
    good = store.path_of("mic").read_text()
    broken = [content, good.replace("60", "9" * 400).encode(), good.replace("1.235", "inf").encode()]
    for text in broken:
        store.path_of("mic").write_bytes(text)
        assert not store.holds(micrograph)
        assert list(store) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_a_lock_service_a_run_goes_on_with_a_warning(
    tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with alone_in(tmp_path / "out") as lock, ResultStore.create(tmp_path / "out", record, lock=lock):
        assert lock.is_locked
    assert caplog.text.count("this file system offers no locks") == 1
