"""The public code of CiSIN (yj-yu/CiSIN) for one set of clips, step by step, and weights for it."""

import torch
import torch.nn.functional as F

# Widths: text 6, hidden 10, face 7, motion 9, key points 3 x 5.
SHAPES = {
    "s_a_proj.0": (10, 12), "s_a_proj.3": (10, 10), "s_s_proj.0": (10, 12),
    "s_s_proj.3": (10, 10), "i_a_proj.0": (10, 9), "i_a_proj.3": (10, 10),
    "i_s_proj.0": (10, 7), "i_s_proj.3": (10, 10), "meta_proj.0": (50, 4),
    "fuse_fc.0": (10, 70), "fuse_fc.2": (1, 10), "text_reid_fc.0": (10, 6),
    "text_reid_fc.3": (1, 10), "gender_fc.0": (6, 6), "gender_fc.3": (1, 6),
    "vid_model.p_score_fc": (1, 1), "vid_model.f_score_fc": (1, 1),
    "vid_model.f_proj1": (10, 7), "vid_model.f_proj2": (10, 10),
}  # fmt: skip


def published_state():
    """Drawn weights by the names of the published class, in small sizes."""
    random = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in SHAPES.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=random) * (2 / shape[1]) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=random)
    return state | {"act_conv.conv1.weight": torch.zeros(2, 3, 7, 7)}


def plain_cisin(state, someone, action, face, motion, meta, parts, visible, token_clip, track_clip):
    """ground (N, M), vid (M, M), text (N, N), C (N, N), gender (N,) of one set."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def two(x, name, last, second=3):
        return last(linear(F.leaky_relu(linear(x, f"{name}.0")), f"{name}.{second}"))

    text = torch.cat([action, someone], -1)
    text_motion, text_face = two(text, "s_a_proj", torch.tanh), two(text, "s_s_proj", torch.tanh)
    moved, faced = two(motion, "i_a_proj", torch.tanh), two(face, "i_s_proj", torch.tanh)
    placed = F.leaky_relu(linear(meta, "meta_proj.0"))
    num_tokens, num_tracks = len(someone), len(face)
    ground = torch.zeros(num_tokens, num_tracks)
    for n in range(num_tokens):
        for m in range(num_tracks):
            g = torch.cat([placed[m], text_motion[n] * moved[m], text_face[n] * faced[m]])
            ground[n, m] = two(g, "fuse_fc", lambda y: y, second=2)[0]
    unit = F.normalize(parts, dim=-1)
    vid = torch.zeros(num_tracks, num_tracks)
    for i in range(num_tracks):
        for j in range(num_tracks):
            shared = [k for k in range(parts.shape[1]) if visible[i, k] and visible[j, k]]
            p = sum((unit[i, k] @ unit[j, k] for k in shared), torch.tensor(0.0))
            p = linear((p / max(1, len(shared)))[None], "vid_model.p_score_fc")[0]
            f = linear((face[i] @ face[j])[None], "vid_model.f_score_fc")[0]
            vid[i, j] = torch.tanh((p + 2 * f) / 3)
    own = (token_clip[:, None] == track_clip).float()
    assigned = torch.zeros(num_tokens, num_tracks)
    for n in range(num_tokens):
        inside = own[n].bool()
        if inside.any():
            assigned[n, inside] = (5 * ground[n, inside]).softmax(0)
    rows = assigned @ vid * (1 - own) - 0.1 * own
    same = torch.sigmoid(rows @ assigned.T)
    pairs = someone[:, None] * someone
    said = two(pairs, "text_reid_fc", torch.sigmoid)[..., 0]
    gender = two(someone, "gender_fc", torch.sigmoid)[..., 0]
    return ground, vid, said, (said + same) / 2, gender
