"""A surgical scene as video: `render(t)` gives any moment's image and exact labels."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.pipeline.synthetic.camera_effects import OVERSCAN, CameraPath, Dirt, Scope, Smoke
from cliprl.pipeline.synthetic.camera_model import CameraModel, Focus
from cliprl.pipeline.synthetic.caption import sentence, things, tissues
from cliprl.pipeline.synthetic.instruments.instruments import Instrument
from cliprl.pipeline.synthetic.instruments.rgba_layer import Matrix, RgbaLayer
from cliprl.pipeline.synthetic.raster import Image, look_up
from cliprl.pipeline.synthetic.tissue.small_objects import lay_things
from cliprl.pipeline.synthetic.tissue.tissue import build_plate

_COUNTS = (0.14, 0.34, 0.34, 0.13, 0.05)  # how often a scene has 0, 1, … instruments
_SHADOW_SCALE = 4


class SceneRenderer:
    """One scene, all of whose looks and motions follow from `seed`. Sizes in pixels, at least 32 each.

    Every method is a pure function of (seed, t); t in seconds.
    """

    def __init__(self, seed: int, height: int, width: int) -> None:
        self.height, self.width = height, width
        shape, unit = (height, width), min(height, width)
        plate = (int(height * OVERSCAN), int(width * OVERSCAN))
        look, tools, lens = (np.random.default_rng([abs(seed), int(seed < 0), part]) for part in range(3))
        self._plate = build_plate(look, plate, unit)
        self._rgba = cv2.cvtColor(self._plate.rgb, cv2.COLOR_BGR2BGRA)
        self._camera, self._scope = CameraPath(lens, shape, plate), Scope(lens, shape)
        self._smoke, self._dirt = Smoke(lens, shape), Dirt(lens, shape)
        # The color outside the scope's circle or borders, by the value of the mask: uint8 (1, 256, 3).
        levels = np.arange(255, -1, -1, dtype=np.uint8)[None]
        self._outside = cv2.transform(levels, self._scope.black[:, None] / 255)
        self._focus, self._sensor = Focus(lens, shape), CameraModel(lens, shape)
        tissue = np.asarray(self._plate.rgb[::8, ::8].reshape(-1, 3).mean(0), np.float32)
        count = int(tools.choice(len(_COUNTS), p=_COUNTS))
        instruments = [Instrument(tools, shape, tissue) for _ in range(count)]
        self._instruments = sorted(instruments, key=lambda instrument: instrument.diameter)
        self._things = lay_things(tools, plate, unit, tissue, self._instruments) if count else []
        self._front = self._choose_front(tools)
        self._shadow = lens.uniform(0, 0.75)
        self._shadow_shift = lens.normal(0, 0.05, 2) * unit
        self._shadow_sigma = unit * lens.uniform(0.008, 0.05) / _SHADOW_SCALE

    @property
    def instrument_count(self) -> int:
        """The instruments of the scene, in view or not."""
        return len(self._instruments)

    def render(self, t: float) -> tuple[Image, Image]:
        """Return the frame, uint8 (H, W, 3) RGB, and its labels, uint8 (H, W), indices into SCENE_CLASSES."""
        camera, overlay, mask = self._camera.matrix(t), self._draw(t), self._scope.mask(t)
        self._bury(overlay, camera)
        labels = self._see(self._plate.labels, camera)
        np.copyto(labels, overlay.labels, where=overlay.owner > 0)
        if mask is not None:
            labels[mask < 128] = 0
        return self._record(camera, overlay, mask, t), labels

    def render_frame(self, t: float) -> Image:
        """Return the frame of `render` without its labels, in less time."""
        camera, overlay = self._camera.matrix(t), self._draw(t, labeled=False)
        self._bury(overlay, camera)
        return self._record(camera, overlay, self._scope.mask(t), t)

    def _record(self, camera: Matrix, overlay: RgbaLayer, mask: Image | None, t: float) -> Image:
        """Compose the scene and record it with lens and sensor."""
        rgb = self._paint(camera, overlay)
        rgb = self._dirt.smear(self._focus(self._smoke.blow(rgb, t)))
        rgb = self._sensor.develop(rgb)
        if mask is not None:
            rgb = self._frame(rgb, mask)
        return self._sensor.record(rgb, t)

    def render_instruments(self, t: float) -> tuple[Image, Image]:
        """Only the instruments: uint8 (H, W, 4) RGB and soft alpha (color not multiplied by it), and their labels."""
        overlay = self._draw(t)
        lit = cv2.multiply(overlay.rgba[..., :3], self._scope.gain, scale=1 / 170)
        alpha = overlay.rgba[..., 3]
        rgba = np.dstack([lit, alpha])
        scale = np.float32(255) / np.maximum(alpha, 1).astype(np.float32)
        soft = (alpha > 0) & (alpha < 255)
        rgba[soft, :3] = np.clip(rgba[soft, :3] * scale[soft, None], 0, 255).astype(np.uint8)
        return rgba, overlay.labels

    def instance_ids(self, t: float) -> Image:
        """Return which instrument each pixel shows: uint8 (H, W), from 1, 0 for none. A number stays with its instrument."""
        overlay, mask = self._draw(t), self._scope.mask(t)
        self._bury(overlay, self._camera.matrix(t))
        owner = overlay.owner
        ids = np.where(owner > len(self._things), owner - np.uint8(len(self._things)), 0).astype(np.uint8)
        if mask is not None:
            ids[mask < 128] = 0
        return ids

    def caption(self, t: float) -> str:
        """What can be seen, in a sentence."""
        camera, overlay = self._camera.matrix(t), self._draw(t)
        self._bury(overlay, camera)
        regions = self._see(self._plate.regions, camera)
        regions[overlay.owner > 0] = 255
        mask = self._scope.mask(t)
        if mask is not None:
            regions[mask < 128] = 255
            overlay.owner[mask < 128] = 0
        phrases = [thing.phrase for thing in self._things] + [tool.phrase for tool in self._instruments]
        remarks = ["smoke"] if self._smoke.density > 0.3 else []
        return sentence(tissues(regions, self._plate.phrases), things(overlay.owner, phrases), remarks)

    def _draw(self, t: float, *, labeled: bool = True) -> RgbaLayer:
        """The instruments and what lies on the tissue, numbered from 1 in that order: things, then instruments."""
        overlay, camera = RgbaLayer((self.height, self.width), labeled=labeled), self._camera.matrix(t)
        for number, thing in enumerate(self._things, 1):
            thing.draw(overlay, camera, t, number)
        for number, instrument in enumerate(self._instruments, len(self._things) + 1):
            instrument.draw(overlay, t, number)
        return overlay

    def _choose_front(self, rng: np.random.Generator) -> Image | None:
        """In some scenes one piece of tissue hides what is behind it: uint8, the plate's size, 255 where it lies."""
        shares = np.bincount(self._plate.regions.ravel()) / self._plate.regions.size
        fit = [index for index in range(1, len(shares)) if 0.01 < shares[index] < 0.15]
        if not fit or rng.random() > 0.15:
            return None
        return np.asarray((self._plate.regions == rng.choice(fit)) * np.uint8(255), np.uint8)

    def _bury(self, overlay: RgbaLayer, camera: Matrix) -> None:
        """Take from the instruments what the tissue in front hides."""
        if self._front is None:
            return
        hidden = cv2.warpAffine(self._front, camera[:2], (self.width, self.height))
        clear = cv2.bitwise_not(hidden)
        overlay.rgba = np.asarray(cv2.multiply(overlay.rgba, cv2.merge([clear] * 4), scale=1 / 255), np.uint8)
        if overlay.labels.size:
            overlay.labels[hidden > 127] = 0
            overlay.owner[hidden > 127] = 0

    def _see(self, plate: Image, camera: Matrix) -> Image:
        """A plate of labels as the camera sees it."""
        size = (self.width, self.height)
        flags, border = cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101
        return np.asarray(cv2.warpAffine(plate, camera[:2], size, flags=flags, borderMode=border), np.uint8)

    def _paint(self, camera: Matrix, overlay: RgbaLayer) -> Image:
        """Tissue, the instruments' shadows on it, the instruments, and the scope's light on all of it."""
        size = (self.width, self.height)
        # OpenCV warps four channels three times faster than three.
        seen = cv2.warpAffine(self._rgba, camera[:2], size, borderMode=cv2.BORDER_REFLECT_101)
        rgb = cv2.cvtColor(seen, cv2.COLOR_BGRA2BGR)
        if self._instruments or self._things:
            alpha = np.asarray(cv2.extractChannel(overlay.rgba, 3), np.uint8)
            rgb = cv2.multiply(rgb, self._shade(alpha), scale=1 / 255)
            rgb = cv2.multiply(rgb, cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2BGR), scale=1 / 255)
            rgb = cv2.add(rgb, cv2.cvtColor(overlay.rgba, cv2.COLOR_BGRA2BGR))
        return np.asarray(cv2.multiply(rgb, self._scope.gain, scale=1 / 170), np.uint8)

    def _shade(self, alpha: Image) -> Image:
        """The light that the instruments leave on the tissue, uint8 (H, W, 3)."""
        small = cv2.resize(alpha, None, fx=1 / _SHADOW_SCALE, fy=1 / _SHADOW_SCALE, interpolation=cv2.INTER_AREA)
        x, y = self._shadow_shift / _SHADOW_SCALE
        move = np.array([[1, 0, x], [0, 1, y]], np.float64)
        moved = cv2.warpAffine(small, move, (small.shape[1], small.shape[0]), borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.GaussianBlur(moved, (0, 0), max(self._shadow_sigma, 0.5))
        light = cv2.convertScaleAbs(soft, alpha=-self._shadow, beta=255)
        return np.asarray(cv2.cvtColor(cv2.resize(light, (self.width, self.height)), cv2.COLOR_GRAY2BGR), np.uint8)

    def _frame(self, rgb: Image, mask: Image) -> Image:
        """The image inside the scope's circle or borders, black outside."""
        mask3 = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)
        inside = cv2.multiply(rgb, mask3, scale=1 / 255)
        if not self._scope.black.any():
            return np.asarray(inside, np.uint8)
        return np.asarray(cv2.add(inside, look_up(mask3, self._outside)), np.uint8)
