"""The public code of JSFusion (yj-yu/lsmdc) for one pair, step by step, and variables for it."""

import torch
import torch.nn.functional as F


def lstm_of_tensorflow(rows, kernel, bias, *, is_backward):
    """The outputs (T, H) of a BasicLSTMCell over rows (T, C)."""
    num_hidden = kernel.shape[1] // 4
    h, c = torch.zeros(num_hidden), torch.zeros(num_hidden)
    outputs = [None] * len(rows)
    for t in reversed(range(len(rows))) if is_backward else range(len(rows)):
        i, g, f, o = (torch.cat([rows[t], h]) @ kernel + bias).chunk(4)
        c = c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(g)
        h = torch.tanh(c) * torch.sigmoid(o)
        outputs[t] = h
    return torch.stack(outputs)


class PlainPublic:
    """yj-yu/lsmdc for one pair, step by step, from its TensorFlow variables."""

    def __init__(self, state, task):
        self.state, self.task = state, task
        self.video_scope = "video_rnn" if task == "fib" else "video_cnn"

    def dense(self, x, scope, activation):
        s = self.state
        y = x @ s[f"{scope}/weights"]
        if f"{scope}/BatchNorm/beta" in s:
            mean, variance = (s[f"{scope}/BatchNorm/moving_{m}"] for m in ("mean", "variance"))
            y = (y - mean) / torch.sqrt(variance + 1e-3) + s[f"{scope}/BatchNorm/beta"]
        else:
            y = y + s[f"{scope}/biases"]
        return activation(y)

    def frames(self, video, length):
        x, s = video, self.state
        num_rows, width = video.shape
        if self.task != "ret":
            k, t = torch.arange(width // 2), torch.arange(num_rows)
            angle = t[:, None] * 10000.0 ** (-k / (width // 2 - 1))
            x = x + torch.cat([angle.sin(), angle.cos()], 1)
        mask = (torch.arange(num_rows) >= num_rows - length).float()[:, None]
        x = y = x * mask
        for n in (1, 2, 3):
            scope = f"{self.video_scope}/conv{n}"
            kernel, wide = s[f"{scope}/weights"][:, 0], F.pad(y, (0, 0, 1, 1))
            y = sum(wide[j : j + num_rows] @ kernel[j] for j in range(3))
            if self.task == "mc":
                mean, var = (s[f"{scope}/BatchNorm/moving_{m}"] for m in ("mean", "variance"))
                y = (y - mean) / torch.sqrt(var + 1e-3) + s[f"{scope}/BatchNorm/beta"]
            else:
                y = y + s[f"{scope}/biases"]
            y = F.relu(y)
        half = y.shape[1] // 2
        y = y[:, :half] * torch.sigmoid(y[:, half:])
        if self.task == "fib":
            return self.dense(y * mask, "vid_rnn_fc", torch.tanh), mask
        scope = "vid_fc" if self.task == "mc" else "vid_rnn_fc"
        return self.dense(torch.cat([y, x], 1), scope, torch.tanh) * mask, mask

    def words(self, ids, length):
        mask = (torch.arange(len(ids)) < length).float()[:, None]
        x = self.state["word_embed"][ids] * mask
        if self.task == "fib":
            x = x * (ids != 1)[:, None]
        cell = "cap_rnn/bidirectional_rnn/{}/multi_rnn_cell/cell_0/basic_lstm_cell/"
        both = [
            lstm_of_tensorflow(
                x,
                self.state[cell.format(way) + "kernel"],
                self.state[cell.format(way) + "bias"],
                is_backward=way == "bw",
            )
            for way in ("fw", "bw")
        ]
        scope = "cap_fc" if self.task == "mc" else "cap_rnn/cap_rnn_fc"
        return self.dense(torch.cat(both, 1), scope, torch.tanh) * mask

    def fused(self, joint, frames, words, names):
        """joint (F, M, D), M = 1 for a blank, whose convolutions hold their gate."""
        attention, h2, h3 = names[:2], names[2], names[3]
        h1 = self.dense(joint, attention[0], torch.tanh)
        alpha = self.dense(h1, attention[1], torch.sigmoid)
        x = alpha * self.dense(self.dense(joint, h2, torch.tanh), h3, torch.tanh)
        is_fib = self.task == "fib"

        def masked(x, num_frames, num_words):
            rows = torch.arange(x.shape[0]) >= x.shape[0] - num_frames
            columns = torch.arange(x.shape[1]) < (1 if is_fib else num_words)
            return x * (rows[:, None] & columns)[..., None]

        x = masked(x, frames, words)
        scope = "after_fusion" if is_fib else "multimodal"
        for n, stride in ((1, 1), (2, 1), (3, 2)):
            strides = (stride, 1) if is_fib else stride

            def convolved(name, x=x, strides=strides):
                kernel = self.state[f"{scope}/{name}/weights"].permute(3, 2, 0, 1)
                bias = self.state[f"{scope}/{name}/biases"]
                y = F.conv2d(x.permute(2, 0, 1)[None], kernel, bias, strides)
                return y[0].permute(1, 2, 0)

            if is_fib:
                y = torch.tanh(convolved(f"conv{n}"))
                passed, gate = y[..., :-1], y[..., -1:]
            elif self.task == "mc":
                passed = torch.tanh(convolved(f"conv{n}"))
                gate = torch.tanh(convolved(f"conv{n}alp"))
            else:
                passed = F.leaky_relu(convolved(f"conv{n}"), 0.2)
                gate = convolved(f"conv{n}alp")
            if stride == 1:
                frames, words = max(1, frames - 2), max(1, words - 2)
            else:
                frames, words = max(1, (frames - 1) // 2), max(1, (words - 1) // 2)
            x = masked(passed * torch.sigmoid(gate), frames, words)
        total = x.sum((0, 1))
        return total if is_fib else total / (frames * words)

    def __call__(self, video, num_frames, ids, num_words):
        frames, _ = self.frames(video, num_frames)
        words = self.words(ids, num_words)
        if self.task == "fib":
            blank = words[(ids == 1).nonzero()[0, 0]]
            names = [f"after_fusion/{n}" for n in ("fc1", "fcalp", "fc2", "fc3")]
            x = self.fused((frames * blank)[:, None], num_frames, num_words, names)
            for n in (1, 2, 3):
                x = self.dense(x, f"after_sum/fc{n}", torch.tanh)
            return self.dense((blank + x) / 2, "rnn_output", lambda y: y)
        names = [f"multimodal/rel_{n}" for n in ("h1", "halp", "h2", "h3")]
        x = self.fused(frames[:, None] * words, num_frames, num_words, names)
        leaky = torch.tanh if self.task == "mc" else lambda y: F.leaky_relu(y, 0.2)
        for n in (1, 2, 3):
            x = self.dense(x, f"multimodal/fc{n}", leaky)
        score = self.dense(x, "multimodal/scorefn", lambda y: y)[0]
        return -score if self.task == "mc" else score


def tensorflow_state(task):
    """Drawn variables of the public code, by its names and shapes, in small sizes."""
    wide = 8 if task == "fib" else 6  # the blank's vector and D7 are added
    joint, conv = (8, 8) if task == "fib" else (7, 5)
    shapes = {"word_embed": (20, 6)}

    def dense(scope, num_in, num_out, *, norm=True):
        shapes[f"{scope}/weights"] = (num_in, num_out)
        names = ("beta", "moving_mean", "moving_variance")
        if norm:
            shapes.update({f"{scope}/BatchNorm/{name}": (num_out,) for name in names})
        else:
            shapes[f"{scope}/biases"] = (num_out,)

    for n in (1, 2, 3):
        scope = f"{'video_rnn' if task == 'fib' else 'video_cnn'}/conv{n}"
        dense(scope, 0, 16, norm=task == "mc")
        shapes[f"{scope}/weights"] = (3, 1, 8 if n == 1 else 16, 16)
    dense("vid_fc" if task == "mc" else "vid_rnn_fc", 8 if task == "fib" else 16, wide)
    dense("cap_fc" if task == "mc" else "cap_rnn/cap_rnn_fc", 8, wide)
    for way in ("fw", "bw"):
        scope = f"cap_rnn/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/basic_lstm_cell"
        shapes |= {f"{scope}/kernel": (10, 16), f"{scope}/bias": (16,)}
    names = ("fc1", "fcalp", "fc2", "fc3") if task == "fib" else ("h1", "halp", "h2", "h3")
    scope = "after_fusion/" if task == "fib" else "multimodal/rel_"
    for name, sizes in zip(
        names, ((wide, joint), (joint, 1), (wide, joint), (joint, joint)), strict=True
    ):
        dense(scope + name, *sizes)
    for n, num_in in ((1, joint), (2, conv), (3, conv)):
        if task == "fib":
            shapes[f"after_fusion/conv{n}/weights"] = (3, 1, num_in, conv + 1)
            shapes[f"after_fusion/conv{n}/biases"] = (conv + 1,)
            continue
        for name, num_out in ((f"conv{n}", conv), (f"conv{n}alp", 1)):
            shapes[f"multimodal/{name}/weights"] = (3, 3, num_in, num_out)
            shapes[f"multimodal/{name}/biases"] = (num_out,)
    scope = "after_sum" if task == "fib" else "multimodal"
    sizes = (conv, 4, 4, 8 if task == "fib" else 6)
    for n in (1, 2, 3):
        dense(f"{scope}/fc{n}", sizes[n - 1], sizes[n])
    if task == "fib":
        dense("rnn_output", 8, 11, norm=False)
    else:
        dense("multimodal/scorefn", 6, 1)
    random = torch.Generator().manual_seed(len(task))
    return {
        name: torch.rand(shape, generator=random) + 0.5
        if name.endswith("variance")
        else 0.4 * torch.randn(shape, generator=random)
        for name, shape in shapes.items()
    }
