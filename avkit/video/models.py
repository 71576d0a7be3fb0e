"""The face models that the extra `[video]` installs: found as files, loaded once, on first use.

dlib brings the code (its detectors, the correlation tracker, the landmark predictor), the package face_recognition_models the
weights. That package is never imported, because importing it needs `pkg_resources`, which newer Pythons lack; its files are
found through its import specification. The 68-point landmark model was trained on iBUG 300-W, whose licence excludes
commercial use: it is for research only.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from avkit._extras import install_line, require
from avkit.errors import MissingPackageError

LANDMARKS = "shape_predictor_68_face_landmarks.dat"
CNN_DETECTOR = "mmod_human_face_detector.dat"
IDENTITY = "dlib_face_recognition_resnet_model_v1.dat"


def model_file(name: str) -> Path:
    """The path of one of the three files of weights.

    Raises:
        MissingPackageError: the package that brings them is not installed, or came without the file.
    """
    require("face_recognition_models", "Finding faces")
    folder = Path(find_spec("face_recognition_models").submodule_search_locations[0]) / "models"
    path = folder / name
    if not path.is_file():
        raise MissingPackageError(
            f"{path} is not there, so the package face_recognition_models is incomplete. "
            f"Install it again with: {install_line('video')} --force-reinstall"
        )
    return path


def dlib_module() -> ModuleType:
    """dlib, or a MissingPackageError that says what to install."""
    require("dlib", "Finding faces")
    import dlib

    return dlib


@functools.cache
def hog_detector():
    """Frontal faces by histograms of oriented gradients: five small linear detectors, fast on a CPU."""
    return dlib_module().get_frontal_face_detector()


@functools.cache
def landmark_predictor():
    """68 landmarks in a detected face by an ensemble of regression trees (Kazemi and Sullivan 2014)."""
    return dlib_module().shape_predictor(str(model_file(LANDMARKS)))


@functools.cache
def cnn_detector():
    """Faces turned away too, by a convolutional network: about a hundred times as slow as the gradients on a CPU."""
    return dlib_module().cnn_face_detection_model_v1(str(model_file(CNN_DETECTOR)))


@functools.cache
def identity_model():
    """128 numbers per face that lie close together for one person; here they join tracks of one video, nothing else."""
    return dlib_module().face_recognition_model_v1(str(model_file(IDENTITY)))
