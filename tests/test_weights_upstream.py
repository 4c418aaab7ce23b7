"""Published checkpoints: read without running code, checked, and equal in what they compute."""

import io
import math
import os
import zipfile

import joblib
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.errors import ModelError, OutputError
from cryoemmae_plugin.training.clusters import particle_cluster_by_simulation
from cryoemmae_plugin.training.mae import Decoder
from cryoemmae_plugin.weights import find_model, installed, load_decoder_state, load_model, user_models_dir
from cryoemmae_plugin.weights.upstream import import_upstream, read_centroids, read_checkpoint

TINY = EncoderConfig(tile_px=16, embed_dim=16, depth=2, num_heads=1)
DECODER_DIM, DECODER_DEPTH = 8, 2


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """Give every test empty folders of shipped and of user models."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(installed, "shipped_models_dir", lambda: tmp_path / "shipped")


# --- an independent masked autoencoder: names and mathematics written down from the MAE and timm definitions -


def sincos(dim, grid):
    """2-D positions: the first half of the channels codes the column, the second the row; the class token has zeros."""
    table = np.zeros((1 + grid * grid, dim))
    quarter = dim // 4
    for row in range(grid):
        for column in range(grid):
            for i in range(quarter):
                frequency = 10000 ** (-i / quarter)
                entry = table[1 + row * grid + column]
                entry[i], entry[quarter + i] = math.sin(column * frequency), math.cos(column * frequency)
                entry[2 * quarter + i], entry[3 * quarter + i] = math.sin(row * frequency), math.cos(row * frequency)
    return torch.tensor(table[None], dtype=torch.float32)


def block_shapes(prefix, dim, ratio=2):
    return {
        f"{prefix}.norm1.weight": (dim,),
        f"{prefix}.norm1.bias": (dim,),
        f"{prefix}.attn.qkv.weight": (3 * dim, dim),
        f"{prefix}.attn.qkv.bias": (3 * dim,),
        f"{prefix}.attn.proj.weight": (dim, dim),
        f"{prefix}.attn.proj.bias": (dim,),
        f"{prefix}.norm2.weight": (dim,),
        f"{prefix}.norm2.bias": (dim,),
        f"{prefix}.mlp.fc1.weight": (ratio * dim, dim),
        f"{prefix}.mlp.fc1.bias": (ratio * dim,),
        f"{prefix}.mlp.fc2.weight": (dim, ratio * dim),
        f"{prefix}.mlp.fc2.bias": (dim,),
    }


def released_state(config=TINY, seed=0, decoder=True, classifier=False):
    """Random weights under the released code's names."""
    dim, patch = config.embed_dim, config.patch_px
    shapes = {
        "cls_token": (1, 1, dim),
        "patch_embed.proj.weight": (dim, 1, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(config.depth):
        shapes |= block_shapes(f"blocks.{i}", dim)
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    if decoder:
        shapes |= {"mask_token": (1, 1, DECODER_DIM)}
        shapes |= {"decoder_embed.weight": (DECODER_DIM, dim), "decoder_embed.bias": (DECODER_DIM,)}
        for i in range(DECODER_DEPTH):
            shapes |= block_shapes(f"decoder_blocks.{i}", DECODER_DIM)
        shapes |= {"decoder_norm.weight": (DECODER_DIM,), "decoder_norm.bias": (DECODER_DIM,)}
        shapes |= {"decoder_pred.weight": (patch**2, DECODER_DIM), "decoder_pred.bias": (patch**2,)}
    if classifier:
        shapes |= {"cls_token_classifier.weight": (5, dim), "cls_token_classifier.bias": (5,)}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 4
        state[name] = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
    state["pos_embed"] = sincos(dim, config.grid)
    if decoder:
        state["decoder_pos_embed"] = sincos(DECODER_DIM, config.grid)
    return state


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6) * weight + bias


def plain_block(x, w, prefix, heads):
    """Pre-norm block: attention head by head, then an MLP with the exact GELU."""

    def linear(y, name):
        return y @ w[f"{prefix}.{name}.weight"].T + w[f"{prefix}.{name}.bias"]

    y = layer_norm(x, w[f"{prefix}.norm1.weight"], w[f"{prefix}.norm1.bias"])
    q, k, v = linear(y, "attn.qkv").chunk(3, dim=-1)
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        mixed.append(weights / weights.sum(-1, keepdim=True) @ v[..., part])
    x = x + linear(torch.cat(mixed, dim=-1), "attn.proj")
    y = linear(layer_norm(x, w[f"{prefix}.norm2.weight"], w[f"{prefix}.norm2.bias"]), "mlp.fc1")
    return x + linear(0.5 * y * (1 + torch.erf(y / math.sqrt(2))), "mlp.fc2")


def plain_tokens(tiles, w, config):
    """The released encoder without masking, patch by patch."""
    p, g = config.patch_px, config.grid
    kernel = w["patch_embed.proj.weight"].reshape(config.embed_dim, p * p)
    patches = [
        tiles[:, 0, r * p : r * p + p, c * p : c * p + p].reshape(len(tiles), p * p) @ kernel.T
        for r in range(g)
        for c in range(g)
    ]
    x = torch.stack(patches, dim=1) + w["patch_embed.proj.bias"] + w["pos_embed"][:, 1:] * config.position_weight
    first = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(tiles), 1, -1)
    x = torch.cat([first, x], dim=1)
    for i in range(config.depth):
        x = plain_block(x, w, f"blocks.{i}", config.num_heads)
    return layer_norm(x, w["norm.weight"], w["norm.bias"])


def plain_decoder(latent, w, heads):
    """The released decoder when nothing is masked."""
    x = latent @ w["decoder_embed.weight"].T + w["decoder_embed.bias"] + w["decoder_pos_embed"]
    for i in range(DECODER_DEPTH):
        x = plain_block(x, w, f"decoder_blocks.{i}", heads)
    x = layer_norm(x, w["decoder_norm.weight"], w["decoder_norm.bias"])
    return (x @ w["decoder_pred.weight"].T + w["decoder_pred.bias"])[:, 1:]


# --- helpers ----------------------------------------------------------------------------------------------------------


def checkpoint(tmp_path, state=None, **others):
    """Save a checkpoint like the released ones, with everything that stands beside the weights."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [parameter], "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.999))
    parameter.grad = torch.ones(3)
    optimizer.step()
    path = tmp_path / "MAE_epoch_400.pth.tar"
    content = {
        "model": released_state() if state is None else state,
        "optimizer": optimizer.state_dict(),
        "epoch": 400,
        "scaler": {
            "scale": 65536.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": 7,
        },
    }
    torch.save(content | others, path)
    return path


def fitted_kmeans(dim=TINY.embed_dim):
    points = np.random.default_rng(0).normal(size=(40, dim)).astype(np.float32)
    return KMeans(4, random_state=0, n_init=1).fit(points)


def do_import(path, kmeans=None, mean=0.5291, std=0.119, particle_cluster=None, name="up", **options):
    return import_upstream(path, kmeans, mean, std, particle_cluster, name, encoder=TINY, **options)


def refused(tmp_path, state, *words):
    """Check that a checkpoint is refused, naming the file, and that no model is left behind."""
    path = checkpoint(tmp_path, state)
    with pytest.raises(ModelError) as caught:
        do_import(path)
    for word in (path, *words):
        assert str(word) in str(caught.value)
    assert not list(user_models_dir().glob("*"))


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [TINY, EncoderConfig(tile_px=16, embed_dim=16, depth=1, num_heads=4), EncoderConfig(depth=2)],
    ids=["one head", "four heads", "published width"],
)
def test_tokens_equal_an_independent_implementation(tmp_path, config):
    state = released_state(config, seed=3)
    import_upstream(checkpoint(tmp_path, state), None, 0.5, 0.1, None, "up", encoder=config)
    tiles = torch.randn(3, 1, config.tile_px, config.tile_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = load_model("up").encoder(tiles)
        reference = plain_tokens(tiles, state, config)[:, 1:]
    assert ours.shape == (3, config.grid**2, config.embed_dim)
    assert reference.std() > 0.3
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_decoder_equals_an_independent_implementation(tmp_path):
    state = released_state(seed=5)
    do_import(checkpoint(tmp_path, state))
    decoder = Decoder(TINY, DecoderConfig(DECODER_DIM, DECODER_DEPTH, num_heads=2))
    decoder.load_state_dict(load_decoder_state(find_model("up")))
    tiles = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        latent = plain_tokens(tiles, state, TINY)
        ours = decoder(latent, torch.arange(TINY.grid**2).expand(2, -1))
        torch.testing.assert_close(ours, plain_decoder(latent, state, 2), rtol=0, atol=1e-4)


# --- what a checkpoint may look like ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_with_clusters_becomes_a_model(tmp_path):
    kmeans = fitted_kmeans()
    np.savez(tmp_path / "k.npz", centroids=kmeans.cluster_centers_)
    path = checkpoint(tmp_path, released_state(classifier=True))
    folder = do_import(path, tmp_path / "k.npz", particle_cluster=2)
    assert folder == user_models_dir() / "up" == find_model("up")
    model = load_model("up")
    assert (model.mean, model.std, model.particle_cluster) == (0.5291, 0.119, 2)
    assert model.card.modes == ("paper",)
    assert path.name in model.card.data
    np.testing.assert_allclose(model.centroids.numpy(), kmeans.cluster_centers_)
    assert [entry.name for entry in user_models_dir().iterdir()] == ["up"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["model", "state_dict", "bare", "module."])
def test_weights_are_found_where_training_put_them(tmp_path, shape):
    state = released_state()
    path = tmp_path / "c.pth"
    if shape == "bare":
        torch.save(state, path)
    elif shape == "module.":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        torch.save({shape: state}, path)
    encoder, decoder = read_checkpoint(path, TINY)
    torch.testing.assert_close(encoder["norm.weight"], state["norm.weight"])
    assert "mask_token" in decoder
    assert not {"pos_embed", "decoder_pos_embed"} & {*encoder, *decoder}


@pytest.mark.slow
def test_half_precision_and_parameters_become_float32(tmp_path):
    state = {name: torch.nn.Parameter(tensor.half()) for name, tensor in released_state().items() if "pos" not in name}
    encoder, decoder = read_checkpoint(checkpoint(tmp_path, state), TINY)
    assert {tensor.dtype for tensor in (*encoder.values(), *decoder.values())} == {torch.float32}


@pytest.mark.slow
def test_a_checkpoint_without_decoder_becomes_a_model_without_one(tmp_path):
    folder = do_import(checkpoint(tmp_path, released_state(decoder=False)))
    assert not (folder / "decoder.safetensors").exists()
    assert load_model(folder).encoder is not None


def test_the_old_torch_file_format_is_read(tmp_path):
    torch.save({"model": released_state()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    encoder, _ = read_checkpoint(tmp_path / "old.pth", TINY)
    torch.testing.assert_close(encoder["norm.bias"], released_state()["norm.bias"])


# --- what is refused --------------------------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    good = released_state()
    without = {name: tensor for name, tensor in good.items() if name != "blocks.1.mlp.fc2.bias"}
    refused(tmp_path, without, "blocks.1.mlp.fc2.bias is missing")
    refused(tmp_path, good | {"head.weight": torch.ones(2)}, "head.weight is unexpected")
    refused(tmp_path, good | {"norm.weight": torch.ones(20)}, "norm.weight has shape (20,), not (16,)")
    refused(tmp_path, good | {"norm.weight": torch.full((16,), torch.nan)}, "norm.weight", "finite")
    refused(tmp_path, released_state(EncoderConfig(tile_px=16, embed_dim=32, depth=2)), "(32,")
    refused(tmp_path, released_state(EncoderConfig(tile_px=16, embed_dim=16, depth=3)), "blocks.2")


def test_a_decoder_that_is_not_whole_is_refused(tmp_path):
    good = released_state()
    for name in ("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.bias", "decoder_pred.bias"):
        refused(tmp_path, {key: tensor for key, tensor in good.items() if key != name}, name.split(".")[0])
    refused(tmp_path, good | {"decoder_pred.bias": torch.ones(3)}, "decoder_pred.bias has shape (3,)")


@pytest.mark.parametrize("name", ["pos_embed", "decoder_pos_embed"])
def test_other_positions_than_the_fixed_ones_are_refused(tmp_path, name):
    good = released_state()
    refused(tmp_path, good | {name: good[name] + 1e-3}, name, "sine-cosine")
    refused(tmp_path, good | {name: good[name][:, :5]}, name, "shape")
    read_checkpoint(checkpoint(tmp_path, good | {name: good[name] + 1e-7}), TINY)


def test_a_checkpoint_that_needs_pickle_is_refused_unrun(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = checkpoint(tmp_path, trap=Trap())
    with pytest.raises(ModelError, match="without running code"):
        do_import(path, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"hello" * 100, b"PK\x03\x04" + b"\0" * 100, b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.pth.tar"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"c\.pth\.tar"):
        do_import(path)


def test_a_missing_and_a_truncated_checkpoint_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.pth"):
        do_import(tmp_path / "absent.pth")
    path = checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=path.name):
        do_import(path)


@pytest.mark.parametrize("content", [7, [torch.ones(2)], {"model": {"a": 1}}, {}, {"model": {}}, {1: torch.ones(1)}])
def test_a_torch_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"c\.pth"):
        do_import(tmp_path / "c.pth")


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\0.")
        archive.writestr("a/data/0", bytes(10_000_000))
    with pytest.raises(ModelError, match="unpack"):
        do_import(path)


def test_tensors_that_only_claim_to_be_large_are_refused_by_shape(tmp_path):
    huge = torch.ones(1).expand(10**12)
    refused(tmp_path, released_state() | {"norm.weight": huge}, "norm.weight has shape")
    refused(tmp_path, released_state() | {"mask_token": torch.ones(1).expand(1, 1, 10**9)}, "mask_token")
    refused(tmp_path, released_state() | {"pos_embed": torch.ones(1).expand(1, 17, 10**9)}, "pos_embed")


@pytest.mark.parametrize("option", ["mean", "std"])
@pytest.mark.parametrize("value", [0.0, -0.1, 134.9, math.nan, math.inf])
def test_statistics_of_another_scale_are_refused(tmp_path, option, value):
    with pytest.raises(ModelError, match=rf"{option} is .*0\.\.1"):
        do_import(checkpoint(tmp_path), **{option: value})


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_a_path_or_odd_is_refused(tmp_path, name):
    with pytest.raises(ModelError, match="name is"):
        do_import(checkpoint(tmp_path), name=name)


def test_a_taken_name_is_refused_and_the_model_there_kept(tmp_path):
    do_import(checkpoint(tmp_path))
    before = load_model("up").sha256
    with pytest.raises(ModelError, match="there already"):
        do_import(checkpoint(tmp_path, released_state(seed=9)))
    assert load_model("up").sha256 == before


def test_a_data_folder_that_cannot_be_written_is_an_output_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="up"):
        do_import(checkpoint(tmp_path))


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["centroids", "cluster_centers_"])
def test_centroids_are_read_from_npz(tmp_path, key):
    centres = fitted_kmeans().cluster_centers_.astype(np.float64)
    np.savez(tmp_path / "k.npz", **{key: centres})
    centroids = read_centroids(tmp_path / "k.npz")
    assert centroids.dtype == torch.float32
    np.testing.assert_allclose(centroids.numpy(), centres, rtol=1e-6)


def test_the_released_pickle_needs_permission(tmp_path):
    kmeans = fitted_kmeans()
    path = tmp_path / "kmeans_4.pkl"
    joblib.dump(kmeans, path)
    with pytest.raises(ModelError, match=r"kmeans_4\.pkl.*allow_pickle=True"):
        do_import(checkpoint(tmp_path), path)
    assert not user_models_dir().exists() or not list(user_models_dir().iterdir())
    do_import(checkpoint(tmp_path), path, particle_cluster=0, allow_pickle=True)
    np.testing.assert_allclose(load_model("up").centroids.numpy(), kmeans.cluster_centers_)


def test_a_pickle_is_not_opened_without_permission(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    joblib.dump(Trap(), tmp_path / "k.pkl")
    buffer = io.BytesIO()
    np.savez(buffer, centroids=np.array([Trap()], dtype=object))
    (tmp_path / "k.npz").write_bytes(buffer.getvalue())
    for path in (tmp_path / "k.pkl", tmp_path / "k.npz"):
        with pytest.raises(ModelError, match=path.name):
            read_centroids(path)
    assert not (tmp_path / "sprung").exists()


def test_files_without_centroids_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.ones((2, 2)))
    np.savez(tmp_path / "text.npz", centroids=np.array([["a"]]))
    np.savez(tmp_path / "flat.npz", centroids=np.ones(5))
    np.savez_compressed(tmp_path / "bomb.npz", centroids=np.zeros((4, 4_000_000), np.float64))
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    joblib.dump({"a": 1}, tmp_path / "dict.pkl")
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04nonsense")
    for path, word in [
        (tmp_path / "other.npz", "weights"),
        (tmp_path / "text.npz", "numbers"),
        (tmp_path / "flat.npz", "numbers"),
        (tmp_path / "bomb.npz", "unpack"),
        (tmp_path / "broken.npz", "npz"),
        (tmp_path / "absent.npz", "npz"),
        (tmp_path / "dict.pkl", "dict"),
        (tmp_path / "broken.pkl", "pickle"),
    ]:
        with pytest.raises(ModelError, match=rf"{path.name}.*{word}"):
            read_centroids(path, allow_pickle=True)


def test_centroids_of_another_width_are_refused(tmp_path):
    np.savez(tmp_path / "k.npz", centroids=fitted_kmeans(12).cluster_centers_)
    with pytest.raises(ModelError, match=r"\(4, 12\).*\(k, 16\)"):
        do_import(checkpoint(tmp_path), tmp_path / "k.npz")


@pytest.mark.parametrize("cluster", [4, 99, -1])
def test_a_particle_cluster_that_is_not_there_is_refused(tmp_path, cluster):
    np.savez(tmp_path / "k.npz", centroids=fitted_kmeans().cluster_centers_)
    with pytest.raises(ModelError, match="particle_cluster"):
        do_import(checkpoint(tmp_path), tmp_path / "k.npz", particle_cluster=cluster)


def test_a_particle_cluster_without_clusters_is_refused(tmp_path):
    with pytest.raises(ModelError, match="kmeans"):
        do_import(checkpoint(tmp_path), particle_cluster=1)


@pytest.mark.slow
def test_without_a_number_the_particle_cluster_is_found_on_simulated_micrographs(tmp_path):
    np.savez(tmp_path / "k.npz", centroids=fitted_kmeans().cluster_centers_)
    do_import(checkpoint(tmp_path), tmp_path / "k.npz", find_cluster=particle_cluster_by_simulation)
    assert 0 <= load_model("up").particle_cluster < len(fitted_kmeans().cluster_centers_)


def test_an_open_particle_cluster_says_how_to_set_it(tmp_path):
    np.savez(tmp_path / "k.npz", centroids=fitted_kmeans().cluster_centers_)
    folder = do_import(checkpoint(tmp_path), tmp_path / "k.npz")
    with pytest.raises(ModelError, match=r"particle_cluster = N.*card\.toml"):
        _ = load_model("up").particle_cluster
    text = (folder / "card.toml").read_text()
    (folder / "card.toml").write_text("particle_cluster = 3\n" + text)
    assert load_model("up").particle_cluster == 3
