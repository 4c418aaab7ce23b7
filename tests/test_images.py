"""Reading micrographs: what comes out is what was stored, and what cannot be picked is refused by name."""

import bz2
import gzip
import io
import os
from contextlib import suppress
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cryoemmae_plugin.errors import ImageError, PixelSizeError
from cryoemmae_plugin.images import ImageHeader, decoding, is_readable, pixel_size_of, read_header, read_image
from cryoemmae_plugin.images.grey import LUMA

NY, NX = 24, 40
MRC_DTYPES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
HEADER_WORD = {"nx": 0, "ny": 1, "nz": 2, "mode": 3, "mx": 7, "cella_x": 10, "nsymbt": 23}


def marked(dtype="float32", ny=NY, nx=NX):
    """A ramp along x with a bright L near the first corner: every flip, turn and swap of axes changes it."""
    image = np.broadcast_to(np.arange(nx) % 50, (ny, nx)).astype(dtype)
    image[2:9, 3] = 100
    image[8, 3:6] = 110
    return image


def write_mrc(path, image=None, pixel_size_A=1.5):
    image = marked() if image is None else image
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image)
        mrc.voxel_size = pixel_size_A
    return path


def patch(path, word, value, kind="<i4"):
    """Overwrite one 4-byte word of an MRC header."""
    raw = bytearray(path.read_bytes())
    raw[4 * HEADER_WORD[word] : 4 * HEADER_WORD[word] + 4] = np.array(value, kind).tobytes()
    path.write_bytes(raw)
    return path


def refused(path, *words):
    """Check that both ways of reading refuse the file, naming it and saying these words."""
    for read in (read_header, read_image):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        for word in words:
            assert str(word) in str(caught.value)


def content_refused(path, *words):
    """Check that the pixels are refused although the header is fine."""
    read_header(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    for word in (path, *words):
        assert str(word) in str(caught.value)


# --- what is stored is what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MRC_DTYPES)
def test_every_mrc_mode_is_read_row_for_row(tmp_path, mode):
    path = write_mrc(tmp_path / "m.mrc", marked(MRC_DTYPES[mode]))
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, marked())
    header = read_header(path)
    assert (header.shape, header.format, header.dtype) == ((NY, NX), "mrc", MRC_DTYPES[mode])
    assert header.pixel_size_A == pytest.approx(1.5)


def test_mrc_bytes_agree_with_the_standard(tmp_path):
    path = write_mrc(tmp_path / "m.mrc", marked("int16"))
    first_row = np.frombuffer(path.read_bytes()[1024 : 1024 + 2 * NX], "<i2")
    np.testing.assert_array_equal(read_image(path)[0], first_row)


@pytest.mark.parametrize("mode", MRC_DTYPES)
def test_big_endian_mrc_is_read(tmp_path, mode):
    image = marked(MRC_DTYPES[mode])
    path = write_mrc(tmp_path / "m.mrc", image.astype(image.dtype.newbyteorder(">")))
    assert path.read_bytes()[212] == (0x44 if mode == 0 else 0x11)
    np.testing.assert_array_equal(read_image(path), marked())
    assert read_header(path).pixel_size_A == pytest.approx(1.5)


@pytest.mark.filterwarnings("ignore:.*machine stamp:RuntimeWarning", "ignore:Machine stamp:RuntimeWarning")
@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"\x11\x11\0\0"])
def test_a_wrong_machine_stamp_does_not_hide_the_image(tmp_path, stamp):
    path = write_mrc(tmp_path / "m.mrc", marked("float32"))
    raw = bytearray(path.read_bytes())
    raw[212:216] = stamp
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_image(path), marked())


@pytest.mark.parametrize("compress", [gzip, bz2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_compressed_mrc_is_read(tmp_path, compress, dtype):
    raw = write_mrc(tmp_path / "m.mrc", marked(dtype)).read_bytes()
    path = tmp_path / ("m.mrc.gz" if compress is gzip else "m.mrc.bz2")
    path.write_bytes(compress.compress(raw))
    np.testing.assert_array_equal(read_image(path), marked())
    assert read_header(path) == ImageHeader((NY, NX), 1.5, "mrc", dtype)


def test_an_extended_header_is_skipped(tmp_path):
    path = tmp_path / "m.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(marked())
        mrc.set_extended_header(np.full(768, 7, "V1"))
    np.testing.assert_array_equal(read_image(path), marked())


@pytest.mark.parametrize("suffix", [".mrcs", ".MRC", ".rec", ".st", ".map"])
def test_a_stack_of_one_section_is_a_micrograph(tmp_path, suffix):
    path = write_mrc(tmp_path / "m.mrc", marked()[None]).rename(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(read_image(path), marked())


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", "float32", "float64"])
def test_tiff_is_read_row_for_row(tmp_path, dtype):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, marked(dtype))
    np.testing.assert_array_equal(read_image(path), marked())
    assert read_header(path) == ImageHeader((NY, NX), None, "tiff", dtype)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}])
def test_compressed_tiff_is_read(tmp_path, compression, layout):
    path = tmp_path / "m.tiff"
    tifffile.imwrite(path, marked("uint16"), compression=compression, **layout)
    np.testing.assert_array_equal(read_image(path), marked())


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_tiff_becomes_grey(tmp_path, planar):
    path = tmp_path / "m.tif"
    grey = marked("uint8")
    colour = np.stack([grey, grey // 2, 255 - grey])
    stored = colour if planar == "separate" else np.moveaxis(colour, 0, -1)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_allclose(read_image(path), np.tensordot(LUMA, colour, 1), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", ["grey", "grey+alpha", "colour", "colour+alpha"])
def test_png_is_read_row_for_row_without_alpha(tmp_path, dtype, channels):
    import imagecodecs

    grey = marked(dtype) * (1 if dtype == "uint8" else 500)
    alpha = np.full_like(grey, 9)
    layers = {"grey": [grey], "grey+alpha": [grey, alpha], "colour": [grey] * 3, "colour+alpha": [grey] * 3 + [alpha]}
    path = tmp_path / "m.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(np.stack(layers[channels], axis=-1).squeeze())))
    np.testing.assert_allclose(read_image(path), grey.astype(np.float32), rtol=1e-6)
    assert read_header(path) == ImageHeader((NY, NX), None, "png", dtype)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_black_and_white_and_palette_png_are_read(tmp_path, mode):
    path = tmp_path / "m.png"
    Image.fromarray(np.where(marked() >= 100, 255, 0).astype("uint8")).convert(mode).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image > 127, marked() >= 100)


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_is_read_unturned(tmp_path, colour):
    path = tmp_path / "m.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3  # "turn by 180 degrees"
    smooth = np.add.outer(np.arange(NY) * 3.0, np.arange(NX) * 2.0).astype("uint8")
    Image.fromarray(np.stack([smooth] * 3, -1) if colour else smooth).save(path, quality=95, exif=exif)
    np.testing.assert_allclose(read_image(path), smooth, atol=4)
    assert read_header(path) == ImageHeader((NY, NX), None, "jpeg", "uint8")


# --- what cannot be picked --------------------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    refused(tmp_path / "absent.mrc", "no such file")
    refused(tmp_path.joinpath("folder.mrc"), "no such file")
    (tmp_path / "folder.mrc").mkdir()
    refused(tmp_path / "folder.mrc", "not a file")


@pytest.mark.parametrize("suffix", [".mrc", ".mrc.gz", ".mrc.bz2", ".tif", ".png", ".jpg"])
def test_an_empty_file_and_a_non_image_are_refused(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.touch()
    refused(path, "empty")
    path.write_bytes(b"hello world, this is not an image " * 100)
    refused(path)


@pytest.mark.parametrize("name", ["notes.txt", "particles.star", "m.gz", "m.eer"])
def test_an_unknown_suffix_lists_the_readable_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 2000)
    refused(tmp_path / name, ".mrc", ".tif", ".png")
    assert not is_readable(tmp_path / name)
    assert is_readable(Path("A.MRC.GZ"))
    assert is_readable(Path("a.jpeg"))


@pytest.mark.parametrize("mark", [b"\0\0\0\0", b"    ", b"PAM "])
@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"DD\0\0", b"\x11\x11\0\0"])
def test_a_file_without_map_is_read_where_all_else_agrees(tmp_path, mark, stamp):
    path = write_mrc(tmp_path / "m.mrc")
    raw = bytearray(path.read_bytes())
    raw[208:216] = mark + stamp
    path.write_bytes(raw)
    assert read_header(path).pixel_size_A == pytest.approx(1.5)
    np.testing.assert_array_equal(read_image(path), marked())
    path.write_bytes(raw + b"\0")
    refused(path, "the header does not fit the file")
    patch(path, "mode", 99)
    refused(path, "not an MRC file", mark)


@pytest.mark.parametrize("change", [-7, 4 * NY * NX])
def test_a_wrong_byte_count_states_both_counts(tmp_path, change):
    path = write_mrc(tmp_path / "m.mrc")
    raw = path.read_bytes()
    path.write_bytes(raw[:change] if change < 0 else raw + b"\0" * change)
    expected = 1024 + 4 * NY * NX
    refused(path, expected, expected + change)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("surplus", [1, 512])
def test_surplus_bytes_are_ignored_with_a_warning(tmp_path, caplog, surplus, squeeze):
    raw = write_mrc(tmp_path / "m.mrc").read_bytes() + b"\0" * surplus
    path = tmp_path / ("m.mrc.gz" if squeeze else "m.mrc")
    path.write_bytes(gzip.compress(raw) if squeeze else raw)
    np.testing.assert_array_equal(read_image(path), marked())
    assert f"{surplus} surplus bytes" in caplog.text


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("stale", [100, 1024, 131072, 2**31 - 1, -1])
def test_an_extended_header_that_is_not_there_is_not_skipped(tmp_path, caplog, stale, squeeze):
    raw = patch(write_mrc(tmp_path / "m.mrc"), "nsymbt", stale).read_bytes()
    path = tmp_path / ("m.mrc.gz" if squeeze else "m.mrc")
    path.write_bytes(gzip.compress(raw) if squeeze else raw)
    np.testing.assert_array_equal(read_image(path), marked())
    assert f"announces {stale} bytes of extended header" in caplog.text


def test_an_extended_header_that_is_partly_there_is_refused(tmp_path):
    path = patch(write_mrc(tmp_path / "m.mrc"), "nsymbt", 1024)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    plain = 1024 + 4 * NY * NX
    refused(path, plain, plain + 1024, plain + 100)


def unsigned_bytes():
    """Grey values around 128 as 8-bit programs store them."""
    return np.clip(np.random.default_rng(1).normal(128, 30, (NY, NX)), 0, 255).astype(np.uint8)


def write_bytes_mode_0(path, pixels, span=(0, -1), imod_flags=None):
    write_mrc(path, pixels.view(np.int8))
    raw = bytearray(path.read_bytes())
    raw[76:84] = np.array(span, "<f4").tobytes()
    if imod_flags is not None:
        raw[152:160] = np.array([1146047817, imod_flags], "<i4").tobytes()
    path.write_bytes(raw)
    return path


def test_the_stamp_of_imod_says_whether_bytes_are_signed(tmp_path):
    pixels = unsigned_bytes()
    path = write_bytes_mode_0(tmp_path / "m.mrc", pixels, (-128, 127), imod_flags=0)
    np.testing.assert_array_equal(read_image(path), pixels)
    assert read_header(path).dtype == "uint8"
    path = write_bytes_mode_0(tmp_path / "s.mrc", pixels, (0, 255), imod_flags=1)
    np.testing.assert_array_equal(read_image(path), pixels.view(np.int8))


def test_without_a_stamp_the_range_in_the_header_says_it(tmp_path, caplog):
    pixels = unsigned_bytes()
    path = write_bytes_mode_0(tmp_path / "m.mrc", pixels, (pixels.min(), pixels.max()))
    np.testing.assert_array_equal(read_image(path), pixels)
    signed = (pixels.astype(int) - 128).astype(np.int8)
    path = write_bytes_mode_0(tmp_path / "s.mrc", signed, (signed.min(), signed.max()))
    np.testing.assert_array_equal(read_image(path), signed)
    assert not caplog.text


@pytest.mark.parametrize("span", [(0, -1), (0, 0), (np.nan, np.nan), (0, 4000)])
def test_in_doubt_the_values_say_it_and_the_user_is_told(tmp_path, caplog, span):
    pixels = unsigned_bytes()
    path = write_bytes_mode_0(tmp_path / "m.mrc", pixels, span)
    np.testing.assert_array_equal(read_image(path), pixels)
    signed = (pixels.astype(int) - 128).astype(np.int8)
    np.testing.assert_array_equal(read_image(write_bytes_mode_0(tmp_path / "s.mrc", signed, span)), signed)
    assert "read as unsigned" in caplog.text
    assert "changing the contrast setting does not help" in caplog.text


def test_half_a_header_is_refused(tmp_path):
    path = write_mrc(tmp_path / "m.mrc")
    path.write_bytes(path.read_bytes()[:500])
    refused(path, 500, 1024)


@pytest.mark.parametrize("mode", [3, 4, 101, -1, 77])
def test_other_mrc_modes_are_named(tmp_path, mode):
    refused(patch(write_mrc(tmp_path / "m.mrc"), "mode", mode), f"mode {mode}")


@pytest.mark.parametrize("suffix", [".mrc", ".mrcs", ".st"])
def test_a_stack_is_refused_with_its_number_of_sections(tmp_path, suffix):
    path = write_mrc(tmp_path / "m.mrc", np.stack([marked()] * 3)).rename(tmp_path / f"s{suffix}")
    refused(path, "3 sections")


@pytest.mark.parametrize(("word", "value"), [("nx", -5), ("ny", 0), ("nx", 2**31 - 1), ("ny", 2**30), ("nz", -1)])
def test_hostile_dimensions_are_refused_before_anything_is_allocated(tmp_path, word, value):
    path = patch(write_mrc(tmp_path / "m.mrc"), word, value)
    refused(path, value)
    squeezed = tmp_path / "m.mrc.gz"
    squeezed.write_bytes(gzip.compress(path.read_bytes()))
    refused(squeezed, value)


@pytest.mark.parametrize("compress", [gzip, bz2])
def test_a_compressed_file_that_breaks_off_or_goes_on_is_refused(tmp_path, compress):
    raw = write_mrc(tmp_path / "m.mrc").read_bytes()
    path = tmp_path / ("m.mrc.gz" if compress is gzip else "m.mrc.bz2")
    squeezed = compress.compress(raw)
    path.write_bytes(squeezed[: len(squeezed) // 2])
    with pytest.raises(ImageError, match=path.name):
        read_image(path)
    path.write_bytes(compress.compress(raw[:-100]))
    content_refused(path, len(raw), len(raw) - 100)
    path.write_bytes(compress.compress(raw * 2))
    content_refused(path, len(raw), 2 * len(raw) - 1024)


def test_no_more_is_decompressed_than_the_header_promises(tmp_path, monkeypatch):
    raw = write_mrc(tmp_path / "m.mrc").read_bytes()
    path = tmp_path / "bomb.mrc.gz"
    path.write_bytes(gzip.compress(raw + bytes(50_000_000), 1))
    taken = []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            data = super().read(size)
            taken.append(len(data))
            return data

    monkeypatch.setattr(gzip, "open", lambda p: Counting(p, "rb"))
    content_refused(path, "expected")
    assert sum(taken) < 2 * len(raw) + 10


@pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")
@pytest.mark.parametrize("suffix", [".mrc", ".tif"])
def test_nan_and_infinity_are_counted(tmp_path, suffix):
    image = marked()
    image[3, :5] = np.nan
    image[4, :2] = np.inf
    path = tmp_path / f"m{suffix}"
    write_mrc(path, image) if suffix == ".mrc" else tifffile.imwrite(path, image)
    content_refused(path, f"7 of {NY * NX} pixels")


def test_values_beyond_float32_are_counted_as_infinite(tmp_path):
    image = marked("float64")
    image[0, 0] = 1e300
    tifffile.imwrite(tmp_path / "m.tif", image)
    content_refused(tmp_path / "m.tif", f"1 of {NY * NX} pixels")


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png"])
def test_a_constant_image_is_refused_with_its_value(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    image = np.full((NY, NX), 42, "uint8")
    if suffix == ".mrc":
        write_mrc(path, image.astype("int16"))
    elif suffix == ".tif":
        tifffile.imwrite(path, image)
    else:
        Image.fromarray(image).save(path)
    content_refused(path, 42)


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "lzw"}])
def test_a_tiff_of_several_pages_is_refused(tmp_path, options):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, np.stack([marked("uint8")] * 5), photometric="minisblack", **options)
    refused(path, "5 pages")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_a_truncated_tiff_is_refused(tmp_path, compression):
    noise = np.random.default_rng(0).integers(0, 60000, (64, 48), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", noise, compression=compression, rowsperstrip=8)
    raw = (tmp_path / "m.tif").read_bytes()
    for fraction in (0.3, 0.6, 0.95):
        (tmp_path / "m.tif").write_bytes(raw[: int(len(raw) * fraction)])
        with pytest.raises(ImageError, match=r"m\.tif"):
            read_image(tmp_path / "m.tif")


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "lzw", "tile": (16, 16)}])
def test_a_tiff_that_claims_a_size_that_it_does_not_have_is_refused(tmp_path, options):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, marked("uint16"), **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("ImageLength", "ImageWidth"):
            tiff.pages.first.tags[tag].overwrite(16000)
    for read in (read_header, read_image):
        with pytest.raises(ImageError, match=r"m\.tif: claims 16000 x 16000 px, but holds only"):
            read(path)


def test_complex_and_palette_tiff_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", marked("complex64"))
    refused(tmp_path / "c.tif", "complex64")
    palette = np.zeros((3, 256), "uint16")
    tifffile.imwrite(tmp_path / "p.tif", marked("uint8"), photometric="palette", colormap=palette)
    refused(tmp_path / "p.tif", "palette")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_png_or_jpeg_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG" if suffix == ".png" else "JPEG")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
    with pytest.raises(ImageError, match=path.name):
        read_image(path)


def test_a_huge_png_is_refused_by_its_header(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(marked("uint8")).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "m.png").write_bytes(raw)
    with pytest.raises(ImageError, match=r"m\.png"):
        read_image(tmp_path / "m.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path):
    path = write_mrc(tmp_path / "m.mrc")
    path.chmod(0)
    refused(path, "ermission")


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile", "ignore::Warning:PIL")
def test_random_damage_never_escapes_as_another_error(tmp_path):
    rng = np.random.default_rng(1)
    write_mrc(tmp_path / "m.mrc", marked("int16"))
    (tmp_path / "m.mrc.gz").write_bytes(gzip.compress((tmp_path / "m.mrc").read_bytes()))
    tifffile.imwrite(tmp_path / "m.tif", marked("uint16"), compression="lzw")
    Image.fromarray(marked("uint8")).save(tmp_path / "m.png")
    Image.fromarray(marked("uint8")).save(tmp_path / "m.jpg")
    for path in sorted(tmp_path.iterdir()):
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        survived = 0
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, min(len(whole), 256), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            try:
                survived += read_image(path).ndim == 2
            except ImageError:
                continue
        assert survived < 60, "no damage was noticed at all"


# --- pixel size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [0.0, np.nan, -1.2, np.inf])
def test_a_header_without_pixel_size_asks_for_the_option(tmp_path, stored):
    path = patch(write_mrc(tmp_path / "m.mrc"), "cella_x", stored, "<f4")
    header = read_header(path)
    assert header.pixel_size_A is None
    with pytest.raises(PixelSizeError, match=r"m\.mrc.*pixel_size_A"):
        pixel_size_of(path, header, None)
    assert pixel_size_of(path, header, 1.06) == 1.06


def test_no_sampling_and_unequal_axes_give_no_pixel_size(tmp_path):
    assert read_header(patch(write_mrc(tmp_path / "a.mrc"), "mx", 0)).pixel_size_A is None
    assert read_header(patch(write_mrc(tmp_path / "b.mrc"), "cella_x", 90.0, "<f4")).pixel_size_A is None


def test_exactly_one_angstrom_counts_as_unset_unless_given(tmp_path):
    path = write_mrc(tmp_path / "m.mrc", pixel_size_A=1.0)
    header = read_header(path)
    with pytest.raises(PixelSizeError, match=r"m\.mrc.*1 Å.*pixel_size_A=1\.0"):
        pixel_size_of(path, header, None)
    assert pixel_size_of(path, header, 1.0) == 1.0
    near = read_header(write_mrc(path, pixel_size_A=1.01))
    assert pixel_size_of(path, near, None) == pytest.approx(1.01)


def test_the_users_pixel_size_wins_over_the_header(tmp_path):
    path = write_mrc(tmp_path / "m.mrc")
    assert pixel_size_of(path, read_header(path), 2.5) == 2.5


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_override_is_refused(given):
    with pytest.raises(PixelSizeError, match="pixel_size_A is"):
        pixel_size_of(Path("m.mrc"), ImageHeader((2, 2), 1.5, "mrc", "int8"), given)


@pytest.mark.parametrize("stored", [1e-10, 5000.0])
def test_a_pixel_size_that_no_micrograph_has_is_refused_with_its_value(tmp_path, stored):
    path = write_mrc(tmp_path / "m.mrc", pixel_size_A=stored)
    with pytest.raises(PixelSizeError, match=f"{stored:g}"):
        pixel_size_of(path, read_header(path), None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (5.0, 5.0), "metadata": {"unit": "nm"}}, 2.0),
        ({"imagej": True, "resolution": (1e4 / 1.77, 1e4 / 1.77), "metadata": {"unit": "um"}}, 1.77),
        ({"imagej": True, "resolution": (1.0, 1.0), "metadata": {"unit": "pixel"}}, None),
        ({"resolution": (1e8 / 1.5, 1e8 / 1.5), "resolutionunit": "CENTIMETER"}, 1.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (1e8, 2e8), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)
def test_tiff_pixel_size_is_taken_only_from_a_sane_unit(tmp_path, options, expected):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, marked("uint16"), **options)
    found = read_header(path).pixel_size_A
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_real_micrographs_are_read():
    folder = Path(__file__).parents[2] / "shared" / "data"
    paths = sorted(folder.glob("empiar-10146/*.png"))[:1]
    if not paths:
        pytest.skip(f"real micrographs not found: {folder}")
    image = read_image(paths[0])
    assert image.shape == read_header(paths[0]).shape
    assert sorted(image.shape) == [1200, 1240]
    assert image.max() > 255, "16-bit values were reduced to 8"


# --- decoders that crash ----------------------------------------------------------------------------------------------


def test_a_decoder_that_crashes_costs_one_file(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    for path in (good, bad):
        tifffile.imwrite(path, marked("uint16"), compression="lzw")
    np.testing.assert_array_equal(read_image(good), marked())
    monkeypatch.setattr(decoding, "_START", decoding._START.replace("serve()", "os.abort()"))
    decoding._end_helpers()
    content_refused(bad, "its compressed data are damaged")
    monkeypatch.undo()
    np.testing.assert_array_equal(read_image(good), marked())


def test_a_decoder_that_hangs_is_ended(tmp_path, monkeypatch):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, marked("uint16"), compression="lzw")
    decoding._end_helpers()
    monkeypatch.setattr(decoding, "_START", "import os, time; time.sleep(600)")
    monkeypatch.setattr(decoding, "TIME_LIMIT_S", 0.5)
    content_refused(path, "its compressed data are damaged")


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits"])
def test_damage_in_compressed_data_never_ends_the_program(tmp_path, compression):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 60000, (64, 64), "uint16"), compression=compression)
    raw = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(25):
        damaged = bytearray(raw)
        for at in rng.integers(256, len(raw), 40):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(ImageError):
            read_image(path)


@pytest.mark.parametrize("value", [3e38, -3e38, 1e20])
def test_values_that_no_camera_records_are_refused(tmp_path, value):
    image = marked()
    image[3, 3] = value
    content_refused(write_mrc(tmp_path / "m.mrc", image), "which no camera records")


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png", ".mrc.gz"])
def test_a_pipe_is_refused_at_once(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    refused(tmp_path / f"pipe{suffix}", "not a file")


@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".mrc", ".mrc.gz", ".tif", ".png", ".jpg"]), st.data())
def test_no_content_makes_a_reader_fail_otherwise(tmp_path, suffix, data):
    """Valid files with a few bytes changed, most of them in the header."""
    path = tmp_path / f"m{suffix}"
    if suffix.startswith(".mrc"):
        raw = bytearray(write_mrc(tmp_path / "plain.mrc").read_bytes())
    elif suffix == ".tif":
        tifffile.imwrite(path, marked("uint16"))
        raw = bytearray(path.read_bytes())
    else:
        Image.fromarray(marked("uint8")).save(path)
        raw = bytearray(path.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, min(1100, len(raw) - 1)), st.integers(0, 255)))):
        raw[at] = value
    path.write_bytes(gzip.compress(raw, 1) if suffix.endswith(".gz") else raw)
    for read in (read_header, read_image):
        with suppress(ImageError):
            read(path)
