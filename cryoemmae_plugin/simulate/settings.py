"""What a simulated micrograph shall show: one frozen, validated description."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from cryoemmae_plugin.settings import Options
from cryoemmae_plugin.simulate.shapes import ParticleShape

Ice = Literal["vitreous", "crystalline", "leopard"]


class SimulationSettings(Options):
    """One micrograph to simulate. Frozen; validated on construction.

    Everything that is not a number here (positions, orientations, noise) follows from the seed given to
    :func:`~cryoemmae_plugin.simulate.simulate`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    shape: tuple[int, int] = Field(default=(1024, 1024), title="(ny, nx) of the micrograph in pixels")
    pixel_size_A: float = Field(default=2.0, ge=0.3, le=20, title="Å per pixel")

    particle: ParticleShape = Field(default="globular", title="Shape of the particle")
    variant: int = Field(default=0, ge=0, title="Which of the shape's many random varieties")
    diameter_A: float = Field(default=180.0, gt=5, le=2000, title="Diameter of the particle's bounding sphere in Å")
    n_particles: int = Field(default=60, ge=0, title="Particles to place; fewer where no more fit")
    min_distance: float = Field(default=1.1, ge=0.3, le=20, title="Least distance between centres, in diameters")
    border: float = Field(
        default=-0.5, ge=-0.6, le=5, title="Strip along the frame without centres, in diameters; < 0: some are cut"
    )
    size_spread: float = Field(default=0.0, ge=0, le=0.4, title="Deviation of the logarithm of the particles' sizes")
    contrast: float = Field(default=1.0, gt=0, le=10, title="Strength of the particles relative to protein in thin ice")

    defocus_um: float = Field(default=1.8, ge=0, le=10, title="Underfocus in µm")
    astigmatism_um: float = Field(default=0.02, ge=0, le=2, title="Half the difference of the two defoci in µm")
    voltage_kV: float = Field(default=300.0, ge=60, le=1000, title="Acceleration voltage in kV")
    cs_mm: float = Field(default=2.7, ge=0, le=10, title="Spherical aberration in mm")
    amplitude_contrast: float = Field(default=0.1, ge=0.01, le=0.5, title="Fraction of amplitude contrast")
    b_factor_A2: float = Field(default=120.0, ge=0, le=5000, title="Envelope exp(-B k² / 4), B in Å²")
    dose_e_A2: float = Field(default=40.0, gt=0, le=500, title="Dose in electrons per Å²")
    noise: bool = Field(default=True, title="Shot noise and the structure of the ice")

    ice: Ice = Field(default="vitreous", title="State of the ice")
    ice_thickness_A: float = Field(default=400.0, ge=0, le=5000, title="Thickness of the ice in Å")
    ice_gradient: float = Field(default=0.08, ge=0, le=0.8, title="Relative change of the background across the frame")
    carbon: float = Field(default=0.0, ge=0, le=1, title="Fraction of the frame under carbon, free of particles")
    frost: int = Field(default=0, ge=0, le=1000, title="Round dark contaminations")
    crystals: int = Field(default=0, ge=0, le=1000, title="Ice crystals with sharp edges")
    grains: int = Field(default=0, ge=0, le=2000, title="Grains of ice of every size, single and in chains")
    web: float = Field(default=0.0, ge=0, le=1, title="Fraction of the frame under a net of contamination")
    gap: float = Field(default=0.0, ge=0, le=0.6, title="Fraction of the frame without ice: vacuum, or the grid's bar")
    crystallites: int = Field(default=0, ge=0, le=5000, title="Small ice crystals of all sizes and shades")
    specks: int = Field(default=0, ge=0, le=2000, title="Small contaminations, each of its own size and look")
    vesicles: int = Field(default=0, ge=0, le=500, title="Vesicles of all sizes, not in the reference")
    gold: int = Field(default=0, ge=0, le=500, title="Gold beads of one size")
    gold_A: float = Field(default=100.0, ge=10, le=2000, title="Diameter of the gold beads in Å")
    foil: float = Field(default=0.0, ge=0, le=0.9, title="Fraction of the frame under gold foil, outside a round hole")
    aggregates: int = Field(default=0, ge=0, le=200, title="Clumps of aggregated protein, not in the reference")
    debris: int = Field(default=0, ge=0, le=5000, title="Protein fragments, not in the reference")

    hot_pixels: int = Field(default=0, ge=0, title="Single very bright pixels")
    lowpass_A: float | None = Field(default=None, gt=0, title="Gaussian low-pass, half amplitude at this period in Å")
    highpass_A: float | None = Field(default=None, gt=0, title="Gaussian high-pass, half amplitude at this period in Å")
    smeared_border_px: int = Field(default=0, ge=0, title="Border overwritten with its inner edge")
    eight_bit: bool = Field(default=False, title="Contrast-stretched to whole numbers in 0..255")

    @model_validator(mode="after")
    def _fits(self) -> SimulationSettings:
        if min(self.shape) < 32 or max(self.shape) > 16384:
            raise ValueError(f"a micrograph of {self.shape} pixels is not between 32 and 16384 pixels on each side")
        if 2 * self.smeared_border_px >= min(self.shape):
            raise ValueError(f"a smeared border of {self.smeared_border_px} px leaves nothing of {self.shape} pixels")
        return self

    @property
    def diameter_px(self) -> float:
        """Particle diameter in pixels."""
        return self.diameter_A / self.pixel_size_A
