"""Log-mel examples of sound as VGGish defines them (Hershey et al., 2017; vggish_input.py).

Windows of 400 samples (25 ms) every 160 (10 ms), periodic Hann, magnitude of the real Fourier
transform of length 512, 64 triangular mel bands of 125 to 7500 Hz, log(mel + 0.01), and examples
of 96 windows without overlap.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000  # Hz
WINDOW, HOP = 400, 160  # samples: 25 ms, 10 ms
FFT_LENGTH = 512
NUM_BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
EXAMPLE_WINDOWS = 96
EXAMPLE_HOP = EXAMPLE_WINDOWS * HOP  # samples: 0.96 s
EXAMPLE_SAMPLES = (EXAMPLE_WINDOWS - 1) * HOP + WINDOW  # samples: 0.975 s


def log_mel_examples(waveform: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """(n, 96, 64) float32 of (example, 10 ms window, mel band); a remainder is dropped.

    waveform: mono samples at 16 kHz in [-1, 1]. Fewer than 15,600 of them give n = 0. Computed in
    float64: the logarithm of a nearly silent band would show float32's rounding.
    """
    num_examples = max(0, 1 + (len(waveform) - EXAMPLE_SAMPLES) // EXAMPLE_HOP)
    if num_examples == 0:
        return np.zeros((0, EXAMPLE_WINDOWS, NUM_BANDS), np.float32)
    used = np.asarray(waveform[: (num_examples - 1) * EXAMPLE_HOP + EXAMPLE_SAMPLES], np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(used, WINDOW)[::HOP]  # (n * 96, 400)
    spectrum = np.abs(np.fft.rfft(windows * _hann(), FFT_LENGTH))  # (n * 96, 257)
    log_mel = np.log(spectrum @ _mel_matrix() + LOG_OFFSET)  # (n * 96, 64)
    return log_mel.reshape(num_examples, EXAMPLE_WINDOWS, NUM_BANDS).astype(np.float32)


@cache
def _hann() -> npt.NDArray[np.float64]:
    # The periodic form: one period is 400 samples, so the first and the last weight differ.
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def _mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + np.asarray(hertz, np.float64) / 700.0)


@cache
def _mel_matrix() -> npt.NDArray[np.float64]:
    """(257, 64) weights from FFT bins to bands: triangles that are linear in mel, peak 1."""
    bins = _mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT_LENGTH // 2 + 1))[:, None]  # (257, 1)
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), NUM_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))  # (257, 64)
    weights[0] = 0.0  # the constant part of the signal belongs to no band
    return weights
