"""From projected phase to electrons: contrast transfer, envelope and shot noise."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch_ctf import calculate_ctf_2d

from cryoemmae_plugin.simulate.settings import SimulationSettings

Image = NDArray[np.float32]

DQE = 0.6
"""Share of the electrons that the detector counts."""

ICE_PHASE_rad = 0.0043
"""Phase noise of amorphous ice, in rad per √(Å of thickness) and per 1/Å of pixel: √(0.0314 molecules/Å³) times 0.098
rad·Å² for each molecule, times 1/4 since the molecules of a liquid avoid each other (structure factor 0.06)."""

MAX_FILTER_PAD = 200
"""Pixels by which an image is mirrored at its edges before it is filtered."""


def frequencies(shape: tuple[int, int], pixel_size_A: float) -> Image:
    """Return the spatial frequency in 1/Å of each coefficient of a real FFT of `shape`, float32."""
    ky = np.fft.fftfreq(shape[0], pixel_size_A).astype(np.float32)
    kx = np.fft.rfftfreq(shape[1], pixel_size_A).astype(np.float32)
    return np.asarray(np.hypot(ky[:, None], kx[None, :]), np.float32)


def contrast_transfer(settings: SimulationSettings, shape: tuple[int, int]) -> Image:
    """Return the CTF with its envelope for a real FFT of `shape`; positive where protein is dark, float32."""
    ctf = calculate_ctf_2d(
        defocus=settings.defocus_um,
        astigmatism=settings.astigmatism_um,
        astigmatism_angle=30.0,
        voltage=settings.voltage_kV,
        spherical_aberration=settings.cs_mm,
        amplitude_contrast=settings.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=settings.pixel_size_A,
        image_shape=shape,
        rfft=True,
        fftshift=False,
    )
    transfer = ctf.to(torch.float32).numpy()
    k = frequencies(shape, settings.pixel_size_A)
    return np.asarray(transfer * np.exp(-0.25 * settings.b_factor_A2 * k * k), np.float32)


def ice_noise(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return the projected phase noise of the ice in rad, white over the pixels."""
    strength = ICE_PHASE_rad * np.sqrt(settings.ice_thickness_A) / settings.pixel_size_A
    return np.asarray(strength * rng.standard_normal(shape, np.float32), np.float32)


def expose(intensity: Image, settings: SimulationSettings, rng: np.random.Generator) -> Image:
    """Return detected electrons per pixel for a relative `intensity` around 1."""
    electrons = settings.dose_e_A2 * DQE * settings.pixel_size_A**2
    expected = np.maximum(intensity, 0.01) * np.float32(electrons)
    if not settings.noise:
        return np.asarray(expected, np.float32)
    return np.asarray(rng.poisson(expected), np.float32)


def band_pass(image: Image, pixel_size_A: float, lowpass_A: float | None, highpass_A: float | None) -> Image:
    """Filter with Gaussian edges whose half amplitudes lie at the given periods in Å; the mean is kept."""
    reach = round(max(lowpass_A or 0, highpass_A or 0) / pixel_size_A)
    pad = min(reach, MAX_FILTER_PAD, min(image.shape) // 2)
    ny, nx = (scipy.fft.next_fast_len(n + 2 * pad, real=True) for n in image.shape)
    after = [(pad, n - pad - m) for n, m in zip((ny, nx), image.shape, strict=True)]
    padded = np.pad(image, after, mode="reflect")
    k = frequencies((ny, nx), pixel_size_A)
    gain = np.ones_like(k)
    if lowpass_A is not None:
        gain *= np.exp(-np.log(2) * (k * lowpass_A) ** 2)
    if highpass_A is not None:
        gain *= 1 - np.exp(-np.log(2) * (k * highpass_A) ** 2)
    gain[0, 0] = 1
    filtered = scipy.fft.irfft2(scipy.fft.rfft2(padded) * gain, s=(ny, nx))
    return np.asarray(filtered[pad : pad + image.shape[0], pad : pad + image.shape[1]], np.float32)
