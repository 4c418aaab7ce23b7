"""Model folders: what is saved is what is loaded, and what is damaged is refused by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cryoemmae_plugin
from cryoemmae_plugin.core.encoder import DecoderConfig, Encoder, EncoderConfig
from cryoemmae_plugin.errors import ModelError, OutputError
from cryoemmae_plugin.weights import (
    ModelCard,
    TrainingSummary,
    find_model,
    installed,
    list_models,
    load_decoder_state,
    load_model,
    read_card,
    save_model,
    user_models_dir,
    verify_model,
)

TINY = EncoderConfig(tile_px=16, embed_dim=16, depth=1, num_heads=2)


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """Give every test empty folders of shipped and of user models."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(installed, "shipped_models_dir", lambda: tmp_path / "shipped")


def card(**changes):
    values = {"name": "tiny", "modes": ("default",), "encoder": TINY, "mean": 0.5, "std": 0.1, "particle_cluster": 1}
    return ModelCard(**(values | changes))


def encoder_state(seed=0):
    torch.manual_seed(seed)
    return {name: torch.randn_like(tensor) for name, tensor in Encoder(TINY).state_dict().items()}


def clusters(k=4):
    return {"centroids": torch.arange(k * 16.0).reshape(k, 16), "scorer": torch.ones(3), "order": torch.tensor([2, 1])}


def save(folder, **changes):
    save_model(folder, card(**changes), encoder_state(), clusters())
    return folder


def refused(folder, *words):
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    for word in words:
        assert str(word) in str(caught.value)


# --- round trips ------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    written = save_model(tmp_path / "m", card(data="simulated"), encoder_state(), clusters())
    model = load_model(tmp_path / "m")
    assert model.card == written == read_card(tmp_path / "m")
    assert model.card.data == "simulated"
    assert model.card.encoder == TINY
    assert (model.mean, model.std, model.particle_cluster) == (0.5, 0.1, 1)
    for name, tensor in model.encoder.state_dict().items():
        torch.testing.assert_close(tensor, encoder_state()[name], rtol=0, atol=0)
    torch.testing.assert_close(model.centroids, clusters()["centroids"])
    assert sorted(model.arrays) == ["order", "scorer"]
    assert model.arrays["order"].dtype == torch.int64
    assert not model.encoder.training


def test_the_encoder_of_the_published_size_maps_tiles_to_patch_tokens(tmp_path):
    published = EncoderConfig(depth=1)
    save_model(tmp_path / "m", card(encoder=published, particle_cluster=None), Encoder(published).state_dict())
    with torch.inference_mode():
        tokens = load_model(tmp_path / "m").encoder(torch.randn(2, 1, 64, 64))
    assert tokens.shape == (2, 256, 192)
    assert tokens.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_is_float32_in_memory(tmp_path, dtype):
    halved = {name: tensor.to(dtype) for name, tensor in encoder_state().items()}
    save_model(tmp_path / "m", card(), halved, {"centroids": clusters()["centroids"].to(dtype)})
    assert load_file(tmp_path / "m" / "encoder.safetensors")["norm.weight"].dtype == dtype
    model = load_model(tmp_path / "m")
    assert {p.dtype for p in model.encoder.parameters()} == {torch.float32}
    assert model.centroids.dtype == torch.float32
    torch.testing.assert_close(model.encoder.norm.weight, halved["norm.weight"].float(), rtol=0, atol=0)


def test_a_model_without_clusters_loads_and_says_so_when_they_are_needed(tmp_path):
    save_model(tmp_path / "m", card(particle_cluster=None), encoder_state())
    model = load_model(tmp_path / "m")
    assert not model.has_clusters
    with pytest.raises(ModelError, match="kmeans"):
        _ = model.centroids
    with pytest.raises(ModelError, match="particle_cluster"):
        _ = model.particle_cluster


def test_the_decoder_is_kept_apart(tmp_path):
    decoder = {"mask_token": torch.ones(1, 1, 8)}
    save_model(tmp_path / "m", card(), encoder_state(), clusters(), decoder)
    torch.testing.assert_close(load_decoder_state(tmp_path / "m")["mask_token"], decoder["mask_token"])
    save(tmp_path / "m")
    assert not (tmp_path / "m" / "decoder.safetensors").exists()
    with pytest.raises(ModelError, match="no decoder"):
        load_decoder_state(tmp_path / "m")


def test_saving_again_replaces_the_model_and_leaves_nothing_behind(tmp_path):
    save(tmp_path / "m")
    first = load_model(tmp_path / "m").sha256
    save_model(tmp_path / "m", card(), encoder_state(1), clusters())
    assert load_model(tmp_path / "m").sha256 != first
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "card.toml",
        "clusters.safetensors",
        "encoder.safetensors",
    ]


def test_moving_a_model_leaves_the_original_where_it_is(tmp_path):
    model = load_model(save(tmp_path / "m"))
    moved = model.to("meta")
    assert moved.encoder.norm.weight.device.type == moved.centroids.device.type == "meta"
    assert model.encoder.norm.weight.device.type == model.centroids.device.type == "cpu"
    assert moved.sha256 == model.sha256


def test_views_and_shared_tensors_can_be_saved(tmp_path):
    shared = torch.randn(8, 16)
    save_model(tmp_path / "m", card(), encoder_state(), {"centroids": shared[::2], "again": shared[1:3].T})
    model = load_model(tmp_path / "m")
    torch.testing.assert_close(model.centroids, shared[::2])
    torch.testing.assert_close(model.arrays["again"], shared[1:3].T)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_hash_ignores_prose_and_decoder_but_not_what_picks_depend_on(tmp_path):
    def identity(encoder=None, decoder=None, **changes):
        save_model(tmp_path / "m", card(**changes), encoder or encoder_state(), clusters(), decoder)
        return load_model(tmp_path / "m").sha256

    plain = identity()
    assert len(plain) == 64
    assert plain == identity(name="other", version="9", data="more words", licence="MIT")
    assert plain == identity(decoder={"mask_token": torch.zeros(1)})
    changed = [
        identity(encoder=encoder_state(7)),
        identity(mean=0.51),
        identity(std=0.11),
        identity(particle_cluster=2),
    ]
    assert len({plain, *changed}) == 5


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_users_model_is_found_before_a_shipped_one(tmp_path):
    save(tmp_path / "shipped" / "base", data="shipped")
    save(tmp_path / "shipped" / "paper")
    assert find_model("base") == tmp_path / "shipped" / "base"
    save(user_models_dir() / "base", data="mine")
    assert user_models_dir() == tmp_path / "xdg" / "cryoemmae" / "models"
    assert load_model("base").card.data == "mine"
    assert [(m.name, m.shipped) for m in list_models()] == [("base", False), ("paper", True)]


def test_shipped_models_lie_inside_the_package_or_else_beside_it(monkeypatch):
    monkeypatch.undo()
    package = Path(cryoemmae_plugin.__file__).parent
    inside = package / "models"
    assert installed.shipped_models_dir() == (inside if inside.is_dir() else package.parent / "models")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    refused("nothing", "nothing", "none")
    save(tmp_path / "shipped" / "base")
    refused("nothing", "'nothing'", "base")


@pytest.mark.parametrize("name", ["../shipped/base", "", ".", "/", "base/", "a\0b"])
def test_a_path_is_not_a_name(tmp_path, name):
    save(tmp_path / "shipped" / "base")
    with pytest.raises(ModelError):
        find_model(name)


def test_an_installed_name_wins_over_a_folder_and_a_dot_chooses_the_folder(tmp_path, monkeypatch):
    save(tmp_path / "shipped" / "base", data="shipped")
    save(tmp_path / "here" / "base", data="local")
    save(tmp_path / "here" / "own", data="own")
    monkeypatch.chdir(tmp_path / "here")
    assert load_model("base").card.data == "shipped"
    assert load_model("./base").card.data == "local"
    assert load_model(Path("base")).card.data == "local"
    assert load_model("own").card.data == "own"
    assert load_model(str(tmp_path / "here" / "own")).card.data == "own"


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder.safetensors", "clusters.safetensors"])
def test_a_changed_file_is_refused_with_both_hashes(tmp_path, name):
    folder = save(tmp_path / "m")
    expected = verify_model(folder).files[name]
    raw = bytearray((folder / name).read_bytes())
    raw[-1] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ModelError) as caught:
        verify_model(folder)
    words = str(caught.value)
    assert name in words
    assert expected in words
    assert words.count("sha256") == 1
    assert "install the model again" in words
    refused(folder, expected)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    folder = save(tmp_path / "m")
    (folder / "decoder.safetensors").write_bytes(b"x")
    refused(folder, "decoder.safetensors", "not named")
    (folder / "decoder.safetensors").unlink()
    (folder / "clusters.safetensors").unlink()
    refused(folder, "clusters.safetensors")


def rehash(folder):
    """Make the card agree with the files again, as someone would who changed both."""
    from cryoemmae_plugin.weights.tensors import sha256_of

    old = read_card(folder)
    files = {name: sha256_of(folder / name) for name in old.files}
    (folder / "card.toml").write_text(old.model_copy(update={"files": files}).to_toml())
    return folder


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors at all",
        (2**62).to_bytes(8, "little") + b"{}",
        (99).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}'.ljust(99),
    ],
)
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content):
    folder = save(tmp_path / "m")
    (folder / "encoder.safetensors").write_bytes(content)
    refused(rehash(folder), "encoder.safetensors")


def test_random_damage_never_escapes_as_another_error(tmp_path):
    folder = save(tmp_path / "m")
    generator = torch.Generator().manual_seed(0)
    for path in (folder / "clusters.safetensors", folder / "card.toml"):
        whole = path.read_bytes()
        for _ in range(40):
            raw = bytearray(whole)
            for place in torch.randint(0, min(len(raw), 400), (3,), generator=generator).tolist():
                raw[place] = int(torch.randint(0, 256, (), generator=generator))
            path.write_bytes(raw)
            try:
                load_model(rehash(folder) if path.suffix != ".toml" else folder)
            except ModelError:
                continue
        path.write_bytes(whole)


def test_wrong_tensors_are_named(tmp_path):
    folder = save(tmp_path / "m")
    path = folder / "encoder.safetensors"
    good = load_file(path)
    for change, word in [
        ({"norm.weight": torch.ones(17)}, "norm.weight has shape (17,), not (16,)"),
        ({"extra": torch.ones(1)}, "extra is unexpected"),
        ({"norm.bias": torch.full((16,), torch.nan)}, "norm.bias holds values"),
        ({"norm.bias": torch.ones(16, dtype=torch.int64)}, "norm.bias holds values"),
    ]:
        save_file(good | change, path)
        refused(rehash(folder), path.name, word)
    save_file({name: tensor for name, tensor in good.items() if name != "cls_token"}, path)
    refused(rehash(folder), "cls_token is missing")


@pytest.mark.parametrize(
    "bad",
    [
        {"other": torch.ones(4, 16)},
        {"centroids": torch.ones(4, 15)},
        {"centroids": torch.ones(16)},
        {"centroids": torch.ones(1, 16)},
        {"centroids": torch.full((4, 16), torch.inf)},
    ],
)
def test_wrong_centroids_are_refused_on_loading_and_on_saving(tmp_path, bad):
    folder = save(tmp_path / "m")
    save_file(bad, folder / "clusters.safetensors")
    refused(rehash(folder), "clusters.safetensors", "centroids")
    with pytest.raises(ModelError, match="centroids"):
        save_model(tmp_path / "n", card(), encoder_state(), bad)
    assert not (tmp_path / "n").exists()


def test_a_particle_cluster_beyond_the_last_is_refused(tmp_path):
    with pytest.raises(ModelError, match="particle_cluster = 4"):
        save_model(tmp_path / "m", card(particle_cluster=4), encoder_state(), clusters(4))


def test_a_folder_without_card_and_a_broken_card_are_refused(tmp_path):
    (tmp_path / "m").mkdir()
    refused(tmp_path / "m", "card.toml", "not a model folder")
    for text, word in [
        ("= nonsense", "TOML"),
        ("a = " + "[" * 100_000, "TOML"),
        ("name = 'x'", "modes"),
        ("x = '" + "a" * 2**20 + "'", "bytes"),
    ]:
        (tmp_path / "m" / "card.toml").write_text(text)
        refused(tmp_path / "m", "card.toml", word)
    (tmp_path / "m" / "card.toml").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "m", "card.toml")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("embed_dim = 16", "embed_dim = 1000000000", "embed_dim"),
        ("depth = 1", "depth = 100000000", "depth"),
        ("depth = 1", "depth = 2", "blocks.1"),
        ("num_heads = 2", "num_heads = 3", "heads"),
        ("num_heads = 2", "num_heads = 0", "num_heads"),
        ("tile_px = 16", "tile_px = 18", "tiles of 18"),
        ("mlp_ratio = 2.0", "mlp_ratio = nan", "mlp_ratio"),
        ("std = 0.1", "std = 0.0", "std"),
        ("mean = 0.5", "mean = nan", "mean"),
        ("particle_cluster = 1", "particle_cluster = -1", "particle_cluster"),
        ("particle_cluster = 1", "particle_cluster = 40", "particle_cluster"),
        ('name = "tiny"', 'name = "../tiny"', "name"),
        ('"default"', '"dream"', "modes"),
        ('"clusters.safetensors"', '"../../secret.safetensors"', "files"),
        ('"clusters.safetensors"', '"clusters.pkl"', "files"),
        ('"encoder.safetensors"', '"coder.safetensors"', "encoder.safetensors"),
    ],
)
def test_a_card_that_asks_for_nonsense_is_refused(tmp_path, old, new, word):
    path = save(tmp_path / "m") / "card.toml"
    text = path.read_text()
    assert old in text or old.strip('"') in text
    path.write_text(text.replace(old if old in text else old.strip('"'), new, 1))
    refused(tmp_path / "m", word)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save(tmp_path / "file" / "m")


def test_no_pickle_is_ever_loaded(tmp_path):
    folder = save(tmp_path / "m")

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(Trap(), folder / "encoder.safetensors")
    refused(rehash(folder), "encoder.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_load_model_is_public_and_imported_only_when_asked_for():
    assert cryoemmae_plugin.load_model is load_model
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cryoemmae_plugin.nonsense
    code = (
        "import json, sys, cryoemmae_plugin; print(json.dumps([m for m in ('torch', 'pydantic') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_card_that_never_ends_or_nests_deeply_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "card.toml")
    with pytest.raises(ModelError, match="not a regular file"):
        read_card(tmp_path)
    (tmp_path / "card.toml").unlink()
    dots, braces = "a." * 50_000 + "b = 1", "x = " + ("{" + "a." * 60 + "a = ") * 100 + "1" + "}" * 100
    for text in ("a = " + "[" * 50_000, "a = 1" + "0" * 100_000, "x" * (2**20 + 1), dots, braces):
        (tmp_path / "card.toml").write_text(text)
        with pytest.raises(ModelError, match=r"card\.toml"):
            read_card(tmp_path)


def test_a_card_of_an_earlier_release_is_read_and_says_nothing_of_its_training(tmp_path):
    save(tmp_path)
    text = (tmp_path / "card.toml").read_text()
    old = re.sub(r"\[decoder\]\n(?:\w+ = .*\n)+", "", text)
    assert old != text
    (tmp_path / "card.toml").write_text(old)
    card = load_model(tmp_path).card
    assert card.training is None
    assert card.decoder == DecoderConfig()


def test_a_card_keeps_what_training_has_come_to(tmp_path):
    learned = TrainingSummary(skill=0.81, kept_back_skill=0.7, hours=1.5, curve=((100, -0.05), (400, 0.8)))
    save(tmp_path, training=learned, decoder=DecoderConfig(embed_dim=96, depth=3, num_heads=4))
    card = read_card(tmp_path)
    assert card.training == learned
    assert card.decoder.depth == 3


def test_a_decoder_of_impossible_dimensions_is_refused(tmp_path):
    save(tmp_path)
    text = (tmp_path / "card.toml").read_text()
    (tmp_path / "card.toml").write_text(text.replace("[decoder]\nembed_dim = 128", "[decoder]\nembed_dim = 4000000"))
    refused(tmp_path, "embed_dim = 4000000")
