"""Faces in every frame: box, five landmarks, and the vector that tells persons apart.

Stage 2.3 of CiSIN (Yu et al., ECCV 2020): MTCNN, alignment to 112 x 112, ArcFace. Networks:
`people/face_detectors.py`, `people/face_encoders.py`; alignment: `people/face_alignment.py`.
`track_faces` joins the rows to person tracks.

Data flow: frames (H, W, 3) uint8 as they are in the file -> faces of a frame, N by falling score
-> aligned (N, 3, 112, 112) RGB, (x - 127.5) / 127.5 -> `embedding` (N, 512), scaled to length 1
unless `normalise` is off, `box` (N, 4), `landmarks` (N, 5, 2), `score` (N). A frame without faces
has no rows.

ArcFace's vectors are compared by angle, and a network that multiplies them (CiSIN) saturates on
raw ones, whose length is about 20.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Output
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.networks.iresnet import IResNet
from vlpipe.extractors.people.face_alignment import NUM_LANDMARKS, align_faces
from vlpipe.extractors.people.face_detectors import FACE_DETECTORS, FaceDetectorEntry
from vlpipe.extractors.people.face_encoders import FACE_ENCODERS, FaceEncoderEntry
from vlpipe.extractors.people.rows import MadeRows, gather_rows
from vlpipe.extractors.person_boxes import clip_boxes, find_usable
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import FrameSampler, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

# Landmarks nearer to each other than this are no face that could be turned upright.
_MIN_LANDMARK_SPREAD_PX = 1.0


class FacesConfig(ExtractorConfig):
    """Which frames, which networks, and which faces are kept.

    fps: frames a second, 24 in CiSIN; None keeps every frame of the source.
    detector, encoder: names of `FACE_DETECTORS` and `FACE_ENCODERS`.
    min_face: pixels of the edge of the smallest face that is looked for.
    min_score: of faces that are kept. max_faces: of a frame, those of highest score.
    normalise: scale vectors to length 1.
    """

    fps: float | None = Field(default=24.0, gt=0)
    detector: str = "mtcnn"
    encoder: str = "iresnet50"
    min_face: PositiveInt = 20
    min_score: float = Field(default=0.7, ge=0, le=1)
    max_faces: PositiveInt = 30
    normalise: bool = True

    @field_validator("detector")
    @classmethod
    def _detector_is_known(cls, name: str) -> str:
        if name not in FACE_DETECTORS:
            raise ValueError(f"expected one of {', '.join(sorted(FACE_DETECTORS))}")
        return name

    @field_validator("encoder")
    @classmethod
    def _encoder_is_known(cls, name: str) -> str:
        if name not in FACE_ENCODERS:
            raise ValueError(f"expected one of {', '.join(sorted(FACE_ENCODERS))}")
        return name

    @property
    def detector_entry(self) -> FaceDetectorEntry:
        return FACE_DETECTORS[self.detector]

    @property
    def encoder_entry(self) -> FaceEncoderEntry:
        return FACE_ENCODERS[self.encoder]


class FaceNetwork(nn.Module):
    """A frame (3, H, W), 0..255 RGB -> dict of `boxes`, `scores`, `landmarks`, `embedding`."""

    def __init__(self, settings: FacesConfig) -> None:
        super().__init__()
        self.min_score, self.max_faces = settings.min_score, settings.max_faces
        self.width = settings.encoder_entry.width
        self.detector = settings.detector_entry.build(settings.min_face)
        self.encoder = settings.encoder_entry.build()

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        height, width = frame.shape[1:]
        found = {key: values.float().cpu().numpy() for key, values in self.detector(frame).items()}
        boxes = clip_boxes(found["boxes"], width, height)
        kept = find_usable(boxes, found["scores"], self.min_score, self.max_faces)
        spread = np.ptp(found["landmarks"][kept], axis=1).max(axis=1, initial=0)  # (N)
        kept = kept[np.isfinite(spread) & (spread >= _MIN_LANDMARK_SPREAD_PX)]
        faces = align_faces(frame, found["landmarks"][kept])  # (N, 3, 112, 112)
        embedding = frame.new_zeros((0, self.width))
        if len(kept):
            embedding = self.encoder((faces - 127.5) / 127.5)["embedding"]  # (N, 512)
        return {
            "boxes": torch.from_numpy(boxes[kept]),
            "scores": torch.from_numpy(found["scores"][kept]),
            "landmarks": torch.from_numpy(found["landmarks"][kept]),
            "embedding": embedding.float(),
        }


@register("faces")
class Faces(Extractor):
    """Faces of each frame; all outputs share the row index (frame, face)."""

    version: ClassVar[int] = 1
    has_registered_parts: ClassVar[bool] = True
    Config: ClassVar[type[ExtractorConfig]] = FacesConfig
    batch_size = 4
    # 12.6 a face with iresnet50, 20 a frame of 480 x 360 for the cascade.
    gflop_per_sample: ClassVar[float] = 33.0
    description: ClassVar[str] = "faces with landmarks and ArcFace vectors: a 512-d row a face"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        roles: dict[str, Sequence[PublishedCheckpoint]] = {}
        for detector in FACE_DETECTORS.values():
            roles |= detector.checkpoints
        return roles | {n: e.checkpoints for n, e in FACE_ENCODERS.items() if e.checkpoints}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        settings = cast(FacesConfig, config)
        encoder = (settings.encoder,) if settings.encoder_entry.checkpoints else ()
        return (*settings.detector_entry.checkpoints, *encoder)

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(FacesConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        width = cast(FacesConfig, config).encoder_entry.width
        landmarks = ((NUM_LANDMARKS, 2), ("landmark", "x_y"), "float32")
        return (
            Output(cls.name, "embedding", (width,), ("channel",)),
            Output(f"{cls.name}_box", "box", (4,), ("corner",), "float32"),
            Output(f"{cls.name}_landmarks", "landmarks", *landmarks),
            Output(f"{cls.name}_score", "score", (), (), "float32"),
        )

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return FaceNetwork(cast(FacesConfig, config))

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        encoder = cast(FaceNetwork, network).encoder
        if isinstance(encoder, IResNet):
            encoder.initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        net = cast(FaceNetwork, network)
        for role, checkpoint in checkpoints.items():
            load_encoder = FACE_ENCODERS[role].load if role in FACE_ENCODERS else None
            if load_encoder is not None:
                load_encoder(net.encoder, checkpoint)
                continue
            load_detector = FACE_DETECTORS[_detector_of(role)].load
            assert load_detector is not None
            load_detector(net.detector, role, checkpoint)

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        chosen = {"encoder": role} if role in FACE_ENCODERS else {"detector": _detector_of(role)}
        cls.load(cls.build_network(FacesConfig.model_validate(chosen)), {role: checkpoint})

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return "no_faces" if num_rows == 0 else None

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return FrameSampler()

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        frames = torch.from_numpy(samples).to(self.device)  # (B, H, W, 3) uint8
        return frames.permute(0, 3, 1, 2).float()  # (B, 3, H, W)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """The faces of each frame, however many; see `Extractor.infer`."""
        return gather_rows(self, [self._find(sample) for sample in samples])

    def _find(self, sample: Sample) -> MadeRows:
        made = self.run_network(self.to_input(sample.data[None])[0])
        embedding = made["embedding"]
        if cast(FacesConfig, self.spec.config).normalise:
            embedding = F.normalize(embedding)
        rows = {
            "embedding": embedding.cpu().numpy(),
            "box": made["boxes"].numpy(),
            "landmarks": made["landmarks"].numpy(),
            "score": made["scores"].numpy(),
        }
        return MadeRows(rows, np.tile(np.array(sample.span), (len(embedding), 1)))


def _detector_of(role: str) -> str:
    """The name of the detector that has a checkpoint of that role."""
    return next(name for name, entry in FACE_DETECTORS.items() if role in entry.checkpoints)
