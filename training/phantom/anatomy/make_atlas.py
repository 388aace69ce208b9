"""Makes ``icbm152.npz`` from the ICBM 2009a template that nilearn brings; needed only to make the file again.

pip install --require-hashes -r requirements/extras/atlas.lock
python -m training.phantom.anatomy.make_atlas
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.phantom.anatomy.atlas import DURA, FILE, STEPS, WALL, Atlas

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
COMMISSURE = (98, 134, 72)
"""Index of the anterior commissure in the template, which has 1 mm voxels: from the left, from the back, from below."""
_KEPT = (slice(15, 99), slice(17, 220), slice(0, 165))  # one half, from outside of the brain to the middle
_DEEPEST = 6  # mm inside of the ventricles' wall that are kept


def main() -> None:
    """Writes the file, which holds the same bytes each time."""
    grey, white = (_load(f"mni_icbm152_{part}_tal_nlin_sym_09a_converted.nii.gz") for part in ("gm", "wm"))
    np.savez_compressed(FILE, **make_arrays(grey, white)._asdict())
    print(f"{FILE}: {FILE.stat().st_size / 1e6:.2f} MB")


def _load(name: str) -> Volume:
    import nibabel  # an extra, as nilearn is

    path = Path(str(files("nilearn.datasets.data").joinpath(name)))
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float32) / np.float32(255)


def make_arrays(grey: Volume, white: Volume) -> Atlas:
    """What the atlas keeps of a template.

    Args:
        grey: share of grey matter, 0 to 1, of the template's shape, both halves alike.
        white: likewise.

    Returns:
        What ``FILE`` holds.
    """
    cavity = _fill(grey + white > 0.5)
    ventricles = _find_ventricles(1 - grey - white, cavity)
    return Atlas(
        grey=np.round(grey[_KEPT] * STEPS).astype(np.uint8),
        white=np.round(white[_KEPT] * STEPS).astype(np.uint8),
        ventricles=np.round(np.clip(_measure_depth(ventricles)[_KEPT], -WALL, _DEEPEST) + WALL).astype(np.uint8),
        cavity=np.round(np.clip(_measure_depth(cavity)[_KEPT], -DURA, DURA) + DURA).astype(np.uint8),
        origin=(np.array(COMMISSURE) - [part.start for part in _KEPT]).astype(np.int16),
    )


def _fill(brain: Mask) -> Mask:
    """The brain with its sulci and cisterns, up to where the dura is about."""
    margin = 20
    closed = ndimage.binary_closing(np.pad(brain, margin), iterations=6)
    filled: Mask = ndimage.binary_fill_holes(closed)
    return filled[margin:-margin, margin:-margin, margin:-margin]


def _find_ventricles(fluid: Volume, cavity: Mask) -> Mask:
    """Lateral ventricles, the largest fluid that does not reach the surface, with the third and the fourth."""
    x, y, z = (place - zero for place, zero in zip(np.indices(fluid.shape), COMMISSURE, strict=True))
    deep = np.abs(x) < 45
    parts, count = ndimage.label((fluid > 0.5) & cavity)
    reach = ndimage.maximum(~deep, parts, range(1, count + 1))
    sizes = np.where(reach, 0, ndimage.sum_labels(np.ones_like(parts), parts, range(1, count + 1)))
    third = (fluid > 0.35) & (np.abs(x) < 5) & (y > -32) & (y < 6) & (z > -14) & (z < 10)
    fourth = (fluid > 0.5) & (np.abs(x) < 14) & (y > -52) & (y < -33) & (z > -46) & (z < -18)
    lateral: Mask = parts == 1 + int(np.argmax(sizes))
    return lateral | _keep_largest(third) | _keep_largest(fourth)


def _keep_largest(mask: Mask) -> Mask:
    parts, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, parts, range(1, count + 1))
    return np.asarray(parts == 1 + int(np.argmax(sizes)), dtype=np.bool_)


def _measure_depth(mask: Mask) -> Volume:
    """Millimetres inside of a mask, negative outside."""
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return np.asarray(depth - 0.5 * np.sign(depth), dtype=np.float32)


if __name__ == "__main__":
    main()
