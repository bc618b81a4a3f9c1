"""JSFusion in small sizes, and inputs for it of several lengths."""

import torch

from vlpipe.models import create_model

# Small sizes: 13 frames of 5 + 3 numbers, 12 words of 6, LSTMs of 4.
SMALL = {
    "vocabulary_size": 20, "num_answers": 9, "frame_width": 5, "sound_width": 3, "max_frames": 13,
    "max_words": 12, "word_width": 6, "hidden": 4, "widths": (6, 7, 5, 4, 4, 6),
}  # fmt: skip


def small(task="retrieval", seed=0, **settings):
    torch.manual_seed(seed)
    model = create_model("jsfusion", task=task, **SMALL | settings)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def material(num_videos=3, num_sentences=3, seed=1):
    random = torch.Generator().manual_seed(seed)
    return {
        "video": torch.rand(num_videos, 13, 8, generator=random),
        "video_len": torch.tensor([13, 4, 1, 9, 7])[:num_videos],
        "words": torch.randint(1, 20, (num_sentences, 12), generator=random),
        "word_len": torch.tensor([5, 12, 1, 3, 8])[:num_sentences],
    }
